"""What is searched of the nodes and their jobs: rows that are made again when their node changes."""

import time
from collections.abc import Generator, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from gaffer.http.batches import Batches
from gaffer.http.search import Kind, Row
from gaffer.jobs.names import split_job_name
from gaffer.schemas.common import ProcessState
from gaffer.schemas.lookup import FoundNode, FoundNodeJob, NodeInfo, NodeJobState, NodeLink, NodeProcess
from gaffer.schemas.messages import JobReport, Process
from gaffer.streams.rings import Log
from gaffer_lookupd.changes import Change
from gaffer_lookupd.records import Node
from gaffer_lookupd.registry import Registry

NODES = Kind(
    "nodes",
    {
        "name": str,
        "status": float,
        "age_ms": float,
        "jobs": float,
        "not_ready": float,
        "processes": float,
        "origin": str,
        "version": str,
    },
    ["suspect", "draining", "alive"],  # those that need attention first
)
JOBS = Kind(
    "jobs",
    {
        "name": str,
        "session": str,
        "state": float,
        "reason": str,
        "node": str,
        "status": float,
        "ready": float,
        "expected": float,
        "processes": float,
    },
    ["failed", "backoff", "none", "stopping", "starting", "waiting", "stopped", "completed", "running"],
)
KINDS = {kind.name: kind for kind in (NODES, JOBS)}

AGE = "age_ms"
"""The key whose values change without a change of the node."""

_STATUS_RANKS = {status: rank for rank, status in enumerate(NODES.states)}
_STATE_RANKS = {state: rank for rank, state in enumerate(JOBS.states)}
_TROUBLED = _STATE_RANKS["backoff"] + 0.5  # of a job that is up, but for whose state its node gives a reason
_STEP = 100  # nodes

_MEANINGS: dict[ProcessState, NodeJobState] = {"ready": "running", "starting": "starting", "draining": "stopping"}


class _Rows(NamedTuple):
    info: NodeInfo  # replaced with each change of the node
    node: Row
    jobs: list[Row]


class NodeIndex:
    """The rows of the nodes of a registry, and of their jobs. Its generators are to be run in `batches`."""

    def __init__(self, registry: Registry, changes: Log[Change]) -> None:
        self.batches = Batches()
        self._registry = registry
        self._changes = changes
        self._seq = 0  # of the last change in the rows
        # By the keys of the nodes' rows:
        self._rows: dict[str, _Rows] = {}
        self._nodes: dict[str, Node] = {}

    def refreshing(self) -> Generator[None, None, None]:
        """Make the rows of nodes that have changed, in steps."""
        seq = self._registry.seq
        if self._changes.start <= self._seq and seq - self._seq <= len(self._nodes) + _STEP:
            nodes = self._changed(seq)
        else:
            nodes = {key_of(node.info): node for node in self._registry.nodes}
            for key in self._nodes.keys() - nodes.keys():
                self._drop(key)
        self._seq = seq
        for number, (key, node) in enumerate(nodes.items(), 1):
            if node is None:
                self._drop(key)
                continue
            self._nodes[key] = node
            known = self._rows.get(key)
            if known is None or known.info is not node.info:
                self._rows[key] = _rows_of(node)
            if number % _STEP == 0:
                yield

    def _changed(self, seq: int) -> dict[str, Node | None]:
        """Return the nodes that changed after the rows were made, None for those that are gone."""
        found: dict[str, Node | None] = {}
        for change in self._changes.read(self._seq, seq - self._seq).items:
            info = node_in(change)
            if info is not None:
                found[key_of(info)] = self._find(info)
        return found

    def _find(self, info: NodeInfo) -> Node | None:
        if info["id"] is not None:
            return self._registry.find(info["id"])
        namesakes = (node for node in self._registry.named(info["name"]) if node.identity.id is None)
        return next((node for node in namesakes if node.identity.origin == info["origin"]), None)

    def _drop(self, key: str) -> None:
        self._nodes.pop(key, None)
        self._rows.pop(key, None)

    def rows(self, kind: Kind) -> list[Row]:
        """Return the rows of a kind."""
        if kind is NODES:
            return [rows.node for rows in self._rows.values()]
        return [row for rows in self._rows.values() for row in rows.jobs]

    def rows_of(self, kind: Kind, key: str) -> list[Row]:
        """Return the row of a node by its key, or the rows of its jobs; none if it is gone."""
        rows = self._rows.get(key)
        return [] if rows is None else [rows.node] if kind is NODES else rows.jobs

    def heard(self, key: str) -> float | None:
        """Return the value by which nodes are sorted by age: the negative time of the last message."""
        node = self._nodes.get(key)
        return -node.heard if node is not None else None

    def describe(self, kind: Kind, key: str, now: float) -> FoundNode | FoundNodeJob | None:
        """Return the item with this key; None if it is gone."""
        node_key, _, job_name = key.partition("/")
        node = self._nodes.get(node_key)
        if node is None or self._registry.find(node.key) is not node:
            return None
        if kind is NODES:
            return _found_node(node, key, now)
        return _found_job(node, key, job_name) if job_name in node.jobs else None


