"""Finds drift: jobs that differ from the configuration file, and processes older than their program on disk."""

import asyncio
import logging
import time
from collections.abc import Awaitable
from functools import partial

from gaffer import Manager
from gaffer.jobs.job import Job
from gaffer.processes.programs import Programs, find_changed
from gaffer.runtime.workers import Workers
from gaffer.schemas.views import DriftInfo
from gafferd.config.drift import drift_of_file, drift_of_job
from gafferd.config.file_jobs import FileJobs
from gafferd.config.on_disk import FileOnDisk

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two looks at the files, at least
PATIENCE = 0.5  # seconds that a request waits for a look
HANGING = 10.0  # seconds after which a look is reported


class Drift:
    """Application that finds drift for its manager, from the files as they were at the last look.

    A look is taken in a thread, when somebody asks: it compares the state of the files, reads the configuration file
    only if it has changed, and never overlaps with another look. `file` is None without a configuration file.
    """

    def __init__(self, jobs: FileJobs, file: FileOnDisk | None) -> None:
        self._jobs = jobs
        self._file = file
        self._manager: Manager | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: dict[int, str] = {}  # programs, by pid
        self._look: asyncio.Future[dict[int, str]] | None = None
        self._workers: Workers | None = None
        self._began = -INTERVAL
        self._ended = -INTERVAL
        self._reported = False

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to find drift."""
        self._loop, self._manager = loop, manager
        manager.drift = self
        self._workers = Workers(loop, 1, "drift")
        self._workers.start()

    def stop(self) -> None:
        """End the thread, which a hung disk may hold."""
        if self._look is not None:
            self._look.cancel()
        if self._workers is not None:
            self._workers.close()

    def find(self, job: Job) -> list[DriftInfo]:
        """Return the drift of a job."""
        assert self._loop is not None
        if self._is_stale() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)
        found: list[DriftInfo | None] = []
        if self._file is not None:
            applied = self._jobs.definitions.get(job.name)
            found.append(drift_of_file(job.name, applied, self._file.contents))
            if applied is not None:
                found.append(drift_of_job(applied, job.config, job.target))
        found += self._of_programs(job)
        return [each for each in found if each is not None]

    def _of_programs(self, job: Job) -> list[DriftInfo]:
        if not self._changed:
            return []
        pids = job.pids(committed=True)
        paths: dict[str, list[int]] = {}
        for pid in pids:
            if path := self._changed.get(pid):
                paths.setdefault(path, []).append(pid)
        return [
            {
                "kind": "program",
                "reason": f"{path} has changed since the start of "
                + (f"process {old[0]}" if len(old) == 1 else f"{len(old)} of {len(pids)} processes"),
            }
            for path, old in paths.items()
        ]

    def _is_stale(self) -> bool:
        return self._look is None and time.monotonic() - self._ended >= INTERVAL

    def refresh(self) -> Awaitable[None] | None:
        """Look at the files again unless that was done within INTERVAL; return what to wait for, at most PATIENCE."""
        self._begin()
        if self._look is None:
            return None
        lasting = time.monotonic() - self._began
        if lasting > HANGING and not self._reported:
            self._reported = True
            logger.warning("looking for changed files takes more than %g s: check the disks", HANGING)
        return self._wait(self._look, PATIENCE - lasting) if lasting < PATIENCE else None

    def _begin(self) -> None:
        if self._is_stale():
            assert self._manager is not None
            assert self._loop is not None
            assert self._workers is not None
            self._began = time.monotonic()
            programs = {pid: (each.os_pid, each.program) for pid, each in self._manager.running.items()}
            self._look = self._loop.create_task(self._workers.run(partial(self._take, programs)))
            self._look.add_done_callback(self._taken)

    def _take(self, programs: Programs) -> dict[int, str]:
        if self._file is not None:
            self._file.refresh()
        return find_changed(programs)

    def _taken(self, look: "asyncio.Future[dict[int, str]]") -> None:
        self._look = None
        if look.cancelled():
            return
        self._reported = False
        self._ended = time.monotonic()
        self._changed = look.result()

    async def _wait(self, look: "asyncio.Future[dict[int, str]]", timeout: float) -> None:
        await asyncio.wait([look], timeout=timeout)
