"""What changes in the registry, as the messages that followers get: numbered, kept for a while, read by cursors.

Who takes in a snapshot and then each change has what the queries answer, except how long ago nodes were heard. With a
node its jobs go, and with a job its processes: no further message tells of them. A node is the same when its `id` is,
and without one when its name and origin are.
"""

import asyncio
from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from gaffer.schemas.messages import Endpoint, Process, ProcessState
from gaffer.streams.rings import Log
from gaffer_lookupd.records import Departure, Node, NodeInfo, Tombstone

KEPT = 20_000  # changes that a follower may be behind

NodeEvent = Literal["add_node", "identify", "update_node", "remove_node"]
JobEvent = Literal["add_job", "remove_job"]
ProcessEvent = Literal["add_process", "update_process", "remove_process"]


class NodeMessage(NodeInfo, frozen=True, kw_only=True, gc=False):
    """A node came, changed or went (LP-41); `reason` says why it went.

    The `add_node` of a connection comes just before its `identify`, without a name.
    """

    event: NodeEvent
    reason: Departure | UnsetType = UNSET


class JobMessage(Struct, frozen=True, gc=False):
    """A node has a new job, or has it no more (LP-42)."""

    event: JobEvent
    node: NodeInfo
    job_name: str


class ProcessMessage(Struct, frozen=True, gc=False):
    """A process of a job started, changed or went (LP-43)."""

    event: ProcessEvent
    node: NodeInfo
    job_name: str
    pid: int
    state: ProcessState
    endpoints: tuple[Endpoint, ...]


class ForgetMessage(Tombstone, frozen=True, kw_only=True, gc=False):
    """The tombstone of a node that went is gone too."""

    event: Literal["forget_node"] = "forget_node"


class StaleMessage(Struct, frozen=True, kw_only=True, gc=False):
    """Answers became stale or are no longer, or lookupd is no longer warming."""

    event: Literal["stale"] = "stale"
    stale: bool
    warming: bool


Message = NodeMessage | JobMessage | ProcessMessage | ForgetMessage | StaleMessage


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
        self._publish(NodeMessage(event="add_node"))

    def node(self, event: NodeEvent, node: Node, reason: Departure | UnsetType = UNSET) -> None:
        """The node came, changed or went."""
        node.info = node.describe()
        node.parts.drop()
        self._publish(NodeMessage(event=event, reason=reason, **structs.asdict(node.info)))

    def update(self, node: Node) -> None:
        """Something about the node may have changed."""
        if node.describe() != node.info:
            self.node("update_node", node)

    def job(self, event: JobEvent, node: Node, job_name: str) -> None:
        """A job of the node came or went."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish(JobMessage(event, node.info, job_name))

    def process(self, event: ProcessEvent, node: Node, job_name: str, process: Process) -> None:
        """A process of a job came, changed or went."""
        node.info = node.describe()
        node.parts.drop_job(job_name)
        self._publish(ProcessMessage(event, node.info, job_name, process.pid, process.state, process.endpoints))

    def forget(self, tombstone: Tombstone) -> None:
        """The tombstone is gone."""
        self._publish(ForgetMessage(**structs.asdict(tombstone)))

    def stale(self, stale: bool, warming: bool) -> None:
        """Answers became stale or are no longer, or lookupd is no longer warming."""
        self._publish(StaleMessage(stale=stale, warming=warming))

    def _publish(self, message: Message) -> None:
        self.seq += 1
        self._changes.publish(Change(self.seq, message))
