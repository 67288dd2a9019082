"""What changes in the registry, as the messages that followers get: numbered, kept for a while, read by cursors.

Who takes in a snapshot and then each change has what the queries answer, except how long ago nodes were heard. With a
node its jobs go, and with a job its processes: no further message tells of them. A node is the same when its `id` is,
and without one when its name and origin are.
"""

import asyncio
from typing import Protocol, cast

import msgspec
from msgspec import Struct

from gaffer.schemas.common import EndpointInfo
from gaffer.schemas.lookup import (
    Departure,
    JobEvent,
    Message,
    NodeEvent,
    NodeMessage,
    ProcessEvent,
    Tombstone,
)
from gaffer.schemas.messages import Process
from gaffer.streams.rings import Log
from gaffer_lookupd.records import Node

KEPT = 20_000  # changes that a follower may be behind


class Change(Struct, gc=False):
    """One change; `seq` grows by one with each."""

    seq: int
    message: Message
    _json: bytes = b""

    def to_json(self) -> bytes:
        """The message as JSON, made when the first follower asks for it."""
        if not self._json:
            self._json = msgspec.json.encode(self.message)
        return self._json


class Changes(Protocol):
    """Where the registry publishes."""

    def publish(self, change: Change) -> None: ...


class ChangeLog(Log[Change]):
    """Keeps the newest changes; the offset of a change is the number of the one before it.

    Who watches hears of many changes at once: when `tell` is called, or by the loop.
    """

    def __init__(self, limit: int = KEPT) -> None:
        super().__init__(limit)
        self._telling: asyncio.Handle | None = None

    def publish(self, change: Change) -> None:
        """Keep a change, unless followers were told that no more will come."""
        if not self.closed:
            self.append(change)

    def notify(self) -> None:
        """Let followers go on, rather than a little later."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
            super()._wake()

    def _wake(self) -> None:
        if self._watchers and self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self.notify)


class Publisher:
    """Numbers the changes and hands them on; `seq` is the number of the last."""

    def __init__(self, changes: Changes) -> None:
        self.seq = 0
        self._changes = changes

    def connection(self) -> None:
        """A node has connected and is about to be identified."""
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
        """The node came, changed or went."""
        node.info = node.describe()
        node.parts.drop()
        why = {} if reason is None else {"reason": reason}
        self._publish(cast(NodeMessage, {**node.info, "event": event, **why}))

    def update(self, node: Node) -> None:
        """Something about the node may have changed."""
        if node.describe() != node.info:
            self.node("update_node", node)

    def job(self, event: JobEvent, node: Node, job_name: str) -> None:
        """A job of the node came or went."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish({"event": event, "node": node.info, "job_name": job_name})

    def process(self, event: ProcessEvent, node: Node, job_name: str, process: Process) -> None:
        """A process of a job came, changed or went."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish(
            {
                "event": event,
                "node": node.info,
                "job_name": job_name,
                "pid": process.pid,
                "state": process.state,
                "endpoints": cast(list[EndpointInfo], process.endpoints),  # the same as JSON
            }
        )

    def forget(self, tombstone: Tombstone) -> None:
        """The tombstone is gone."""
        self._publish({**tombstone, "event": "forget_node"})

    def stale(self, stale: bool, warming: bool) -> None:
        """Answers became stale or are no longer, or lookupd is no longer warming."""
        self._publish({"event": "stale", "stale": stale, "warming": warming})

    def _publish(self, message: Message) -> None:
        self.seq += 1
        self._changes.publish(Change(self.seq, message))
