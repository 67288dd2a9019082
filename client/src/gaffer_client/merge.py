"""Merging what several lookups know into one answer. Pure: no I/O, no clock.

Lookups have no consensus: each holds what nodes told it, and may be behind. For each node the lookup that is
furthest (incarnation, then seq, then the one that hears it) is believed, and everything about that node comes from
it. A node that any lookup hears is not suspect. A tombstone removes a node unless it has started again
since, or another lookup still hears it; a node that left is gone wherever an earlier change of it is still listed.
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
    """What the lookup at `url` knows: nodes, and for each job the nodes that run it.

    A lookup that is `warming` has started a moment ago and does not know all nodes yet. Its view from before is
    `earlier`: it helps out, and is no answer by itself.
    """

    url: str
    nodes: Sequence[AgedNodeInfo] = ()
    jobs: Mapping[str, Sequence[JobSource]] = field(default_factory=dict)
    tombstones: Sequence[Tombstone] = ()
    stale: bool = False
    warming: bool = False
    earlier: bool = False


class Merged(NamedTuple):
    """One answer out of many; `agree` holds the urls of the views that say the same by themselves."""

    nodes: list[AgedNodeInfo]
    jobs: dict[str, list[JobSource]]
    stale: bool
    agree: list[str]


class _Position(NamedTuple):
    """How far a lookup has followed a node; the greatest is believed.

    Orders to drain are numbered. Peers that do not number them, as before, are believed where they are not draining.
    """

    incarnation: int
    seq: int
    hearing: int


class _Sighting(NamedTuple):
    position: _Position
    node: AgedNodeInfo
    view: View


def merge(views: Sequence[View]) -> Merged:
    """Merge the views of the lookups that answered; the order is that of node and job names."""
    sightings: dict[NodeKey, list[_Sighting]] = {}
    for view in views:
        for key, sighting in _sightings(view).items():
            sightings.setdefault(key, []).append(sighting)
    graves = [tombstone for view in views for tombstone in view.tombstones]

    believed: dict[NodeKey, _Sighting] = {}
    for key, seen in sightings.items():
        best = max(seen, key=lambda sighting: (sighting.position, not sighting.view.stale))
        same_life = [sighting for sighting in seen if sighting.position.incarnation == best.position.incarnation]
        heard = max(same_life, key=lambda sighting: (sighting.position.hearing, -(sighting.node.get("age_ms") or 0)))
        if not any(_buries(grave, key, best.position, heard.position.hearing) for grave in graves):
            believed[key] = best._replace(node=_with_status(best.node, heard.node, [s.node for s in same_life]))

    jobs: dict[str, list[JobSource]] = {}
    for name in sorted({name for view in views for name in view.jobs}):
        sources = [
            _with_node(source, believed[key].node)
            for view in views
            for source in view.jobs.get(name, ())
            if (key := node_key(source["node_info"])) in believed and believed[key].view is view
        ]
        if sources:
            jobs[name] = sorted(sources, key=lambda source: _order(source["node_info"]))
    result = (_positions(believed), _content(jobs))
    return Merged(
        nodes=sorted((sighting.node for sighting in believed.values()), key=_order),
        jobs=jobs,
        stale=bool(views)
        and (all(v.stale for v in views) or any(sighting.view.stale for sighting in believed.values())),
        agree=[
            view.url
            for view in views
            if not view.earlier and (_positions(_sightings(view)), _content(view.jobs)) == result
        ],
    )


def bridged(views: Sequence[View], earlier: Sequence[View]) -> list[View]:
    """The views, and while none is good what the lookups that are warming knew before.

    A view is good when it is not stale. What warming lookups have heard since is newer, so merging prefers it.
    """
    if any(not view.stale for view in views):
        return list(views)
    warming = {view.url for view in views if view.warming}
    return [*views, *(replace(view, stale=True, earlier=True) for view in earlier if view.url in warming)]


def node_key(node: AgedNodeInfo) -> NodeKey:
    """What makes a node the same in the answers of several lookups: its id, for older nodes name and origin."""
    return node.get("id") or (node["name"], node["origin"])


def _sightings(view: View) -> dict[NodeKey, _Sighting]:
    """Each node of a view, as its best entry describes it: it may be listed by itself and in its jobs."""
    found: dict[NodeKey, _Sighting] = {}
    listed = [*view.nodes, *(source["node_info"] for sources in view.jobs.values() for source in sources)]
    for node in listed:
        sighting = _Sighting(_position(node), node, view)
        key = node_key(node)
        if key not in found or found[key].position < sighting.position:
            found[key] = sighting
    return found


def _position(node: AgedNodeInfo) -> _Position:
    status = node.get("status", "alive")
    hearing = 0 if status == SUSPECT else 1 if status == DRAINING else 2
    return _Position(node.get("incarnation") or 0, node.get("seq") or 0, hearing)


def _buries(grave: Tombstone, key: NodeKey, position: _Position, hearing: int) -> bool:
    if grave["id"] != key or grave["incarnation"] < position.incarnation:
        return False
    if grave["incarnation"] > position.incarnation or hearing == 0:
        return True
    return grave.get("reason") == LEFT and grave["seq"] > position.seq  # leaving is a change with a number of its own


def _with_status(node: AgedNodeInfo, heard: AgedNodeInfo, same_life: Sequence[AgedNodeInfo]) -> AgedNodeInfo:
    """`node`, not suspect when `heard`, the entry of the lookup that hears it best, is not; with a conflict of any."""
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
    """Whether the node drains, None when its entry does not say so because it is suspect."""
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


def _positions(sightings: Mapping[NodeKey, _Sighting]) -> dict[NodeKey, tuple[int, int]]:
    return {key: sighting.position[:2] for key, sighting in sightings.items()}


def _content(jobs: Mapping[str, Sequence[JobSource]]) -> set[tuple[str, NodeKey, tuple[int, ...]]]:
    return {
        (name, node_key(source["node_info"]), tuple(sorted(source["pids"])))
        for name, sources in jobs.items()
        for source in sources
    }
