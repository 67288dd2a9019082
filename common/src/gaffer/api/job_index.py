"""What is searched of a node's jobs and processes: rows that are made again when their job changes, and their usage."""

import asyncio
import time
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, cast

from gaffer.http.batches import Batches
from gaffer.http.search import Kind, Row
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.slot import VISIBLE_STATES
from gaffer.jobs.states import JobState
from gaffer.manager import Manager
from gaffer.processes import stats
from gaffer.schemas.search import FoundJob, FoundProcess
from gaffer.schemas.views import Instance, JobSummary
from gaffer.streams.position import Position
from gaffer.streams.rings import Log

KEPT = 4096  # changes that a reader may lag behind
SPARE = 1000  # changed jobs that need not have a row

JOBS = Kind(
    "jobs",
    {
        "name": str,
        "session": str,
        "state": float,
        "reason": str,
        "running": float,
        "max_processes": float,
        "restarts": float,
        "last_exit": float,
        "uptime": float,
        "cpu": float,
        "memory": float,
    },
    # Those that need attention first.
    [JobState(state) for state in "failed backoff stopping starting waiting stopped completed running".split()],
)
PROCESSES = Kind(
    "processes",
    {
        "pid": float,
        "name": str,
        "session": str,
        "state": float,
        "slot": float,
        "os_pid": float,
        "uptime": float,
        "cpu": float,
        "memory": float,
    },
    [str(state) for state in VISIBLE_STATES],
)
KINDS = {kind.name: kind for kind in (JOBS, PROCESSES)}

MEASURED = ("cpu", "memory")
"""The keys whose values are measured."""

_JOB_RANKS = {state: rank for rank, state in enumerate(JOBS.states)}
_TROUBLED = _JOB_RANKS[JobState.BACKOFF] + 0.5  # of a job that is up, but has a reason for its state
_PROCESS_RANKS = {state: rank for rank, state in enumerate(PROCESSES.states)}


class JobChange(NamedTuple):
    """A job that was added, changed or removed, and the keys of its processes before, as far as they had rows."""

    name: JobName
    processes: tuple[str, ...]


class _Rows(NamedTuple):
    job: Row
    processes: list[Row]


class JobIndex:
    """The rows of all jobs and processes. It follows the manager from the first use on; use it on its loop.

    Its generators are to be run in `batches`. `changes`, which may be replaced by another log, are the jobs that may
    have been added, changed or removed.
    """

    def __init__(self, manager: Manager) -> None:
        self.changes: Log[JobChange] = Log(KEPT)
        self.usage = UsageTable(manager)
        self.batches = Batches()
        self._manager = manager
        self._rows: dict[JobName, _Rows] = {}
        self._stale: set[JobName] = set()
        self._news: set[JobName] = set()  # changed by any thread
        self._follows = False
        self._complete = False

    def close(self) -> None:
        """Stop following the manager, and end `changes`."""
        self.usage.close()
        self.changes.close()
        if self._follows:
            self._manager.off_job_change(self._news.add)
            self._manager.off_change(self._collect)

    def position(self) -> Position:
        """Return the position in `changes` after the last change."""
        if not self._follows:
            self._follows = True
            self._manager.on_job_change(self._news.add)
            self._manager.on_change(self._collect)
        self._collect()
        return self.changes.position(self.changes.end)

    def refreshing(self) -> Generator[None, None, None]:
        """Make the rows of jobs that have changed, in steps."""
        self.position()
        if not self._complete:
            self._complete = True
            self._stale.update(map(parse_job_name, self._manager.jobs()))
        while self._stale:
            self._make(self._stale.pop())
            yield

    def rows(self, kind: Kind) -> Iterable[Row]:
        """Return the rows of a kind."""
        if kind is JOBS:
            return [rows.job for rows in self._rows.values()]
        return [row for rows in self._rows.values() for row in rows.processes]

    def rows_of(self, name: JobName, kind: Kind) -> list[Row]:
        """Return the rows of a job, none if it is not loaded."""
        self._make(name)
        rows = self._rows.get(name)
        return [] if rows is None else [rows.job] if kind is JOBS else rows.processes

    def describe(self, kind: Kind, key: str) -> FoundJob | FoundProcess | None:
        """Return the item with this key; None if it is gone."""
        if kind is JOBS:
            found = self._manager.summary(parse_job_name(key))
            return None if found is None else self._job(found[0])
        process = self._manager.running.get(int(key))
        found = self._manager.summary(process.job) if process is not None else None
        if found is None:
            return None
        return next((self._process(found[0], each) for each in found[1] if str(each["pid"]) == key), None)

    def _collect(self) -> None:
        while self._news:
            name = self._news.pop()
            self._stale.add(name)
            rows = self._rows.get(name)
            self.changes.append(JobChange(name, tuple(row.key for row in rows.processes) if rows is not None else ()))
        if len(self._stale) > len(self._rows) + SPARE:  # nobody searches, while jobs come and go
            self._rows.clear()
            self._stale.clear()
            self._complete = False
            # The processes of earlier rows are not known any more: readers are to search again.
            self.changes.close()
            self.changes = Log(KEPT)

    def _make(self, name: JobName) -> None:
        found = self._manager.summary(name)
        if found is None:
            self._rows.pop(name, None)
            return
        summary, instances = found
        now = time.monotonic()
        processes = [_row_of_process(summary, instance, now) for instance in instances]
        self._rows[name] = _Rows(_row_of_job(summary, now), processes)

    def _job(self, summary: JobSummary) -> FoundJob:
        cpu, memory = self.usage.of_job(summary["name"])
        return {"key": summary["name"], **summary, "cpu": cpu, "memory": memory}

    def _process(self, summary: JobSummary, instance: Instance) -> FoundProcess:
        key = str(instance["pid"])
        cpu, memory = self.usage.of_process(key)
        about = {"key": key, "name": summary["name"], "session": summary["session"]}
        return cast(FoundProcess, {**about, **instance, "cpu": cpu, "memory": memory})


