"""Starting, running, restarting, draining and stopping a manager and its applications."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gaffer import loop as loops
from gaffer.errors import ManagerStopping, NodeUpgrading
from gaffer.events import EventEmitter
from gaffer.jobs import events as ev
from gaffer.processes.reaper import Reaper
from gaffer.supervision.applications import Applications
from gaffer.supervision.commands import Commands
from gaffer.supervision.executor import Executor
from gaffer.supervision.job_table import JobTable
from gaffer.supervision.order import Ordering

log = logging.getLogger("gaffer.manager")

HAND_OVER_TIMEOUT = 0.3
"""Seconds that a handover waits for each of: auxiliary commands, a step of the applications, log files."""

# The managers that run on each loop; the last one to stop ends `run`.
_on_loop: dict[asyncio.AbstractEventLoop, "set[Lifecycle]"] = {}


class Lifecycle:
    """The life of a manager: `started`, `stopping`, `handing_over` and `draining` are its state.

    The stop goes in steps, so that applications see the last exits: applications `quiesce`; the jobs end, those that
    others come after last, otherwise the last loaded first; the events are delivered; applications `leave`, then
    `stop`, the last started first.

    A handover takes the same steps with the applications, but leaves the processes alone: first, instructions are not
    executed any more and exits not noticed, so that nothing changes after it has been stored; last, our ends of the
    pipes are closed.

    A manager can also be drained: its applications `drain`, and its processes end, but the manager stays until
    `resume`. `draining` is true in between.

    `manager` is what applications and callbacks get; `lock` guards the jobs, which any thread may touch.
    """

    def __init__(
        self,
        manager: Any,
        lock: "threading.RLock",
        jobs: JobTable,
        executor: Executor,
        ordering: Ordering,
        commands: Commands,
        events: EventEmitter,
        reaper: Reaper,
        apps: Sequence[Any],
    ) -> None:
        self.loop = events.loop
        self.started = False
        self.stopping = False
        self.handing_over = False
        self.draining = False
        self._manager = manager
        self._lock = lock
        self._jobs = jobs
        self._executor = executor
        self._ordering = ordering
        self._commands = commands
        self._events = events
        self._reaper = reaper
        self._apps = list(apps)
        self._running_apps = Applications()
        self._all_gone: asyncio.Event | None = None
        self._hurry = False
        self._stop_task: asyncio.Task[None] | None = None
        self._jobs_drained = False
        self._drain_task: asyncio.Task[None] | None = None
        self._restarting: set[int] = set()
        self._restart_callback: Callable[[Any], Any] | None = None

    def check_open(self) -> None:
        """Raise ManagerStopping once the stop has begun, NodeUpgrading once the handover has."""
        if self.stopping:
            raise self.refusal

    @property
    def refusal(self) -> ManagerStopping:
        """The error for orders that come too late."""
        return NodeUpgrading() if self.handing_over else ManagerStopping()

    @property
    def active(self) -> bool:
        """True from a successful start to the beginning of the stop."""
        return self.started and not self.stopping

    @property
    def drained(self) -> bool:
        """Whether draining has finished: no process is left and none will be started."""
        return self.draining and self._jobs_drained and not self._executor.running

    def start(self, apps: Iterable[Any] = (), applications: Iterable[Any] = ()) -> None:
        """See Manager.start."""
        for given in (apps, applications):
            if not isinstance(given, Iterable):
                raise TypeError(f"expected a list of applications, got {given!r}: write start([...])")
        with self._lock:
            if self.started:
                return
            if self.stopping:
                self._renew()
        chosen = [*self._apps, *apps, *applications]
        if self.loop.is_running():
            try:
                here = asyncio.get_running_loop() is self.loop
            except RuntimeError:
                here = False
            if here:
                self._start_here(chosen)
            else:
                asyncio.run_coroutine_threadsafe(self._start_inside(chosen), self.loop).result()
        else:
            # A server made outside the running loop would bind itself to another one.
            self.loop.run_until_complete(self._start_inside(chosen))

    def _start_here(self, apps: list[Any]) -> None:
        try:
            self._begin()
            self._running_apps.start_now(apps, self.loop, self._manager)
            self._executor.open()
        except BaseException:
            self.stop()
            raise

    async def _start_inside(self, apps: list[Any]) -> None:
        try:
            self._begin()
            await self._running_apps.start(apps, self.loop, self._manager)
            self._executor.open()
        except BaseException:
            self.stopping = True
            await asyncio.wait([self._begin_stop(None)])
            raise

    def _begin(self) -> None:
        self._reaper.start()
        self.started = True
        _on_loop.setdefault(self.loop, set()).add(self)
        self._executor.start_logs()

    def _renew(self) -> None:
        """Forget the life that ended."""
        self.stopping = self.handing_over = self.draining = self._hurry = self._jobs_drained = False
        self._all_gone = self._stop_task = self._drain_task = None
        self._restarting.clear()
        self._jobs.clear()
        self._events.reopen()

    def run(self) -> None:
        """See Manager.run."""
        if not self.started:
            raise RuntimeError("start the manager before running it")
        loops.run(self.loop)

    def stop(self, callback: Callable[[Any], Any] | None = None, now: bool = False) -> None:
        """See Manager.stop."""
        with self._lock:
            if not self.started or self.handing_over or (self.stopping and (not now or self._hurry)):
                return
            self._hurry = now
            if self.stopping:
                self.loop.call_soon_threadsafe(self._end_jobs)
                return
            self.stopping = True
        self.loop.call_soon_threadsafe(self._begin_stop, callback)

    def hand_over(self, callback: Callable[[Any], Any] | None = None) -> None:
        """See Manager.hand_over."""
        with self._lock:
            if not self.active:
                return
            self.stopping = self.handing_over = True
        self.loop.call_soon_threadsafe(self._begin_stop, callback)

    def _begin_stop(self, callback: Callable[[Any], Any] | None) -> "asyncio.Task[None]":
        self._stop_task = self.loop.create_task(
            self._hand_over(callback) if self.handing_over else self._stop(callback)
        )
        self._stop_task.add_done_callback(self._stopped)
        return self._stop_task

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        _on_loop[self.loop].discard(self)
        if not _on_loop[self.loop]:
            del _on_loop[self.loop]
            loops.end(self.loop)
        if not task.cancelled():  # asyncio.run cancels remaining tasks
            task.result()  # raises its exception, which the loop logs

    async def _stop(self, callback: Callable[[Any], Any] | None) -> None:
        self._events.publish("stopping", {"event": "stopping"})
        self._executor.open()  # a start that failed leaves it closed
        await self._end_drain()
        if self._hurry:
            self._end_jobs()
        await self._running_apps.run("quiesce")
        self._all_gone = asyncio.Event()
        self._end_jobs()
        await self._all_gone.wait()
        await self._commands.quiesce(now=self._hurry)
        self._executor.run_pending()
        self._events.flush()
        await self._running_apps.run("leave", reverse=True)
        await self._running_apps.stop()
        self._events.flush()
        self._events.close()
        self._executor.close()
        self._reaper.stop()
        await self._finish(callback)

    async def _hand_over(self, callback: Callable[[Any], Any] | None) -> None:
        await self._end_drain()
        self._executor.freeze()
        self._events.flush()
        apps, timeout = self._running_apps, HAND_OVER_TIMEOUT
        await asyncio.gather(self._commands.abandon(timeout), apps.run_within(timeout, "quiesce"))
        await apps.run_within(timeout, "leave", reverse=True)
        await apps.run_within(timeout, "stop", reverse=True)
        self._events.close()
        self._reaper.stop(leave_children=True)
        self._executor.leave(timeout)
        await self._finish(callback)

    async def _end_drain(self) -> None:
        if self._drain_task is not None:
            self._drain_task.cancel()
            await asyncio.wait([self._drain_task])

    async def _finish(self, callback: Callable[[Any], Any] | None) -> None:
        self.started = False
        if callback is not None:
            # The embedder's code: its failure must not keep the loop from ending.
            try:
                result = callback(self._manager)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("the callback of stop() or hand_over() failed")

    def _end_jobs(self) -> None:
        with self._lock:
            self._commands.end(now=self._hurry)
            jobs = self._jobs.all()[::-1]
            gone = (lambda job: True) if self._hurry else (lambda job: job.gone)
            self._ordering.end(jobs, ev.ManagerStopping(self._hurry), gone)
            self.check_all_gone()

    def check_all_gone(self) -> None:
        """Let the stop go on once nothing is left of any job."""
        if self._all_gone is not None and all(job.gone for job in self._jobs.all()):
            self._all_gone.set()

    def restart(self, callback: Callable[[Any], Any] | None = None) -> None:
        """See Manager.restart."""
        self.check_open()
        self.loop.call_soon_threadsafe(self._restart, callback)

    def _restart(self, callback: Callable[[Any], Any] | None) -> None:
        with self._lock:
            if self._restarting or self.stopping:
                return
            self._running_apps.restart()
            # Committed processes have no successor to make room for.
            self._restarting = {pid for pid, process in self._executor.running.items() if not process.once}
            self._restart_callback = callback
            for job in self._jobs.all():
                if not job.gone:
                    self._executor.submit(job, ev.RestartRequested())
        self._executor.on_change(self._check_restarted)

    def _check_restarted(self) -> None:
        self._restarting &= self._executor.running.keys()
        if self._restarting:
            return
        self._executor.off_change(self._check_restarted)
        callback, self._restart_callback = self._restart_callback, None
        if callback is not None:
            callback(self._manager)

    def drain(self) -> None:
        """See Manager.drain."""
        with self._lock:
            self.check_open()
            if not self.draining:
                self.draining = True
                self.loop.call_soon_threadsafe(self._begin_drain)

    def resume(self) -> None:
        """See Manager.resume."""
        with self._lock:
            self.check_open()
            if self.draining:
                self.draining = False
                self.loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        if not self.stopping:
            previous, self._drain_task = self._drain_task, None
            if previous is not None:
                previous.cancel()
            self._drain_task = self.loop.create_task(self._drain(self.draining))

    async def _drain(self, draining: bool) -> None:
        await self._running_apps.run("drain" if draining else "resume")
        with self._lock:
            self._jobs_drained = draining
            jobs = self._jobs.all()
            if draining:
                self._ordering.end(jobs[::-1], ev.NodeDrained(True), lambda job: job.drained and job.empty)
            else:
                for job in jobs:
                    self._executor.submit(job, ev.NodeDrained(False))
