"""Why lookups name the nodes that they name for a job: what is odd about their answers and those of the nodes. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from gaffer.schemas.bodies import LookupdState
from gaffer.schemas.lookup import AgedNodeInfo, JobSource
from gaffer_client.merge import Merged, NodeKey, View, merge, node_key
from gaffer_client.naming import display_name, in_state

if TYPE_CHECKING:
    from gaffer.schemas.responses import JobInfo

_LAST_LINES = 3  # of the output of a process
_READY, _DRAINING, _SUSPECT, _LEFT = "ready", "draining", "suspect", "left"


class Report(NamedTuple):
    """What a node said when it was asked itself: the job, None when it has none of that name, and its links to lookups.

    Or `error`, why it said nothing.
    """

    node: AgedNodeInfo
    job: "JobInfo | None" = None
    lookupds: Sequence[LookupdState] = ()
    error: str | None = None


@dataclass(frozen=True)
class Inquiry:
    """All that was said about the job `name`: by each lookup, or why it said nothing, and by nodes."""

    name: str
    views: Sequence[View]
    failures: Mapping[str, str]
    reports: Mapping[NodeKey, Report]

    @cached_property
    def merged(self) -> Merged:
        """What all lookups say together."""
        return merge(self.views)

    @cached_property
    def sources(self) -> dict[NodeKey, JobSource]:
        """The nodes that have the job, according to all lookups together."""
        return {node_key(source["node_info"]): source for source in self.merged.jobs.get(self.name, [])}


def findings(inquiry: Inquiry) -> list[str]:
    """What is odd, a sentence each; empty when all say the same and all is well."""
    return [
        *(f"{url} gave no answer: {why}" for url, why in inquiry.failures.items()),
        *(finding for view in inquiry.views for finding in _doubts(view)),
        *_absence(inquiry),
        *_namesakes(inquiry),
        *(finding for key, source in inquiry.sources.items() for finding in _about(inquiry, key, source)),
        *_buried(inquiry),
    ]


def _doubts(view: View) -> Iterator[str]:
    if view.warming:
        yield f"{view.url} has just started: it may not know all nodes yet"
    elif view.stale:
        yield f"{view.url} has not heard of most nodes: what it says may be old"


def _absence(inquiry: Inquiry) -> Iterator[str]:
    if not inquiry.views:
        yield "no lookup answers, so nobody knows which nodes there are"
    elif not inquiry.sources:
        yield f"no lookup knows a node that has {inquiry.name}"
        for view in inquiry.views:
            if lost := [grave["id"] for grave in view.tombstones if grave.get("reason") != _LEFT]:
                yield f"{view.url} dropped nodes a short time ago, which may have had it: {', '.join(lost)}"
    for key, report in inquiry.reports.items():
        if key in inquiry.sources:
            continue
        name = display_name(report.node)
        if report.job is not None:
            if inquiry.views:
                yield f"{name} has it, and no lookup says so"
            yield from _trouble(report.job, name)
            yield from _links(report)
        elif not inquiry.views:
            yield f"{name} itself gave no answer: {report.error}" if report.error else f"{name} has no such job"


def _namesakes(inquiry: Inquiry) -> Iterator[str]:
    nodes = inquiry.merged.nodes
    names = Counter(node["name"] for node in nodes if node.get("conflict"))
    for name, number in names.items():
        origins = ", ".join(node["origin"] for node in nodes if node["name"] == name)
        yield f"{number} nodes are called {name}: {origins}"


def _about(inquiry: Inquiry, key: NodeKey, source: JobSource) -> Iterator[str]:
    """What is odd about one of the nodes that have the job."""
    node = source["node_info"]
    name = display_name(node)
    if node.get("status") == _SUSPECT:
        yield f"{name} was not heard for {_seconds(node)}: it is suspect, and leaves the answers when its lease ends"
    if node.get("draining", node.get("status") == _DRAINING):
        yield f"{name} is being drained: its processes take no work"
    processes = source.get("processes", [])
    if processes and not any(process["state"] == _READY for process in processes):
        states = ", ".join(f"{process['pid']} {process['state']}" for process in processes)
        yield f"no process of it is ready on {name}: {states}"
    elif not source["pids"]:
        yield f"{name} has the job, and no process of it takes work"
    for view in inquiry.views:
        yield from _who_differs(view, key, source, name, inquiry.name)
    report = inquiry.reports.get(key)
    if report is not None:
        yield from _against(report, source, name)
        yield from _links(report)


def _who_differs(view: View, key: NodeKey, source: JobSource, name: str, job: str) -> Iterator[str]:
    """How one lookup differs from what all say together about a node."""
    known = next((node for node in view.nodes if node_key(node) == key), None)
    here = next((each for each in view.jobs.get(job, ()) if node_key(each["node_info"]) == key), None)
    if known is None and here is None:
        yield f"{view.url} does not know {name}"
    elif here is None:
        yield f"{view.url} knows {name}, and not that it has the job{_behind(known, source['node_info'])}"
    elif sorted(here["pids"]) != sorted(source["pids"]):
        yield f"{view.url} says {_pids(here['pids'])} for {name}{_behind(here['node_info'], source['node_info'])}"


def _behind(node: AgedNodeInfo | None, best: AgedNodeInfo) -> str:
    position = node and (node.get("incarnation"), node.get("seq"))
    if node is None or position == (best.get("incarnation"), best.get("seq")):
        return ""
    if node.get("incarnation") != best.get("incarnation"):
        return f": it knows start {node.get('incarnation')} of the node, others start {best.get('incarnation')}"
    return f": it knows change {node.get('seq')} of the node, others change {best.get('seq')}"


def _against(report: Report, source: JobSource, name: str) -> Iterator[str]:
    """How what a node says itself differs from what the lookups say of it."""
    if report.error is not None:
        yield f"{name} itself gave no answer: {report.error}"
    elif report.job is None:
        yield f"{name} itself says that it has no such job"
    else:
        if sorted(report.job["processes"]) != sorted(source["pids"]):
            yield f"{name} itself says {_pids(report.job['processes'])}, the lookups {_pids(source['pids'])}"
        yield from _trouble(report.job, name)


def _trouble(job: "JobInfo", name: str) -> Iterator[str]:
    """Why the processes of a job don't stay up on a node, with the last lines of the last one that ended."""
    if job["state"] == "running" and not job["reason"]:
        return
    why = f": {job['reason']}" if job["reason"] else ""
    last = job.get("last_exit")
    lines = (last["output"] or "").splitlines()[-_LAST_LINES:] if last and last["reason"] != "stopped" else []
    wrote = f"; the last lines of its output: {' / '.join(lines)}" if lines else ""
    yield f"{name} itself says that the job is {in_state(job['state'])}{why}{wrote}"


def _links(report: Report) -> Iterator[str]:
    """To which lookups a node is not connected."""
    name = display_name(report.node)
    if report.error is None and not report.lookupds:
        yield f"{name} announces its jobs to no lookup"
    for link in report.lookupds:
        if not link["connected"]:
            yield f"{name} is not connected to {link['address']}: {link['error'] or 'it is about to connect'}"


def _buried(inquiry: Inquiry) -> Iterator[str]:
    """Nodes that some lookup still lists for the job, and that others know to be gone."""
    gone = {grave["id"]: (view.url, grave.get("reason", "gone")) for view in inquiry.views for grave in view.tombstones}
    for view in inquiry.views:
        for source in view.jobs.get(inquiry.name, ()):
            key = node_key(source["node_info"])
            if key not in inquiry.sources and key in gone:
                url, reason = gone[str(key)]
                name = display_name(source["node_info"])
                yield f"{view.url} still lists {name}, which {url} knows to be gone ({reason})"


def _pids(pids: Sequence[int]) -> str:
    return " ".join(map(str, sorted(pids))) if pids else "no process"


def _seconds(node: AgedNodeInfo) -> str:
    age = node.get("age_ms")
    return "a while" if age is None else f"{age / 1000:.1f} s"