def _row_of_job(summary: JobSummary, now: float) -> Row:
    uptime, last_exit = summary["uptime"], summary["last_exit"]
    return Row(
        summary["name"],
        f"{summary['name']}\n{summary['reason'] or ''}".lower(),
        summary["state"],
        (
            summary["name"],
            summary["session"],
            _rank_of_job(summary),
            summary["reason"],
            summary["running"],
            summary["max_processes"],
            summary["restarts"],
            last_exit["at"] if last_exit is not None else None,
            uptime - now if uptime is not None else None,
            None,
            None,
        ),
        summary["session"],
    )


def _rank_of_job(summary: JobSummary) -> float:
    up = summary["state"] in (JobState.STARTING, JobState.RUNNING)
    return _TROUBLED if up and summary["reason"] else _JOB_RANKS[summary["state"]]


def _row_of_process(summary: JobSummary, instance: Instance, now: float) -> Row:
    pid, os_pid = instance["pid"], instance["os_pid"]
    return Row(
        str(pid),
        f"{summary['name']}\n{pid}\n{os_pid}\n{instance['probe_error'] or ''}".lower(),
        instance["state"],
        (
            pid,
            summary["name"],
            summary["session"],
            _PROCESS_RANKS[instance["state"]],
            instance["slot"],
            os_pid,
            instance["uptime"] - now,
            None,
            None,
        ),
        summary["session"],
    )


class Usage(NamedTuple):
    """The usage of a job or process: percent of a processor, and bytes of memory; None if not measured."""

    cpu: float | None = None
    memory: int | None = None


class UsageTable:
    """The usage of all processes of a manager, measured when it is asked for, in slices.

    Measurements take at most a tenth of the time, and there is a second between two.
    """

    PAUSE = 1.0  # seconds
    SHARE = 0.1

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._processes: dict[str, Usage] = {}
        self._jobs: dict[str, Usage] = {}
        self._counted: dict[int, tuple[float, float]] = {}  # CPU seconds, and when they were read, by pid
        self._next = 0.0
        self._batches = Batches()
        self._measuring: asyncio.Task[None] | None = None

    def of_job(self, name: str) -> Usage:
        """Return the usage of a job by its qualified name."""
        return self._jobs.get(name, Usage())

    def of_process(self, pid: str) -> Usage:
        """Return the usage of a process by Gaffer's pid."""
        return self._processes.get(pid, Usage())

    async def refresh(self, *, wait: bool) -> None:
        """Measure unless that was done recently. Without `wait`, only the first measurement is awaited."""
        if self._measuring is None and time.monotonic() >= self._next:
            wait = wait or not self._next
            self._measuring = asyncio.create_task(self._measure())
        if wait and self._measuring is not None:
            await asyncio.shield(self._measuring)

    def close(self) -> None:
        """Stop measuring."""
        if self._measuring is not None:
            self._measuring.cancel()

    async def _measure(self) -> None:
        began = time.monotonic()
        try:
            await self._batches.run(self._steps)
        finally:
            now = time.monotonic()
            self._next = now + max(self.PAUSE, (now - began) / self.SHARE)
            self._measuring = None

    def _steps(self) -> Generator[None, None, None]:
        counted, processes = {}, {}
        jobs: dict[str, Usage] = {}
        for process in list(self._manager.running.values()):
            used = stats.usage(process.os_pid) if process.active else None
            if used is not None:
                now = time.monotonic()
                before, since = self._counted.get(process.pid, (0.0, now - process.uptime))
                counted[process.pid] = used.cpu_seconds, now
                share = round(100 * max(0.0, used.cpu_seconds - before) / max(now - since, 0.01), 1)
                processes[str(process.pid)] = Usage(share, used.resident_bytes)
                name = str(process.job)
                cpu, memory = jobs.get(name, Usage())
                jobs[name] = Usage(round((cpu or 0.0) + share, 1), (memory or 0) + used.resident_bytes)
            yield
        self._counted, self._processes, self._jobs = counted, processes, jobs


def value_of(usage: UsageTable, kind: Kind, key: str) -> Any:
    """Return the function that finds the measured value of an item by its key, None for values that rows have."""
    if key not in MEASURED:
        return None
    of = usage.of_job if kind is JOBS else usage.of_process
    column = MEASURED.index(key)
    return lambda item: of(item)[column]
