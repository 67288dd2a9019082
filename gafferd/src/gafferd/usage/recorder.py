"""Measures the running processes at intervals, for their usage history."""

import asyncio
import time
from collections.abc import Iterator

from gaffer import Manager
from gaffer.jobs.names import JobName
from gaffer.processes import stats
from gaffer.processes.sampler import Slices
from gaffer.schemas.usage import JobUsage
from gafferd.usage.samples import Measured, UsageHistory

SHARE = 10  # a round is followed by a pause at least this many times as long, on very busy hosts


class UsageRecorder:
    """Application that measures all processes every `interval` seconds, each without its descendants."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._history = UsageHistory()
        self._manager: Manager | None = None
        self._slices: Slices | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def of(self, name: JobName) -> JobUsage:
        """Return the history of a job."""
        return self._history.of(name, time.time(), self.interval)

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to measure."""
        self._loop, self._manager, self._slices = loop, manager, Slices(loop)
        self._timer = loop.call_later(self.interval, self._begin)

    def stop(self) -> None:
        """Stop measuring."""
        if self._slices is not None and self._timer is not None:
            self._slices.cancel()
            self._timer.cancel()

    def restart(self) -> None:
        """Do nothing: what was measured stays."""

    def _begin(self) -> None:
        assert self._slices is not None
        self._slices.run(self._measure(), self._pause)

    def _pause(self, spent: float) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(max(self.interval - spent, SHARE * spent), self._begin)

    def _measure(self) -> Iterator[None]:
        assert self._manager is not None
        measured = []
        for process in list(self._manager.running.values()):
            used = stats.usage(process.os_pid) if process.active else None
            if used is not None:
                since = time.monotonic() - process.uptime
                measured.append(Measured(process.job, process.slot, process.pid, since, *used))
            yield
        restarts = {}
        for name in {each.job for each in measured}.union(self._history.jobs):
            found = self._manager.summary(name)
            if found is not None:
                restarts[name] = found[0]["restarts"]
            yield
        self._history.record(time.time(), time.monotonic(), measured, restarts)