def node_in(change: Change) -> NodeInfo | None:
    """Return the node that a change concerns, if any, as it was then."""
    message: Any = change.message
    if message["event"] in ("stale", "forget_node", "add_node"):
        return None
    return cast(NodeInfo, message.get("node", message))


def key_of(info: NodeInfo) -> str:
    """Return the key of a node: its id, or its name and origin if it has none. It contains no slash."""
    return quote(str(info["id"]) if info["id"] is not None else f"{info['name']}@{info['origin']}", safe="@")


def job_key(node_key: str, job_name: str) -> str:
    """Return the key of a job on a node."""
    return f"{node_key}/{job_name}"


def _rows_of(node: Node) -> _Rows:
    info, key = node.info, key_of(node.info)
    names = (info["name"], *([info["id"]] if info["id"] is not None else []))
    not_ready = _not_ready(node)
    labels = "\n".join(f"{name}={value}" for name, value in info["labels"].items())
    row = Row(
        key,
        f"{info['name']}\n{info['origin']}\n{info['id'] or ''}\n{labels}".lower(),
        info["status"],
        (
            info["name"],
            _STATUS_RANKS[info["status"]],
            None,
            len(node.jobs),
            not_ready,
            node.size.processes,
            info["origin"],
            info["version"],
        ),
        node=names,
        ready=not_ready == 0,
    )
    status = _STATUS_RANKS[info["status"]]
    return _Rows(info, row, list(_rows_of_jobs(node, key, names, status)))


def _rows_of_jobs(node: Node, key: str, names: tuple[str, ...], status: int) -> Iterator[Row]:
    name = names[0]
    for job_name, processes in node.jobs.items():
        session, report, ready = split_job_name(job_name)[0], node.states.get(job_name), _ready(processes)
        state, expected = _state_of(processes, report), _expected(report)
        reason = None if report is None else report.reason
        rank = _STATE_RANKS[state] - 0.5 * (ready < expected)
        if reason and state in ("starting", "running"):
            rank = _TROUBLED
        values = (job_name, session, rank, reason, name, status, ready, expected, len(processes))
        text = f"{job_name}\n{name}\n{reason or ''}".lower()
        yield Row(job_key(key, job_name), text, state, values, session, names, ready=ready >= expected)


def _state_of(processes: Mapping[int, Process], report: JobReport | None) -> NodeJobState:
    """Return the state of a job as its node reports it; without that, what the states of its processes mean."""
    if report is not None and report.state in _STATE_RANKS:
        return cast(NodeJobState, report.state)
    found = {process.state for process in processes.values()}
    order: tuple[ProcessState, ...] = ("ready", "starting", "draining")
    return next((_MEANINGS[state] for state in order if state in found), "none")


def _ready(processes: Mapping[int, Process]) -> int:
    return sum(process.state == "ready" for process in processes.values())


def _expected(report: JobReport | None) -> int:
    """Return how many processes a job should have, as its node reports; without that, at least one."""
    return 1 if report is None else report.expected


def _not_ready(node: Node) -> int:
    states = node.states
    return sum(_ready(found) < _expected(states.get(name)) for name, found in node.jobs.items())


def _found_node(node: Node, key: str, now: float) -> FoundNode:
    return {
        "key": key,
        "lookupds": _links(node, now),
        **node.info,
        "age_ms": max(0, round((now - node.heard) * 1000)),
        "jobs": len(node.jobs),
        "not_ready": _not_ready(node),
        "processes": node.size.processes,
    }


def _links(node: Node, now: float) -> list[NodeLink] | None:
    if node.links is None:
        return None
    wall = time.time()
    return [
        {
            "address": link.address,
            "connected": link.connected,
            "since": round(wall - seconds, 3),
            "epoch": link.epoch,
            "error": link.error,
        }
        for link, seconds in zip(node.links, node.link_ages(now), strict=True)
    ]


def _found_job(node: Node, key: str, job_name: str) -> FoundNodeJob:
    info, processes, report = node.info, node.jobs[job_name], node.states.get(job_name)
    return {
        "key": key,
        "name": job_name,
        "session": split_job_name(job_name)[0],
        "state": _state_of(processes, report),
        "reason": None if report is None else report.reason,
        "ready": _ready(processes),
        "expected": None if report is None else report.expected,
        "node": info["name"],
        "node_id": info["id"],
        "origin": info["origin"],
        "status": info["status"],
        "processes": cast(list[NodeProcess], sorted(processes.values(), key=attrgetter("pid"))),  # identical as JSON
    }
