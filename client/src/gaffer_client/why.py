"""Findings about a job: inconsistencies between the responses of lookups and nodes. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from gaffer.schemas.bodies import LookupdState
from gaffer.schemas.lookup import AgedNodeInfo, JobSource
from gaffer_client.merge import Merged, NodeKey, View, merge, node_key
from gaffer_client.naming import display_name, job_state
from gaffer_client.progress import rollout_text

if TYPE_CHECKING:
    from gaffer.schemas.views import JobView

_LAST_LINES = 3  # of the output of a process
_READY, _DRAINING, _SUSPECT, _LEFT = "ready", "draining", "suspect", "left"


class Report(NamedTuple):
    """The response of a node: the job, or None if it does not have it, and its connections to lookups.

    `error` is set instead if the node did not respond.
    """

    node: AgedNodeInfo
    job: "JobView | None" = None
    lookupds: Sequence[LookupdState] = ()
    error: str | None = None


@dataclass(frozen=True)
class Inquiry:
    """The responses about the job `name`: views and failures of lookups, and reports of nodes."""

    name: str
    views: Sequence[View]
    failures: Mapping[str, str]
    reports: Mapping[NodeKey, Report]

    @cached_property
    def merged(self) -> Merged:
        """The merged view of all lookups."""
        return merge(self.views)

    @cached_property
    def sources(self) -> dict[NodeKey, JobSource]:
        """The nodes that have the job, according to the merged view."""
        return {node_key(source["node_info"]): source for source in self.merged.jobs.get(self.name, [])}


def findings(inquiry: Inquiry) -> list[str]:
    """Return the findings as text, one per problem; empty if all servers agree and all is well."""
    return [
        *(f"{url} did not respond: {why}" for url, why in inquiry.failures.items()),
        *(finding for view in inquiry.views for finding in _view_warnings(view)),
        *_missing(inquiry),
        *_duplicate_names(inquiry),
        *(finding for key, source in inquiry.sources.items() for finding in _node_findings(inquiry, key, source)),
        *_gone_nodes(inquiry),
    ]


def _view_warnings(view: View) -> Iterator[str]:
    if view.warming:
        yield f"{view.url} has just started and may not know all nodes yet"
    elif view.stale:
        yield f"{view.url} has lost contact with most nodes: its data may be outdated"


def _missing(inquiry: Inquiry) -> Iterator[str]:
    if not inquiry.views:
        yield "no lookup responded: the nodes of the cluster are unknown"
    elif not inquiry.sources:
        yield f"no lookup lists a node with {inquiry.name}"
        for view in inquiry.views:
            if lost := [tombstone["id"] for tombstone in view.tombstones if tombstone.get("reason") != _LEFT]:
                yield f"{view.url} recently dropped nodes that may have had it: {', '.join(lost)}"
    for key, report in inquiry.reports.items():
        if key in inquiry.sources:
            continue
        name = display_name(report.node)
        if report.job is not None:
            if inquiry.views:
                yield f"{name} has it, but no lookup lists it"
            yield from _job_problems(report.job, name)
            yield from _links(report)
        elif not inquiry.views:
            yield f"{name} did not respond: {report.error}" if report.error else f"{name} has no such job"


def _duplicate_names(inquiry: Inquiry) -> Iterator[str]:
    nodes = inquiry.merged.nodes
    names = Counter(node["name"] for node in nodes if node.get("conflict"))
    for name, number in names.items():
        origins = ", ".join(node["origin"] for node in nodes if node["name"] == name)
        yield f"{number} nodes are named {name}: {origins}"


def _node_findings(inquiry: Inquiry, key: NodeKey, source: JobSource) -> Iterator[str]:
    """Yield findings about one of the nodes that have the job."""
    node = source["node_info"]
    name = display_name(node)
    if node.get("status") == _SUSPECT:
        yield f"{name} has been silent for {_seconds(node)}: it is suspect and will be removed when its lease expires"
    if node.get("draining", node.get("status") == _DRAINING):
        yield f"{name} is being drained: its processes are out of service"
    processes = source.get("processes", [])
    if processes and not any(process["state"] == _READY for process in processes):
        states = ", ".join(f"{process['pid']} {process['state']}" for process in processes)
        yield f"no process is ready on {name}: {states}"
    elif not source["pids"]:
        yield f"{name} has the job, but no process in service"
    for view in inquiry.views:
        yield from _view_differences(view, key, source, name, inquiry.name)
    report = inquiry.reports.get(key)
    state, reason = source.get("state"), source.get("reason")
    if (report is None or report.error is not None) and state and (reason or state != "running"):
        yield f"{name} announced that the job is {job_state(state, reason)}"
    if report is not None:
        yield from _report_differences(report, source, name)
        yield from _links(report)


def _view_differences(view: View, key: NodeKey, source: JobSource, name: str, job: str) -> Iterator[str]:
    """Yield how one lookup differs from the merged view of a node."""
    known = next((node for node in view.nodes if node_key(node) == key), None)
    here = next((each for each in view.jobs.get(job, ()) if node_key(each["node_info"]) == key), None)
    if known is None and here is None:
        yield f"{view.url} does not list {name}"
    elif here is None:
        yield f"{view.url} lists {name}, but not with the job{_behind(known, source['node_info'])}"
    elif sorted(here["pids"]) != sorted(source["pids"]):
        yield f"{view.url} lists {_pids(here['pids'])} for {name}{_behind(here['node_info'], source['node_info'])}"


def _behind(node: AgedNodeInfo | None, best: AgedNodeInfo) -> str:
    position = node and (node.get("incarnation"), node.get("seq"))
    if node is None or position == (best.get("incarnation"), best.get("seq")):
        return ""
    if node.get("incarnation") != best.get("incarnation"):
        return f": it has start {node.get('incarnation')} of the node, others have start {best.get('incarnation')}"
    return f": it has change {node.get('seq')} of the node, others have change {best.get('seq')}"


def _report_differences(report: Report, source: JobSource, name: str) -> Iterator[str]:
    """Yield how the report of a node differs from the lookups."""
    if report.error is not None:
        yield f"{name} did not respond: {report.error}"
    elif report.job is None:
        yield f"{name} reports no such job"
    else:
        if sorted(report.job["processes"]) != sorted(source["pids"]):
            yield f"{name} reports {_pids(report.job['processes'])}, the lookups list {_pids(source['pids'])}"
        yield from _job_problems(report.job, name)


def _job_problems(job: "JobView", name: str) -> Iterator[str]:
    """Yield why a job does not run as it should on a node, with the last lines of output of its last process."""
    from gaffer.jobs.states import EXPECTED  # late: it takes the time of importing all settings

    state, reason = job["state"], job["reason"]
    if state != "running" or reason:
        last = job.get("last_exit")
        failed = last is not None and last["reason"] not in EXPECTED and state != "completed"
        lines = (last["output"] or "").splitlines()[-_LAST_LINES:] if last is not None and failed else []
        wrote = f"; last lines of output: {' / '.join(lines)}" if lines else ""
        yield f"{name} reports that the job is {job_state(state, reason)}{wrote}"
    for instance in job.get("instances", ()):
        error = instance.get("probe_error")
        if error and error not in (reason or ""):
            yield f"{name} reports that process {instance['pid']} is {instance['state']}: {error}"
    if rollout := rollout_text(job.get("rollout")):
        yield f"{name} reports: {rollout}"


def _links(report: Report) -> Iterator[str]:
    """Yield the lookups that a node is not connected to."""
    name = display_name(report.node)
    if report.error is None and not report.lookupds:
        yield f"{name} does not announce its jobs to any lookup"
    for link in report.lookupds:
        if not link["connected"]:
            yield f"{name} is not connected to {link['address']}: {link['error'] or 'connecting'}"


def _gone_nodes(inquiry: Inquiry) -> Iterator[str]:
    """Yield nodes that one lookup still lists for the job but another one reports as gone."""
    gone = {
        tombstone["id"]: (view.url, tombstone.get("reason", "gone"))
        for view in inquiry.views
        for tombstone in view.tombstones
    }
    for view in inquiry.views:
        for source in view.jobs.get(inquiry.name, ()):
            key = node_key(source["node_info"])
            if key not in inquiry.sources and key in gone:
                url, reason = gone[str(key)]
                name = display_name(source["node_info"])
                yield f"{view.url} still lists {name}, which is gone according to {url} ({reason})"


def _pids(pids: Sequence[int]) -> str:
    return " ".join(map(str, sorted(pids))) if pids else "no process"


def _seconds(node: AgedNodeInfo) -> str:
    age = node.get("age_ms")
    return "a while" if age is None else f"{age / 1000:.1f} s"
