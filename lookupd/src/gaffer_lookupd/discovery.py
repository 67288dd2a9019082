"""Addresses of instances for programs without Gaffer support: Prometheus, nginx, shell scripts.

Only ready instances are included, also those of suspect nodes: a silent node's jobs may still be running.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from gaffer.jobs.names import JobName, split_job_name
from gaffer.schemas.messages import Process
from gaffer_lookupd.queries import in_parts, separated
from gaffer_lookupd.records import Node
from gaffer_lookupd.registry import Registry

_encode = msgspec.json.Encoder().encode

# nginx rejects an upstream without servers. Nothing listens on port 1, and `down` keeps nginx from trying.
_NO_SERVER = "    server 127.0.0.1:1 down;\n"


class InstanceAddress(NamedTuple):
    """The address of an instance; `host` is a host name or an IP address, checked when the node announced it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def prometheus_groups(
    registry: Registry, *, session: str | None = None, job: str | None = None, endpoint: str | None = None
) -> Iterator[bytes]:
    """Yield the response for Prometheus' `http_sd_configs` in parts.

    It contains ready instances, optionally only those of a session, of a job (bare or qualified name), or the endpoints
    of one name. A group is an endpoint of a job on a node.
    """

    def groups() -> Iterator[bytes]:
        for name in list(registry.tables.jobs):
            split = JobName(*split_job_name(name))
            if session in (None, split.session) and job in (None, split.name, str(split)):
                for node in list(registry.tables.jobs.get(name, {}).values()):
                    yield from (group for label, group in _groups(node, name, split) if endpoint in (None, label))

    return in_parts(chain((b"[",), separated(groups()), (b"]",)), split=True)


def _groups(node: Node, job_name: str, job: JobName) -> list[tuple[str, bytes]]:
    """Return the groups of a job on a node, each with the name of its endpoint."""
    found = node.parts.targets.get(job_name)
    if found is None:
        by_endpoint: dict[str, list[str]] = {}
        for process in _ready(node, job_name):
            for label, address in _addresses(process, None):
                by_endpoint.setdefault(label, []).append(str(address))
        found = node.parts.targets[job_name] = [
            (label, _encode({"targets": sorted(targets), "labels": _labels(node, job, label)}))
            for label, targets in by_endpoint.items()
        ]
    return found


def _labels(node: Node, job: JobName, endpoint: str) -> dict[str, str]:
    identity = node.identity
    return {
        "__meta_gaffer_session": job.session,
        "__meta_gaffer_job": job.name,
        "__meta_gaffer_node": identity.name,
        "__meta_gaffer_zone": identity.labels.get("zone", ""),
        "__meta_gaffer_endpoint": endpoint,
    }


def find_addresses(registry: Registry, job_name: str, endpoint: str | None = None) -> list[InstanceAddress]:
    """Return the address of each ready instance of a job, sorted: of the named endpoint, or of its first."""
    found: list[InstanceAddress] = []
    for node in registry.tables.jobs.get(job_name, {}).values():
        for process in _ready(node, job_name):
            found += [address for _, address in islice(_addresses(process, endpoint), 1)]
    return sorted(found, key=str)


def _ready(node: Node, job_name: str) -> Iterator[Process]:
    if not node.draining:
        for process in node.jobs[job_name].values():
            if process.state == "ready":
                yield process


def _addresses(process: Process, wanted: str | None) -> Iterator[tuple[str, InstanceAddress]]:
    for endpoint in process.endpoints:
        if wanted in (None, endpoint.name) and endpoint.port:
            yield endpoint.name, InstanceAddress(endpoint.address, endpoint.port)


def nginx_upstream(name: str, addresses: Sequence[InstanceAddress], unresolved: Sequence[str] = ()) -> str:
    """Return an nginx `upstream` block; without addresses, one that nginx accepts and responds to with 502.

    The host names in `unresolved` become comments, because nginx does not start if it can't resolve a server.
    """
    lines = [f"    server {address};\n" for address in addresses if address.host not in unresolved]
    left_out = [f"    # {host} does not resolve\n" for host in unresolved]
    return f"upstream {name} {{\n{''.join(lines or [_NO_SERVER])}{''.join(left_out)}}}\n"


def plain_lines(addresses: Iterable[InstanceAddress]) -> str:
    """Return one address per line."""
    return "".join(f"{address}\n" for address in addresses)
