"""The state of one lookup, built from a snapshot and the events after it (`GET /events`). Pure: no I/O, no clock.

It equals the lookup's own responses, except for ages, which events do not report.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import msgspec

from gaffer.schemas.lookup import (
    AgedNodeInfo,
    JobMessage,
    JobSource,
    JobState,
    JobStateMessage,
    NodeMessage,
    NodeProcess,
    ProcessMessage,
    SnapshotMessage,
    StaleMessage,
    Tombstone,
)
from gaffer_client.merge import NodeKey, View, node_key
from gaffer_client.shapes import validate

_DRAINING = "draining"
_NOT_OF_THE_NODE = ("event", "reason", "jobs", "states", "age_ms")
_UNKNOWN: JobState = {"state": None, "reason": None, "expected": None}

_SHAPES: Mapping[str, type] = {
    "snapshot": SnapshotMessage,
    "stale": StaleMessage,
    "forget_node": Tombstone,
    **dict.fromkeys(("identify", "update_node", "remove_node"), NodeMessage),
    **dict.fromkeys(("add_job", "remove_job"), JobMessage),
    "update_job": JobStateMessage,
    **dict.fromkeys(("add_process", "update_process", "remove_process"), ProcessMessage),
}


class OutOfStep(ValueError):
    """An event is inconsistent with the current state; a new snapshot is needed."""


class Touched(NamedTuple):
    """The scope of an event: everything, one node with the names of its jobs before and after, or nothing."""

    everything: bool = False
    key: NodeKey | None = None
    jobs: frozenset[str] = frozenset()


@dataclass
class _Node:
    info: AgedNodeInfo
    jobs: dict[str, dict[int, NodeProcess]] = field(default_factory=dict)
    states: dict[str, JobState] = field(default_factory=dict)


class Topology:
    """The nodes of one lookup with their jobs, its tombstones, and whether it is warming or stale."""

    def __init__(self) -> None:
        self.stale = False
        self.warming = False
        self.tombstones: dict[str, Tombstone] = {}
        self._nodes: dict[NodeKey, _Node] = {}
        self._holders: dict[str, set[NodeKey]] = {}

    @property
    def job_names(self) -> Iterable[str]:
        """The jobs of all nodes."""
        return self._holders

    def holders(self, job_name: str) -> Iterable[NodeKey]:
        """Return the nodes that have the job."""
        return self._holders.get(job_name, ())

    def jobs_of(self, key: NodeKey) -> Iterable[str]:
        """Return the jobs of a node."""
        node = self._nodes.get(key)
        return node.jobs if node is not None else ()

    def handle(self, event: str, message: Any) -> Touched:
        """Process an event; raise OutOfStep if it is invalid or inconsistent.

        Unknown events of later versions are ignored.
        """
        shape = _SHAPES.get(event)
        if shape is None:
            return Touched()
        try:
            validate(message, shape)
            return self._handle(event, message)
        except msgspec.ValidationError as error:
            raise OutOfStep(f"{event}: {error}") from None
        except KeyError as missing:
            raise OutOfStep(f"{event}: missing {missing}") from None

    def _handle(self, event: str, message: Mapping[str, Any]) -> Touched:
        match event:
            case "snapshot":
                self._replace(message)
                return Touched(everything=True)
            case "stale":
                self.stale, self.warming = message["stale"], message.get("warming", False)
                return Touched(everything=True)
            case "forget_node":
                del self.tombstones[message["id"]]
                return Touched(key=message["id"])
            case "identify" | "update_node" | "remove_node" if message["name"] is None:
                return Touched()  # a connection that has not identified itself
            case "identify" | "update_node" | "remove_node":
                change, about = self._change_node, message
            case _:
                change, about = self._change_job, message["node"]
        info = _info(about)
        key = node_key(info)
        before = frozenset(self.jobs_of(key))
        change(event, key, info, message)
        return Touched(key=key, jobs=before.union(self.jobs_of(key)))

    def view(self, url: str, *, stale: bool = False) -> View:
        """Return the whole state as the view of the lookup at `url`."""
        jobs = {name: [self._source(key, name) for key in keys] for name, keys in self._holders.items()}
        nodes = [node.info for node in self._nodes.values()]
        return View(url, nodes, jobs, list(self.tombstones.values()), stale or self.stale, self.warming)

    def part(self, url: str, job_names: Iterable[str], keys: Iterable[NodeKey], *, stale: bool = False) -> View:
        """Return a view of only these jobs and nodes."""
        jobs = {
            name: [self._source(key, name) for key in self._holders[name]]
            for name in job_names
            if name in self._holders
        }
        nodes = [self._nodes[key].info for key in keys if key in self._nodes]
        tombstones = [self.tombstones[key] for key in keys if isinstance(key, str) and key in self.tombstones]
        return View(url, nodes, jobs, tombstones, stale or self.stale, self.warming)

    def _replace(self, snapshot: Mapping[str, Any]) -> None:
        self.stale, self.warming = snapshot["stale"], snapshot.get("warming", False)
        self.tombstones = {tombstone["id"]: tombstone for tombstone in snapshot["tombstones"]}
        self._nodes.clear()
        self._holders.clear()
        for table in snapshot["nodes"]:
            key = node_key(table)
            node = self._nodes[key] = _Node(_info(table), states=dict(table.get("states", {})))
            for name, processes in table["jobs"].items():
                node.jobs[name] = {process["pid"]: process for process in processes}
                self._holders.setdefault(name, set()).add(key)

    def _change_node(self, event: str, key: NodeKey, info: AgedNodeInfo, message: Mapping[str, Any]) -> None:
        if event == "identify":
            self.tombstones.pop(str(info.get("id")), None)
            self._nodes.setdefault(key, _Node(info)).info = info
        elif event == "update_node":
            self._nodes[key].info = info
        else:
            for name in self._nodes.pop(key).jobs:
                self._unindex(name, key)
            if id := info.get("id"):
                incarnation, seq = info.get("incarnation") or 0, info.get("seq") or 0
                tombstone = {"id": id, "incarnation": incarnation, "seq": seq, "reason": message.get("reason", "")}
                self.tombstones[id] = cast(Tombstone, tombstone)

    def _change_job(self, event: str, key: NodeKey, info: AgedNodeInfo, message: Mapping[str, Any]) -> None:
        node, name = self._nodes[key], message["job_name"]
        node.info = info
        match event:
            case "add_job":
                node.jobs[name] = {}
                self._holders.setdefault(name, set()).add(key)
            case "update_job" if name not in node.jobs:
                raise KeyError(name)
            case "update_job":
                node.states[name] = {
                    "state": message.get("state"),
                    "reason": message.get("reason"),
                    "expected": message.get("expected"),
                }
            case "remove_job":
                del node.jobs[name]
                node.states.pop(name, None)
                self._unindex(name, key)
            case "remove_process":
                del node.jobs[name][message["pid"]]
            case _:
                pid = message["pid"]
                process: NodeProcess = {"pid": pid, "state": message["state"], "endpoints": message["endpoints"]}
                node.jobs[name][pid] = process

    def _unindex(self, name: str, key: NodeKey) -> None:
        self._holders[name].discard(key)
        if not self._holders[name]:
            del self._holders[name]

    def _source(self, key: NodeKey, name: str) -> JobSource:
        node = self._nodes[key]
        info, processes = node.info, node.jobs[name]
        # The status of a silent node shows that instead of draining.
        idle = info.get("draining", info.get("status") == _DRAINING)
        live = [] if idle else [process["pid"] for process in processes.values() if process["state"] != _DRAINING]
        source = {
            "name": info["name"],
            "pids": live,
            "node_info": info,
            "status": info.get("status", "alive"),
            "processes": sorted(processes.values(), key=lambda process: process["pid"]),
            **node.states.get(name, _UNKNOWN),
        }
        return cast(JobSource, source)  # without an age


def _info(message: Mapping[str, Any]) -> AgedNodeInfo:
    return cast(AgedNodeInfo, {key: value for key, value in message.items() if key not in _NOT_OF_THE_NODE})
