"""`/prometheus/sd` and `/upstreams/{name}`: addresses of instances in the formats of other programs."""

from msgspec import Struct

from gaffer.errors import BadRequest
from gaffer.http.operations import TEXT, operation
from gaffer.jobs.names import parse_job_name
from gaffer.schemas.lookup import TargetGroup
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.discovery import find_addresses, nginx_upstream, plain_lines, prometheus_groups
from gaffer_lookupd.errors import Warming

FORMATS = ("plain", "nginx")


class PrometheusQuery(Struct, kw_only=True):
    """Parameters of `GET /prometheus/sd`, filters by session, job and name of the endpoint."""

    session: str = ""
    job: str = ""
    endpoint: str = ""


class UpstreamQuery(Struct, kw_only=True):
    """Parameters of `GET /upstreams/{name}`.

    format: `plain` or `nginx`. endpoint: the name of the endpoint, for jobs that have several.
    """

    format: str = FORMATS[0]
    endpoint: str = ""


class PrometheusHandler(LookupHandler):
    """Targets for Prometheus."""

    @operation(list[TargetGroup], query=PrometheusQuery, errors=(503,))
    async def get(self) -> None:
        """Return the endpoints of all ready instances, for Prometheus' `http_sd_configs`.

        `?session=`, `?job=` (`web` or `shop.web`) and `?endpoint=` filter them. The labels are
        `__meta_gaffer_session`, `_job`, `_node`, `_zone` (the label `zone` of the node) and `_endpoint`. While lookupd
        is warming, the response is 503 with Retry-After, and Prometheus keeps its targets.
        """
        self.check_warm()
        wanted = {name: self.get_query_argument(name, None) or None for name in PrometheusQuery.__struct_fields__}
        await self.send_all(prometheus_groups(self.application.registry, **wanted))


class UpstreamHandler(LookupHandler):
    """The addresses of a job, for a load balancer."""

    @operation(str, media=TEXT, query=UpstreamQuery, errors=(503,))
    async def get(self) -> None:
        """Return the addresses of ready instances, one per line, or with `?format=nginx` as an `upstream` block.

        The address is that of the instance's first endpoint, or of the one named by `?endpoint=`. Without instances the
        response is empty, or an upstream for which nginx responds 502. Host names that this host can't resolve are left
        out of the upstream, because nginx would not start with them. While lookupd is warming, the response is 503 with
        Retry-After; the plain format has no body then, so that a script that ignores the status gets no false address.
        """
        name = parse_job_name(self.params["name"])
        wanted = self.get_query_argument("format", FORMATS[0])
        if wanted not in FORMATS:
            hint = f"use {' or '.join(FORMATS)}"
            raise BadRequest(f"invalid format={wanted!r}", reason="bad_value", hint=hint)
        endpoint = self.get_query_argument("endpoint", None) or None
        if wanted == "plain" and (left := self.warming_left()):
            self.set_status(Warming.errno)
            self.set_header("Retry-After", str(left))
            self.reply_text("")
            return
        self.check_warm()
        addresses = find_addresses(self.application.registry, str(name), endpoint)
        if wanted == "nginx":
            unresolved = await self.application.resolver.find_unresolved(address.host for address in addresses)
            self.reply_text(nginx_upstream(str(name), addresses, unresolved))
        else:
            self.reply_text(plain_lines(addresses))
