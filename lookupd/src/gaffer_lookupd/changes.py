"""Changes of the registry as messages for followers: numbered, kept for a while, read by cursors.

A follower that applies a snapshot and then each change has the same data as the queries, except for the ages of nodes.
Removing a node removes its jobs, and removing a job its processes, without further messages. Nodes are identified by
their `id`, or without one by name and origin.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

import msgspec
from msgspec import Struct

from gaffer.schemas.common import EndpointInfo
from gaffer.schemas.lookup import (
    Departure,
    JobEvent,
    JobState,
    Message,
    NodeEvent,
    NodeInfo,
    NodeMessage,
    ProcessEvent,
    Tombstone,
)
from gaffer.schemas.messages import JobReport, Process, ReportedEvent
from gaffer.streams.rings import Log
from gaffer_lookupd.history import History
from gaffer_lookupd.records import Node

KEPT = 20_000  # changes that a follower may lag behind


class Change(Struct, gc=False):
    """One change; `seq` increases by one with each."""

    seq: int
    message: Message
    _json: bytes = b""

    def to_json(self) -> bytes:
        """Return the message as JSON, encoded on first use."""
        if not self._json:
            self._json = msgspec.json.encode(self.message)
        return self._json


def job_state(report: JobReport | None) -> JobState:
    """Return the state of a job as responses have it."""
    if report is None:
        return {"state": None, "reason": None, "expected": None}
    return {"state": report.state, "reason": report.reason, "expected": report.expected}


class Changes(Protocol):
    """The destination of the registry's changes."""

    def publish(self, change: Change) -> None: ...

    def report(self, node: NodeInfo, events: Sequence[ReportedEvent], lost: int, clock: float) -> None: ...


class ChangeLog(Log[Change]):
    """A log of the newest changes; the offset of a change is the number of the previous one. `history` is for people.

    Watchers are notified of several changes at once: when `notify` is called, or by the loop.
    """

    def __init__(self, limit: int = KEPT, *, warming: bool = False) -> None:
        super().__init__(limit)
        self.history = History(warming=warming)
        self._notification: asyncio.Handle | None = None

    def publish(self, change: Change) -> None:
        """Append a change, unless the log is closed."""
        if not self.closed:
            self.append(change)
            self.history.observe(change.message)

    def report(self, node: NodeInfo, events: Sequence[ReportedEvent], lost: int, clock: float) -> None:
        """Record events that a node reports in the history; see History.report for the arguments."""
        self.history.report(node, events, lost, clock)

    def close(self) -> None:
        super().close()
        self.history.close()

    def notify(self) -> None:
        """Wake followers now instead of in the next iteration of the loop."""
        if self._notification is not None:
            self._notification.cancel()
            self._notification = None
            super()._wake()

    def _wake(self) -> None:
        if self._watchers and self._notification is None:
            self._notification = asyncio.get_running_loop().call_soon(self.notify)


class Publisher:
    """A publisher that numbers changes; `seq` is the number of the last one."""

    def __init__(self, changes: Changes) -> None:
        self.seq = 0
        self._changes = changes

    def connection(self) -> None:
        """Publish that a node has connected and is about to be identified."""
        self._publish(
            {
                "name": None,
                "origin": None,
                "version": None,
                "id": None,
                "incarnation": None,
                "seq": None,
                "labels": {},
                "status": "alive",
                "draining": False,
                "conflict": False,
                "event": "add_node",
            }
        )

    def node(self, event: NodeEvent, node: Node, reason: Departure | None = None) -> None:
        """Publish that a node was added, changed or removed."""
        node.info = node.describe()
        node.parts.drop()
        extra = {} if reason is None else {"reason": reason}
        self._publish(cast(NodeMessage, {**node.info, "event": event, **extra}))

    def update(self, node: Node) -> None:
        """Publish the state of the node if it has changed."""
        if node.describe() != node.info:
            self.node("update_node", node)

    def job(self, event: JobEvent, node: Node, job_name: str) -> None:
        """Publish that a job of the node was added or removed."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish({"event": event, "node": node.info, "job_name": job_name})

    def job_state(self, node: Node, job_name: str, report: JobReport | None) -> None:
        """Publish that the state of a job has changed, which is no change of the node's own table."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish({"event": "update_job", "node": node.info, "job_name": job_name, **job_state(report)})

    def process(self, event: ProcessEvent, node: Node, job_name: str, process: Process) -> None:
        """Publish that a process of a job was added, changed or removed."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish(
            {
                "event": event,
                "node": node.info,
                "job_name": job_name,
                "pid": process.pid,
                "state": process.state,
                "endpoints": cast(list[EndpointInfo], process.endpoints),  # identical as JSON
            }
        )

    def report(self, node: Node, events: Sequence[ReportedEvent], lost: int, clock: float) -> None:
        """Publish events that a node reports, which are no changes; see History.report for the arguments."""
        self._changes.report(node.info, events, lost, clock)

    def forget(self, tombstone: Tombstone) -> None:
        """Publish that a tombstone was discarded."""
        self._publish({**tombstone, "event": "forget_node"})

    def stale(self, stale: bool, warming: bool) -> None:
        """Publish that responses became stale or are no longer stale, or that lookupd has warmed up."""
        self._publish({"event": "stale", "stale": stale, "warming": warming})

    def _publish(self, message: Message) -> None:
        self.seq += 1
        self._changes.publish(Change(self.seq, message))
