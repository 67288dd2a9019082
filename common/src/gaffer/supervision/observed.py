"""What others may see of a manager as it runs: stats, changes, new processes."""

import asyncio
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any

from gaffer.errors import BadValue
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.states import JobState
from gaffer.process import Process
from gaffer.processes import stats
from gaffer.processes.sampler import StatListener
from gaffer.schemas.responses import JobInfo
from gaffer.supervision import arguments, serializers
from gaffer.supervision.lifecycle import Lifecycle

Name = str | JobName


class Observed(Lifecycle):
    """The observable side of a manager. The jobs are the subclass's."""

    def _job(self, name: Name) -> Job:
        raise NotImplementedError

    def get_process(self, pid: int) -> Process:
        """The process with the internal id `pid`."""
        raise NotImplementedError

    def info(self, name: Name) -> JobInfo:
        """A job's state, numbers, processes and config."""
        raise NotImplementedError

    # Waiting

    def wait(self, name: Name, state: str | Iterable[str] = "running", timeout: float | None = None) -> Any:
        """Wait until a job is in `state`, or in one of several; return its info, see `Manager.info`.

        Blocks the calling thread, and runs the loop meanwhile unless it runs already. On the running loop itself it
        returns an awaitable: `await manager.wait("web", "running")`. A state that lasts a moment only can be missed.
        Raises BadValue for an unknown state, TimeoutError after `timeout` seconds, RuntimeError before the start,
        ProcessNotFound when the job is unloaded, and ManagerStopping when the manager stops.
        """
        states = _states(state)
        if not self.started:
            raise RuntimeError("start the manager before waiting for a job")
        waiting = self._wait(name, states, timeout)
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self.loop:
            return self.loop.create_task(waiting)
        if self.loop.is_running():
            return asyncio.run_coroutine_threadsafe(waiting, self.loop).result()
        return self.loop.run_until_complete(waiting)

    async def _wait(self, name: Name, states: Collection[JobState], timeout: float | None) -> JobInfo:
        changed = asyncio.Event()
        self.on_change(changed.set)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    changed.clear()
                    if self._job(name).state in states:
                        return self.info(name)
                    self._check_open()
                    await changed.wait()
        except TimeoutError:
            job = self._job(name)
            because = f" ({job.reason})" if job.reason else ""
            wanted = " or ".join(states)
            raise TimeoutError(f"{job.name} is {job.state}{because}, not {wanted}, after {timeout:g} s") from None
        finally:
            self.off_change(changed.set)

    # Stats

    def stats(self, name: Name) -> dict[str, Any]:
        """The stats of a job's processes and their sums (MGR-51)."""
        return stats.finish(self.measuring([name]))[0]

    def measuring(self, names: Iterable[Name]) -> Generator[None, None, list[dict[str, Any]]]:
        """Does and returns what `stats` does for each of several jobs, in steps between which the loop may turn."""
        with self._lock:
            running = self._supervisor.running
            jobs = [self._job(name) for name in names]
            pids = [[pid for pid in job.pids(committed=True) if pid in running] for job in jobs]
            processes = [running[pid] for of_job in pids for pid in of_job]
        found = {each["pid"]: each for each in (yield from stats.measuring(processes))}
        return [
            serializers.job_stats(job.name, [found[pid] for pid in of_job])
            for job, of_job in zip(jobs, pids, strict=True)
        ]

    def monitor(
        self,
        listener: StatListener | Name | int,
        name: Name | int | StatListener,
        *,
        ended: Callable[[], Any] = lambda: None,
    ) -> None:
        """Call `listener("STATS", stats)` every 0.1 s for each process of a job, or for one process given by its pid.

        The arguments may change places. A job's later processes are covered too, until it is unloaded. For the keys of
        `stats` see gaffer.processes.stats.get_process_stats; it has `pid` and `os_pid` as well. `ended()` is called on
        the loop when there will be no more of them.
        """
        function, target = arguments.listener_and_target(listener, name)
        with self._lock:
            self._check_open()
            if isinstance(target, int):
                self.get_process(target)
            else:
                self._job(target)
            self._supervisor.sampler.monitor(target, function, ended)

    def unmonitor(self, listener: StatListener | Name | int, name: Name | int | StatListener) -> None:
        """Undo `monitor`; unknown ones are ignored."""
        function, target = arguments.listener_and_target(listener, name)
        self._supervisor.sampler.unmonitor(target, function)

    # Changes

    @property
    def revision(self) -> int:
        """A number that grows with every change of jobs or processes."""
        return self._supervisor.revision

    def on_change(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` on the loop after jobs or processes may have changed; many changes may be one call."""
        self._supervisor.on_change(callback)

    def off_change(self, callback: Callable[[], Any]) -> None:
        """Undo `on_change`."""
        self._supervisor.off_change(callback)

    def on_job_change(self, callback: Callable[[JobName], Any]) -> None:
        """Call `callback(name)` when a job may have changed, come or gone, before the callbacks of `on_change`.

        Called in any thread, with the manager locked; it must return at once and raise nothing.
        """
        self._supervisor.on_job_change(callback)

    def off_job_change(self, callback: Callable[[JobName], Any]) -> None:
        """Undo `on_job_change`."""
        self._supervisor.off_job_change(callback)

    def on_spawn(self, callback: Callable[[Process], Any]) -> None:
        """Call `callback(process)` on the loop for each process as it starts, before any of its output is read."""
        self._supervisor.on_spawn(callback)

    def off_spawn(self, callback: Callable[[Process], Any]) -> None:
        """Undo `on_spawn`."""
        self._supervisor.off_spawn(callback)

    @property
    def dropped_bytes(self) -> int:
        """The output in bytes that readers lost because they were overtaken, of all processes there were."""
        return self._supervisor.losses.count

    @property
    def lost_log_bytes(self) -> int:
        """The output in bytes that could not be written to log files, because the disk was full for instance."""
        return self._supervisor.lost_log_bytes


def _states(state: str | Iterable[str]) -> list[JobState]:
    try:
        return [JobState(each) for each in ([state] if isinstance(state, str) else state)]
    except ValueError:
        raise BadValue(f"unknown job state in {state!r}", hint=f"use one of {', '.join(JobState)}") from None
