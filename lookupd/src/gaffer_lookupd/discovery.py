"""Where instances listen, for programs that know nothing of Gaffer: Prometheus, nginx, a shell script.

Only instances that are ready count. Those of a suspect node stay: its silence says nothing of its jobs.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from gaffer.messages import Process
from gaffer.names import JobName, split_job_name
from gaffer_lookupd.records import Node
from gaffer_lookupd.registry import Registry

_encode = msgspec.json.Encoder().encode

# Nodes say where their instances are; what is no host must not get into another program's configuration.
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)

# nginx refuses an upstream without a server. Nothing listens on port 1, and `down` keeps nginx from trying.
_NOBODY = "127.0.0.1:1 down"


def prometheus_groups(
    registry: Registry, *, session: str | None = None, job: str | None = None, endpoint: str | None = None
) -> bytes:
    """What Prometheus' `http_sd_configs` reads: the ready instances of a session, a job (bare or qualified), and the
    endpoints of that name, where given. A group is an endpoint of a job on a node.
    """
    groups: list[bytes] = []
    for name, holders in registry.tables.jobs.items():
        split = JobName(*split_job_name(name))
        if session in (None, split.session) and job in (None, split.name, str(split)):
            for node in holders.values():
                groups += [group for label, group in _groups(node, name, split) if endpoint in (None, label)]
    return b"[%b]" % b",".join(groups)


def _groups(node: Node, job_name: str, job: JobName) -> list[tuple[str, bytes]]:
    """The groups of a job on a node, each with the name of its endpoint."""
    found = node.parts.targets.get(job_name)
    if found is None:
        by_endpoint: dict[str, list[str]] = {}
        for process in _ready(node, job_name):
            for label, address in _addresses(process, None):
                by_endpoint.setdefault(label, []).append(address)
        found = node.parts.targets[job_name] = [
            (label, _encode({"targets": sorted(targets), "labels": _labels(node, job, label)}))
            for label, targets in by_endpoint.items()
        ]
    return found


def _labels(node: Node, job: JobName, endpoint: str) -> dict[str, str]:
    who = node.identity
    return {
        "__meta_gaffer_session": job.session,
        "__meta_gaffer_job": job.name,
        "__meta_gaffer_node": who.name,
        "__meta_gaffer_zone": who.labels.get("zone", ""),
        "__meta_gaffer_endpoint": endpoint,
    }


def find_addresses(registry: Registry, job_name: str, endpoint: str | None = None) -> list[str]:
    """For each ready instance of a job the endpoint of that name, or its first, as host:port; in order."""
    found = []
    for node in registry.tables.jobs.get(job_name, {}).values():
        for process in _ready(node, job_name):
            found += [address for _, address in islice(_addresses(process, endpoint), 1)]
    return sorted(found)


def _ready(node: Node, job_name: str) -> Iterator[Process]:
    if not node.draining:
        for process in node.jobs[job_name].values():
            if process.state == "ready":
                yield process


def _addresses(process: Process, wanted: str | None) -> Iterator[tuple[str, str]]:
    for endpoint in process.endpoints:
        host = _host(endpoint.address)
        if wanted in (None, endpoint.name) and host is not None and endpoint.port:
            yield endpoint.name, f"{host}:{endpoint.port}"


def _host(address: str) -> str | None:
    """The address as it stands before a port; None when it is neither an IP address nor a host name."""
    if ":" in address:
        try:
            return f"[{ipaddress.IPv6Address(address)}]"
        except ValueError:
            return None
    return address if _HOST.fullmatch(address) else None


def nginx_upstream(name: str, addresses: Sequence[str]) -> str:
    """An `upstream` block of nginx; without addresses one that nginx accepts and answers 502 for."""
    servers = "".join(f"    server {address};\n" for address in addresses or [_NOBODY])
    return f"upstream {name} {{\n{servers}}}\n"


def plain_lines(addresses: Iterable[str]) -> str:
    """One address a line."""
    return "".join(f"{address}\n" for address in addresses)
