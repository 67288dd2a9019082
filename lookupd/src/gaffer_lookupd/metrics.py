"""`/metrics`: metrics of lookupd itself for Prometheus. Metrics of jobs come from their nodes."""

import platform
from collections import Counter
from typing import get_args

from gaffer.http.exposition import CONTENT_TYPE, Family
from gaffer.http.operations import TEXT, operation
from gaffer.runtime import log
from gaffer.runtime.version import __version__
from gaffer.schemas.lookup import Status
from gaffer_lookupd.application import LookupApplication, LookupHandler


class MetricsHandler(LookupHandler):
    """The metrics of lookupd."""

    @operation(str, media=TEXT)
    def get(self) -> None:
        """Return the metrics in version 0.0.4 of the Prometheus text format."""
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish("".join(family.render() for family in _collect(self.application)))


def _collect(application: LookupApplication) -> list[Family]:
    registry = application.registry
    build = Family("gaffer_build_info", "gauge", "Always 1; the labels are the versions of lookupd and Python.")
    build.add(1, {"version": __version__, "python": platform.python_version()})
    counts = Counter(node.status for node in registry.nodes)
    nodes = Family("gaffer_lookupd_nodes", "gauge", "Nodes in responses.")
    for status in get_args(Status):
        nodes.add(counts[status], {"status": status})
    return [
        build,
        _one("gaffer_uptime_seconds", "gauge", "Seconds since lookupd started.", application.uptime),
        nodes,
        _one("gaffer_lookupd_jobs", "gauge", "Jobs in responses.", len(registry.tables.jobs)),
        _one("gaffer_lookupd_stale", "gauge", "1 while most nodes are silent.", registry.preserving),
        _one("gaffer_lookupd_warming", "gauge", "1 while nodes are reconnecting after a start.", registry.warming),
        _one("gaffer_lookupd_tombstones", "gauge", "Recently removed nodes.", len(registry.graves)),
        _one("gaffer_lookupd_connections", "gauge", "Websockets of nodes.", len(application.connections)),
        _one("gaffer_lookupd_changes_total", "counter", "Changes published to followers.", registry.seq),
        _one(
            "gaffer_lookupd_lost_changes_total",
            "counter",
            "Changes that slow followers missed, for which they got the complete registry.",
            application.changes.dropped,
        ),
        _one("gaffer_lookupd_followers", "gauge", "Readers of long-running responses.", len(application.readers)),
        _one(
            "gaffer_lookupd_displaced_total",
            "counter",
            "Readers and unidentified peers disconnected to make room for newer ones.",
            application.readers.displaced,
        ),
        _one(
            "gaffer_own_log_lost_lines_total",
            "counter",
            "Lines of lookupd's own log dropped because nothing read them or the disk was full.",
            log.lost_lines(),
        ),
    ]


def _one(name: str, kind: str, about: str, value: float) -> Family:
    family = Family(name, kind, about)
    family.add(value)
    return family
