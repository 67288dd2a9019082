"""Merges the views of several lookups into one response. Pure: no I/O, no clock.

Lookups have no consensus: each stores the announcements it received and may be behind. For each node, everything comes
from the lookup with its latest state (by incarnation, then seq, then contact with the node). A node in contact with any
lookup is not suspect. A tombstone removes a node unless the node has restarted since or another lookup is still in
contact with it; a node that left is removed from all lookups that still list an earlier state of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

from gaffer.schemas.lookup import AgedNodeInfo, JobSource, Tombstone

NodeKey: TypeAlias = str | tuple[str, str]

LEFT: Final = "left"
SUSPECT: Final = "suspect"
DRAINING: Final = "draining"
ALIVE: Final = "alive"


@dataclass(frozen=True)
class View:
    """The state of the lookup at `url`: nodes, and the nodes that run each job.

    A `warming` lookup has just started and may not know all nodes yet. An `earlier` view is from before its restart: it
    only supplements other views.
    """

    url: str
    nodes: Sequence[AgedNodeInfo] = ()
    jobs: Mapping[str, Sequence[JobSource]] = field(default_factory=dict)
    tombstones: Sequence[Tombstone] = ()
    stale: bool = False
    warming: bool = False
    earlier: bool = False


class Merged(NamedTuple):
    """The merged views; `agree` contains the URLs of the views that equal the result."""

    nodes: list[AgedNodeInfo]
    jobs: dict[str, list[JobSource]]
    stale: bool
    agree: list[str]


class _Position(NamedTuple):
    """How recent the state of a node in a lookup is; the greatest wins.

    Drain orders are numbered. For peers of earlier versions, which do not number them, the state that is not draining
    wins.
    """

    incarnation: int
    seq: int
    contact: int


class _Entry(NamedTuple):
    position: _Position
    node: AgedNodeInfo
    view: View


def merge(views: Sequence[View]) -> Merged:
    """Merge the views of the lookups that responded, sorted by node and job name."""
    entries: dict[NodeKey, list[_Entry]] = {}
    for view in views:
        for key, entry in _entries(view).items():
            entries.setdefault(key, []).append(entry)
    tombstones = [tombstone for view in views for tombstone in view.tombstones]

    chosen: dict[NodeKey, _Entry] = {}
    for key, seen in entries.items():
        best = max(seen, key=lambda entry: (entry.position, not entry.view.stale))
        same_life = [entry for entry in seen if entry.position.incarnation == best.position.incarnation]
        heard = max(same_life, key=lambda entry: (entry.position.contact, -(entry.node.get("age_ms") or 0)))
        if not any(_removes(tombstone, key, best.position, heard.position.contact) for tombstone in tombstones):
            chosen[key] = best._replace(node=_with_status(best.node, heard.node, [s.node for s in same_life]))

    jobs: dict[str, list[JobSource]] = {}
    for name in sorted({name for view in views for name in view.jobs}):
        sources = [
            _with_node(source, chosen[key].node)
            for view in views
            for source in view.jobs.get(name, ())
            if (key := node_key(source["node_info"])) in chosen and chosen[key].view is view
        ]
        if sources:
            jobs[name] = sorted(sources, key=lambda source: _order(source["node_info"]))
    result = (_positions(chosen), _content(jobs))
    return Merged(
        nodes=sorted((entry.node for entry in chosen.values()), key=_order),
        jobs=jobs,
        stale=bool(views) and (all(v.stale for v in views) or any(entry.view.stale for entry in chosen.values())),
        agree=[
            view.url
            for view in views
            if not view.earlier and (_positions(_entries(view)), _content(view.jobs)) == result
        ],
    )


def bridged(views: Sequence[View], earlier: Sequence[View]) -> list[View]:
    """Return the views and, if none is good, the earlier views of warming lookups.

    A view is good if it is not stale. The current state of warming lookups is newer, so merging prefers it.
    """
    if any(not view.stale for view in views):
        return list(views)
    warming = {view.url for view in views if view.warming}
    return [*views, *(replace(view, stale=True, earlier=True) for view in earlier if view.url in warming)]


def node_key(node: AgedNodeInfo) -> NodeKey:
    """Return the key of a node across lookups: its id, or name and origin for older nodes."""
    return node.get("id") or (node["name"], node["origin"])


def _entries(view: View) -> dict[NodeKey, _Entry]:
    """Return the most recent entry of each node of a view, which may be listed separately and in its jobs."""
    found: dict[NodeKey, _Entry] = {}
    listed = [*view.nodes, *(source["node_info"] for sources in view.jobs.values() for source in sources)]
    for node in listed:
        entry = _Entry(_position(node), node, view)
        key = node_key(node)
        if key not in found or found[key].position < entry.position:
            found[key] = entry
    return found


def _position(node: AgedNodeInfo) -> _Position:
    status = node.get("status", "alive")
    contact = 0 if status == SUSPECT else 1 if status == DRAINING else 2
    return _Position(node.get("incarnation") or 0, node.get("seq") or 0, contact)


def _removes(tombstone: Tombstone, key: NodeKey, position: _Position, contact: int) -> bool:
    if tombstone["id"] != key or tombstone["incarnation"] < position.incarnation:
        return False
    if tombstone["incarnation"] > position.incarnation or contact == 0:
        return True
    return tombstone.get("reason") == LEFT and tombstone["seq"] > position.seq  # leaving is a numbered change itself


def _with_status(node: AgedNodeInfo, heard: AgedNodeInfo, same_life: Sequence[AgedNodeInfo]) -> AgedNodeInfo:
    """Return `node` with the status of `heard`, the entry with the best contact, and with any reported conflict."""
    merged = node.copy()
    if "status" in heard:
        merged["status"] = heard["status"]
        if heard["status"] != SUSPECT and "status" in node and _is_draining(node) is not None:
            merged["status"] = DRAINING if _is_draining(node) else ALIVE
    if "age_ms" in heard:
        merged["age_ms"] = heard["age_ms"]
    if any(other.get("conflict") for other in same_life):
        merged["conflict"] = True
    return merged


def _is_draining(node: AgedNodeInfo) -> bool | None:
    """Return whether the node is draining, or None if unknown because the node is suspect."""
    if "draining" in node:
        return node["draining"]
    return None if node.get("status") == SUSPECT else node.get("status") == DRAINING


def _with_node(source: JobSource, node: AgedNodeInfo) -> JobSource:
    merged = source.copy()
    merged["node_info"] = node
    if "status" in node:
        merged["status"] = node["status"]
    if "age_ms" in node:
        merged["age_ms"] = node["age_ms"]
    return merged


def _order(node: AgedNodeInfo) -> tuple[str, str, str]:
    return node["name"], node["origin"], node.get("id") or ""


def _positions(entries: Mapping[NodeKey, _Entry]) -> dict[NodeKey, tuple[int, int]]:
    return {key: entry.position[:2] for key, entry in entries.items()}


def _content(jobs: Mapping[str, Sequence[JobSource]]) -> set[tuple[str, NodeKey, tuple[int, ...]]]:
    return {
        (name, node_key(source["node_info"]), tuple(sorted(source["pids"])))
        for name, sources in jobs.items()
        for source in sources
    }
