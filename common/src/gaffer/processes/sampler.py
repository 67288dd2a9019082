"""Send the stats of running processes to listeners, ten times a second while there are any."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from gaffer.jobs.names import JobName
from gaffer.loop import exit_soon
from gaffer.processes import stats

log = logging.getLogger("gaffer.processes.sampler")

REFRESH = 0.1  # seconds between the starts of two rounds
SLICE = 0.005  # seconds after which a round yields to the loop
EVENT = "STATS"

Target = int | JobName  # a process by its pid (Gaffer's), or all processes of a job
StatListener = Callable[[str, dict[str, Any]], Any]
Ended = Callable[[], Any]


class Watched(stats.Watchable, Protocol):
    """A process and its job."""

    job: JobName


class Slices:
    """Steps that are carried out on the loop, in slices of 5 ms."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: Iterator[None] | None = None
        self._began = 0.0
        self._ended: Callable[[float], Any] = lambda spent: None
        self._next: asyncio.Handle | None = None

    def run(self, steps: Iterator[None], ended: Callable[[float], Any]) -> None:
        """Begin with `steps`, at once; call `ended(seconds)` with the time that they took."""
        self._steps, self._ended, self._began = steps, ended, time.monotonic()
        self._go_on()

    def cancel(self) -> None:
        """Drop the remaining steps."""
        self._steps = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self) -> None:
        slice_end = time.monotonic() + SLICE
        while self._steps is not None:
            try:
                next(self._steps)
            except StopIteration:
                self._steps = self._next = None
                self._ended(time.monotonic() - self._began)
                return
            if time.monotonic() >= slice_end:
                self._next = self._loop.call_soon(self._go_on)
                return


class Sampler:
    """A sampler that measures those of the `running` processes that have listeners, in rounds.

    Any thread may subscribe. A job's listeners also get the processes that it starts later.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, running: Mapping[int, Watched]) -> None:
        self._loop = loop
        self._running = running
        self._lock = threading.Lock()
        self._listeners: dict[Target, dict[StatListener, Ended]] = {}
        self._gauges = stats.Gauges()
        self._slices = Slices(loop)
        self._under_way = False

    def monitor(self, target: Target, listener: StatListener, ended: Ended = lambda: None) -> None:
        """Call `listener("STATS", stats)` on the loop for each process of `target` in every round.

        `ended()` is called on the loop once no more will follow, because the process has exited or the job was
        unloaded.
        """
        with self._lock:
            self._listeners.setdefault(target, {}).setdefault(listener, ended)
            if not self._under_way:
                self._under_way = True
                self._loop.call_soon_threadsafe(self._begin)

    def unmonitor(self, target: Target, listener: StatListener) -> None:
        """Undo `monitor`; unknown listeners are ignored."""
        with self._lock:
            listeners = self._listeners.get(target, {})
            listeners.pop(listener, None)
            if not listeners:
                self._listeners.pop(target, None)

    @property
    def listeners(self) -> int:
        """The number of listeners; without any, nothing is measured."""
        with self._lock:
            return sum(map(len, self._listeners.values()))

    def forget(self, target: Target) -> None:
        """Drop all listeners of `target`."""
        with self._lock:
            for ended in self._listeners.pop(target, {}).values():
                self._loop.call_soon_threadsafe(ended)

    def _begin(self) -> None:
        with self._lock:
            gone = [t for t in self._listeners if isinstance(t, int) and not self._lives(t)]
        for target in gone:
            self.forget(target)
        with self._lock:
            if not self._listeners:
                self._under_way = False
                self._gauges = stats.Gauges()
                return
            processes = [p for p in self._running.values() if p.pid in self._listeners or p.job in self._listeners]
        self._slices.run(self._measure(processes), self._pause)

    def _lives(self, pid: int) -> bool:
        process = self._running.get(pid)
        return process is not None and process.active

    def _pause(self, spent: float) -> None:
        # A long round is followed by an equally long pause.
        self._loop.call_later(max(REFRESH - spent, spent), self._begin)

    def _measure(self, processes: list[Watched]) -> Iterator[None]:
        if not processes:
            return
        yield from self._gauges.look()
        for process in processes:
            if process.active:
                found = yield from self._gauges.measure(process.os_pid)
                if found is not None and process.active:
                    self._emit(process, stats.labelled(process, found))
                yield

    def _emit(self, process: Watched, message: dict[str, Any]) -> None:
        for target in (process.pid, process.job):
            for listener in tuple(self._listeners.get(target, ())):
                # Listeners are foreign code: an exception in one must not prevent delivery to the others.
                try:
                    listener(EVENT, message)
                except (SystemExit, KeyboardInterrupt) as error:
                    exit_soon(self._loop, error)
                except BaseException:
                    log.exception("a listener of the stats of %s failed", process.job, extra={"job": process.job})
