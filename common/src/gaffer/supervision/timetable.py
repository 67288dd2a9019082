"""When the jobs of a manager run by their schedules.

Cron schedules follow the wall clock. When it is set forward, a job whose time was skipped runs once. When it is set
back by up to three hours, times that have passed are not repeated; a larger change is a correction, and the new time
counts, as in Debian's cron. Intervals follow the monotonic clock. Nothing wakes the loop before a job is due.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Hashable
from datetime import tzinfo
from typing import Any, Generic, TypeVar

from msgspec import Struct

from gaffer.jobs.config import JobConfig
from gaffer.jobs.schedule import missed_runs, next_run
from gaffer.runtime.clocks import Clock, LocalZone, LoopClock, WallClock

SLICE = 0.01  # seconds after which the loop gets its turn while many jobs are due
CORRECTION = 3 * 3600.0  # seconds; the wall clock was wrong before when it is set back further

K = TypeVar("K", bound=Hashable)


class _Entry(Struct, Generic[K], eq=False):
    job: K
    config: JobConfig
    agenda: "_Agenda[K]"
    order: int = 0  # of its item in the heap; items with another are obsolete


class _Agenda(Generic[K]):
    """The entries that follow one clock, and its alarm for the earliest."""

    def __init__(
        self,
        clock: Clock,
        run: Callable[[_Entry[K], float], Any],
        recalculate: Callable[[list[_Entry[K]]], Any],
    ) -> None:
        self.clock = clock
        self._run = run  # for an entry that is due, with its time
        self._recalculate = recalculate  # for all that were waiting
        self._heap: list[tuple[float, int, _Entry[K]]] = []
        self._orders = itertools.count(1)
        self._waiting = 0  # items of the heap that are not obsolete
        self._latest = float("-inf")  # the latest time that the clock has shown

    def add(self, entry: _Entry[K], due: float | None) -> None:
        if due is None:
            return
        self.check_clock()
        entry.order = next(self._orders)
        self._waiting += 1
        heapq.heappush(self._heap, (due, entry.order, entry))
        self._set_alarm()

    def discard(self, entry: _Entry[K]) -> None:
        if not entry.order:
            return
        self._forget(entry)
        if len(self._heap) > 2 * self._waiting + 16:
            self._heap = [item for item in self._heap if item[2].order == item[1]]
            heapq.heapify(self._heap)
        self._set_alarm()

    def close(self) -> None:
        self._heap.clear()
        self._waiting = 0
        self.clock.cancel()

    def check_clock(self) -> None:
        """Start again from the current time if the clock was set back far."""
        now, latest = self.clock.time(), self._latest
        self._latest = max(latest, now)
        if now < latest - CORRECTION:
            self._latest = now
            entries = [entry for _, order, entry in self._heap if entry.order == order]
            for entry in entries:
                self._forget(entry)
            self._recalculate(entries)

    def _forget(self, entry: _Entry[K]) -> None:
        entry.order = 0
        self._waiting -= 1

    def _set_alarm(self) -> None:
        while self._heap and self._heap[0][2].order != self._heap[0][1]:
            heapq.heappop(self._heap)
        if self._heap:
            self.clock.call_at(self._heap[0][0], self._wake)
        else:
            self.clock.cancel()

    def _wake(self) -> None:
        self.check_clock()
        slice_end = time.monotonic() + SLICE
        while self._heap and self._heap[0][0] <= self.clock.time():
            due, order, entry = heapq.heappop(self._heap)
            if entry.order == order:
                self._forget(entry)
                self._run(entry, due)
            if time.monotonic() >= slice_end:
                break
        self._set_alarm()


class Timetable(Generic[K]):
    """The next run of each armed job. Use it on the loop only; jobs are identified by any hashable keys.

    `on_armed(job, next_run)` is called, also from within `arm`, when the next run of a job is known: seconds since
    1970, None if there is none. `on_due(job, at)` is called when a run is due: `at` is its time by the schedule. A
    `wall` clock and a `local_zone` other than those of the system may be given.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_armed: Callable[[K, float | None], Any],
        on_due: Callable[[K, float], Any],
        *,
        wall: Clock | None = None,
        local_zone: tzinfo | None = None,
    ) -> None:
        self._on_armed = on_armed
        self._on_due = on_due
        self._zone = local_zone or LocalZone()
        self._wall = wall or WallClock(loop)
        self._by_wall_clock: _Agenda[K] = _Agenda(self._wall, self._run, self._recalculate)
        self._by_loop_clock: _Agenda[K] = _Agenda(LoopClock(loop), self._run, self._recalculate)
        self._entries: dict[K, _Entry[K]] = {}

    def arm(self, job: K, config: JobConfig, *, last_run: float | None = None, catch_up: bool = True) -> None:
        """Call `on_due` for `job` whenever a run is due; replaces what was armed for it before.

        `last_run` is when the last run was due or began, in seconds since 1970. Intervals are counted from there. With
        `missed = once`, a run is due at once if there should have been one since then; `catch_up=False` prevents that
        for a job that was stopped or changed while the manager was up.
        """
        self.disarm(job)
        now = self._wall.time()
        if last_run is not None and last_run > now:
            # The clock was set back meanwhile.
            last_run = last_run if last_run <= now + CORRECTION else None
        catch_up = catch_up and config.missed == "once" and missed_runs(config, last_run, now, local_zone=self._zone)
        agenda = self._by_wall_clock if config.schedule is not None else self._by_loop_clock
        entry = self._entries[job] = _Entry(job, config, agenda)
        if catch_up:
            due: float | None = agenda.clock.time()
        elif agenda is self._by_wall_clock:
            due = self._next(config, max(now, last_run or now))
        else:
            time_of_loop = agenda.clock.time()
            started = None if last_run is None else time_of_loop - max(now - last_run, 0.0)
            due = self._next(config, time_of_loop, started)
        self._set(entry, due)

    def disarm(self, job: K) -> None:
        """Forget `job`; unknown ones are ignored."""
        entry = self._entries.pop(job, None)
        if entry is not None:
            entry.agenda.discard(entry)

    def close(self) -> None:
        """Forget all jobs, and cancel all timers."""
        self._entries.clear()
        self._by_wall_clock.close()
        self._by_loop_clock.close()

    def _next(self, config: JobConfig, after: float, started: float | None = None) -> float | None:
        return next_run(config, after=after, started=started, local_zone=self._zone)

    def _run(self, entry: _Entry[K], due: float) -> None:
        self._on_due(entry.job, self._shown(entry, due))
        if self._entries.get(entry.job) is entry:
            self._set(entry, self._next(entry.config, max(entry.agenda.clock.time(), due), due))

    def _recalculate(self, entries: list[_Entry[K]]) -> None:
        for entry in entries:
            if self._entries.get(entry.job) is entry:
                self._set(entry, self._next(entry.config, entry.agenda.clock.time()))

    def _set(self, entry: _Entry[K], due: float | None) -> None:
        entry.agenda.add(entry, due)
        self._on_armed(entry.job, None if due is None else self._shown(entry, due))

    def _shown(self, entry: _Entry[K], due: float) -> float:
        """Return the time on the entry's clock as seconds since 1970."""
        if entry.agenda is self._by_wall_clock:
            return due
        return self._wall.time() - (entry.agenda.clock.time() - due)
