"""Watch the memory of processes that have a limit.

The memory of a process is the resident memory of its whole tree: the leader, its process group, its control group if
it has one, orphans that bear its mark, and all their descendants. Pages that several of them share count for each;
their proportional size (PSS) would be exact, but takes the kernel longer to find, the more so the larger it is. One
round for 1,000 processes takes some 20 ms, which is 1 % of a core.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from gaffer.processes import procfs
from gaffer.processes.cgroups import Cgroups
from gaffer.processes.reaper import COOKIE
from gaffer.processes.sampler import Slices
from gaffer.processes.stats import ProcessTable, Watchable

INTERVAL = 2.0  # seconds between the starts of two rounds
SHARE = 10  # a round is followed by a pause at least this many times as long, on hosts with very many processes


class Guarded(Watchable, Protocol):
    """A process; `cookie` marks its descendants, in their environment, unless empty."""

    cookie: str


P = TypeVar("P", bound=Guarded)


class MemoryGuard(Generic[P]):
    """A guard that measures the watched processes every `interval` seconds, and does nothing while there are none.

    `on_exceeded(process, used, limit)`, in bytes, is called once for a process; it is not watched any more then. Use
    it on the loop only.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_exceeded: Callable[[P, int, int], Any],
        *,
        cgroups: Cgroups | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._loop = loop
        self._on_exceeded = on_exceeded
        self._cgroups = cgroups
        self._interval = interval
        self._watched: dict[int, tuple[P, Callable[[], int]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._slices = Slices(loop)
        self._table = ProcessTable()
        self._cookies: dict[int, tuple[float, str | None]] = {}  # of our children, with the time of their birth

    def watch(self, process: P, limit_of: Callable[[], int]) -> None:
        """Watch a running process until it exits; `limit_of()` returns its current limit, in bytes.

        A process whose limit has become 0 is not watched any more. Call this again when it gets one.
        """
        if not self._watched:
            self._timer = self._loop.call_later(self._interval, self._begin)
        self._watched[process.pid] = (process, limit_of)

    def unwatch(self, pid: int) -> None:
        """Stop watching a process, by Gaffer's pid; unknown ones are ignored."""
        if self._watched.pop(pid, None) is not None and not self._watched:
            self.close()

    def close(self) -> None:
        """Stop watching all processes."""
        self._watched.clear()
        self._slices.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._table = ProcessTable()
        self._cookies.clear()

    def _begin(self) -> None:
        for pid, (process, limit_of) in tuple(self._watched.items()):
            if not process.active or limit_of() <= 0:
                self.unwatch(pid)
        if self._watched:
            self._slices.run(self._measure(), self._pause)

    def _pause(self, spent: float) -> None:
        if self._watched:
            self._timer = self._loop.call_later(max(self._interval - spent, SHARE * spent), self._begin)

    def _measure(self) -> Iterator[None]:
        yield from self._table.read()
        members: dict[int, list[int]] = {process.os_pid: [process.os_pid] for process, _ in self._watched.values()}
        for reading in self._table.readings.values():
            if reading.group in members:
                members[reading.group].append(reading.os_pid)
            yield
        yield from self._add_orphans(members)
        for process, limit_of in tuple(self._watched.values()):
            found = members.get(process.os_pid)
            if found is not None and process.active:
                self._check(process, limit_of(), found)
            yield

    def _add_orphans(self, members: dict[int, list[int]]) -> Iterator[None]:
        """Add those of our children that left the group of their leader and became orphans."""
        leaders = {process.cookie: process.os_pid for process, _ in self._watched.values() if process.cookie}
        known, self._cookies = self._cookies, {}
        for os_pid in self._table.children(os.getpid()) if leaders else ():
            if os_pid in members:
                continue
            birth = self._table.readings[os_pid].birth
            cookie = known.get(os_pid, (None, None))
            if cookie[0] != birth:
                cookie = (birth, procfs.read_variable(os_pid, COOKIE))
            self._cookies[os_pid] = (birth, cookie[1])
            leader = leaders.get(cookie[1] or "")
            if leader in members:
                members[leader].append(os_pid)
            yield

    def _check(self, process: P, limit: int, members: list[int]) -> None:
        if self._cgroups is not None:
            members = [*members, *self._cgroups.members(process.os_pid)]
        readings = self._table.readings
        used = sum((readings[pid].resident or 0) for pid in self._table.trees(members) if pid in readings)
        if 0 < limit < used:
            self.unwatch(process.pid)
            self._on_exceeded(process, used, limit)
