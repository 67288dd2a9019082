"""Applies the jobs of the configuration file to a node."""

from collections.abc import Generator, Mapping
from typing import NamedTuple

from gaffer import Manager
from gaffer.errors import GafferError, ManagerStopping
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.process import ProcessConfig
from gaffer.schemas.reload import FailedChange, JobChange
from gafferd.config.reload import Change, differences, plan, starts

Jobs = Mapping[JobName, ProcessConfig]


class Failure(NamedTuple):
    """A change that could not be applied; the next reload retries it."""

    change: Change
    error: GafferError

    def to_dict(self) -> FailedChange:
        """Return the failure as in the response of POST /reload."""
        job, action = self.change
        error = self.error
        return {
            "job": str(job),
            "action": action,
            "error": error.reason,
            "message": error.message,
            "hint": error.hint,
        }


class FileJobs:
    """The jobs of the configuration file, applied to a manager at start and reload."""

    def __init__(self, manager: Manager, jobs: Jobs) -> None:
        self._manager = manager
        self._applied = dict(jobs)

    @property
    def definitions(self) -> Jobs:
        """The definitions of its jobs as last applied, in start order."""
        return self._applied

    def load(self) -> None:
        """Load all jobs in start order."""
        for name, config in self._applied.items():
            self._manager.load(config, name.session)

    def plan(self, jobs: Jobs) -> list[Change]:
        """Return the changes that a file with these jobs requires."""
        return plan(self._applied, jobs, set(map(parse_job_name, self._manager.jobs())))

    def describe(self, change: Change, jobs: Jobs) -> JobChange:
        """Return the effect of a planned change, as in the response of POST /reload."""
        name, action = change
        settings: list[str] = []
        restart = False
        if action == "scale":
            settings = ["numprocesses"]
        elif action == "update":
            running = self._manager.get(name)
            settings = differences(running, jobs[name])
            restart = running.needs_restart(jobs[name])
        return {"job": str(name), "action": action, "settings": settings, "restart": restart}

    def apply(self, jobs: Jobs, changes: list[Change]) -> Generator[None, None, list[Failure]]:
        """Apply the planned changes to the jobs of the file, one between two steps; return those that failed.

        A failed change does not prevent the others, and is tried again after them: one may wait for the port that
        another gives back. Raises ManagerStopping.
        """
        before = self._applied
        waiting = {change.job for change in changes}
        self._applied = {name: config for name, config in jobs.items() if name not in waiting}
        self._applied |= {name: config for name, config in before.items() if name in waiting}
        while True:
            failed: list[Failure] = []
            for change in changes:
                try:
                    self._apply(change, before, jobs)
                except ManagerStopping:
                    raise
                except GafferError as error:
                    failed.append(Failure(change, error))
                yield
            if len(failed) in (0, len(changes)):
                return failed
            changes = [failure.change for failure in failed]

    def _apply(self, change: Change, before: Jobs, after: Jobs) -> None:
        name, action = change
        if action == "remove":
            self._manager.unload(name)
            del self._applied[name]
            return
        config = after[name]
        if action == "add":
            self._manager.load(config, name.session)
        elif action == "scale":
            # The definition too: it has the number that a reload of the job returns to.
            running = self._manager.get(name)
            self._manager.update(running.replace(numprocesses=config.numprocesses), name.session)
            self._manager.scale(name, f"={config.numprocesses}")
        else:
            self._manager.update(config, name.session, start=starts(before.get(name), config))
        self._applied[name] = config
