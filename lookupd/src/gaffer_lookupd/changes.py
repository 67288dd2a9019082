"""What changed in the registry, one numbered record a change, for whoever follows it."""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Literal, Protocol

from msgspec import Struct

from gaffer.messages import Process
from gaffer_lookupd.records import NodeInfo

EventName = Literal[
    "add_node",
    "identify",
    "update_node",
    "remove_node",
    "add_job",
    "remove_job",
    "add_process",
    "update_process",
    "remove_process",
]


class Change(Struct, frozen=True):
    """One change. `seq` grows by one with each; `job_name` and `process` are set where the event is about them.

    With a node its jobs go, and with a job its processes: no further change tells of them.
    """

    seq: int
    event: EventName
    node: NodeInfo
    job_name: str | None = None
    process: Process | None = None


class Changes(Protocol):
    """Where the registry publishes."""

    def publish(self, change: Change) -> None: ...


class Publisher:
    """Numbers the changes and hands them on; `seq` is the number of the last."""

    def __init__(self, changes: Changes) -> None:
        self.seq = 0
        self._changes = changes

    def __call__(
        self, event: EventName, node: NodeInfo, job_name: str | None = None, process: Process | None = None
    ) -> None:
        self.seq += 1
        self._changes.publish(Change(self.seq, event, node, job_name, process))


class MemoryChanges:
    """Keeps the last `limit` changes and calls listeners with each new one."""

    def __init__(self, limit: int = 10_000) -> None:
        self._recent: deque[Change] = deque(maxlen=limit)
        self._listeners: list[Callable[[Change], None]] = []

    def publish(self, change: Change) -> None:
        self._recent.append(change)
        for listener in tuple(self._listeners):
            listener(change)

    def since(self, seq: int) -> list[Change] | None:
        """The changes after number `seq`; None when some of them are forgotten or `seq` is still to come."""
        last = self._recent[-1].seq if self._recent else 0
        missed = last - seq
        if not 0 <= missed <= len(self._recent):
            return None
        return list(islice(self._recent, len(self._recent) - missed, None))

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with each change from now on; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
