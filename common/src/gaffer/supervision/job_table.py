"""The jobs of a manager. No I/O; the manager's lock guards it."""

import itertools
from collections.abc import Iterable, Iterator

from gaffer.errors import ProcessNotFound
from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.processes.survivors import Survivor


class JobTable:
    """The loaded jobs by name, and the unloaded ones until their last process has ended.

    `survivors` are the processes that an earlier manager left; `adopt` gives them to the job of their name. `exits` are
    those that are remembered.
    """

    def __init__(self, survivors: Iterable[Survivor] = (), exits: Iterable[ExitRecord] = ()) -> None:
        self._jobs: dict[JobName, Job] = {}
        self._leaving: list[Job] = []
        self._survivors: dict[str, list[Survivor]] = {}  # by the qualified name of the job
        last = max((each.pid for each in exits), default=0)
        for each in survivors:
            self._survivors.setdefault(each.record.job, []).append(each)
            last = max(last, each.record.pid)
        # Survivors keep their ids, by which exits are told apart, too.
        self._pids = itertools.count(last + 1)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, name: JobName) -> bool:
        return name in self._jobs

    def all(self) -> list[Job]:
        """Every job there still is, those that are leaving first."""
        return [*self._leaving, *self._jobs.values()]

    def find(self, name: JobName) -> Job | None:
        """The loaded job of that name."""
        return self._jobs.get(name)

    def get(self, name: JobName) -> Job:
        """The loaded job of that name; raises ProcessNotFound."""
        job = self._jobs.get(name)
        if job is None:
            raise ProcessNotFound(f"there is no job {str(name)!r}")
        return job

    def next_pid(self) -> int:
        """A process id that is not in use, and of no exit that is remembered."""
        return next(self._pids)

    def add(self, job: Job) -> None:
        """Load `job` under its name, which must be free."""
        self._jobs[job.name] = job

    def remove(self, job: Job) -> None:
        """Unload `job`; it stays in `all` until `forget`."""
        del self._jobs[job.name]
        self._leaving.append(job)

    def is_leaving(self, name: JobName) -> bool:
        """Whether an unloaded job of that name still has processes."""
        return any(job.name == name for job in self._leaving)

    def forget(self, job: Job) -> Job | None:
        """Drop an unloaded job whose processes are gone; return the job that has waited for its name to be free."""
        if job not in self._leaving:
            return None
        self._leaving.remove(job)
        return None if self.is_leaving(job.name) else self._jobs.get(job.name)

    def adopt(self, name: JobName) -> list[Survivor]:
        """Take the survivors of the job of that name, oldest first; each is given once."""
        found = self._survivors.pop(str(name), [])
        return sorted(found, key=lambda each: each.record.pid)

    def unclaimed(self) -> set[str]:
        """The qualified names of the jobs of survivors that no job has adopted, but for detached processes."""
        return {job for job, found in self._survivors.items() if not all(each.record.detach for each in found)}

    def add_leaving(self, job: Job) -> None:
        """Add a job that was unloaded before."""
        self._leaving.append(job)

    def clear(self) -> None:
        """Drop all jobs."""
        self._jobs.clear()
        self._leaving.clear()
