"""Listeners for changes of jobs and for new processes: the part of a manager's interface that its executor provides."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from gaffer.jobs.names import JobName
from gaffer.process import Process
from gaffer.supervision.executor import Executor
from gaffer.supervision.job_table import JobTable


class Listeners:
    """The methods of a manager that register listeners, and the one that settles its listening sockets."""

    _executor: Executor
    _jobs: JobTable
    loop: asyncio.AbstractEventLoop
    _lock: "threading.RLock"

    @property
    def revision(self) -> int:
        """A number that increases with every change to jobs or processes."""
        return self._executor.revision

    def on_change(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` on the loop after jobs or processes may have changed; one call may cover many changes."""
        self._executor.on_change(callback)

    def off_change(self, callback: Callable[[], Any]) -> None:
        """Undo `on_change`."""
        self._executor.off_change(callback)

    def on_job_change(self, callback: Callable[[JobName], Any]) -> None:
        """Call `callback(name)` when a job may have been added, changed or removed, before those of `on_change`.

        It is called in any thread, with the manager locked; it must return at once and raise nothing.
        """
        self._executor.on_job_change(callback)

    def off_job_change(self, callback: Callable[[JobName], Any]) -> None:
        """Undo `on_job_change`."""
        self._executor.off_job_change(callback)

    def on_spawn(self, callback: Callable[[Process], Any]) -> None:
        """Call `callback(process)` on the loop for each process as it starts, before any of its output is read."""
        self._executor.on_spawn(callback)

    def off_spawn(self, callback: Callable[[Process], Any]) -> None:
        """Undo `on_spawn`."""
        self._executor.off_spawn(callback)

    def close_unused_sockets(self) -> None:
        """Close the sockets that a socket keeper had and no started job uses. Call it once the jobs are loaded."""
        with self._lock:
            used = {job.name for job in self._jobs if job.uses_sockets}
        self.loop.call_soon_threadsafe(self._executor.close_unused_sockets, used)
