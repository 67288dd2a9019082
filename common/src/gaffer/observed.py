"""What others may see of a manager as it runs: stats, changes, new processes."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

from gaffer import arguments, stats, views
from gaffer.job import Job
from gaffer.lifecycle import Lifecycle
from gaffer.names import JobName
from gaffer.process import Process
from gaffer.sampler import StatListener

Name = str | JobName


class Observed(Lifecycle):
    """The observable side of a manager. The jobs are the subclass's."""

    def _job(self, name: Name) -> Job:
        raise NotImplementedError

    def get_process(self, pid: int) -> Process:
        """The process with the internal id `pid`."""
        raise NotImplementedError

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
            views.job_stats(job.name, [found[pid] for pid in of_job]) for job, of_job in zip(jobs, pids, strict=True)
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
        `stats` see gaffer.stats.get_process_stats; it has `pid` and `os_pid` as well. `ended()` is called on the loop
        when there will be no more of them.
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
