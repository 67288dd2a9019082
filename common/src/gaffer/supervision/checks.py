"""What must hold before an order changes a job. No I/O; the manager's lock guards it."""

from collections.abc import Mapping, Sequence

from gaffer.errors import JobDisabled, PortConflict, ProcessConflict
from gaffer.jobs.config import JobConfig
from gaffer.jobs.desired import Desired
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.ports import conflict
from gaffer.jobs.states import Phase
from gaffer.supervision.job_table import JobTable
from gaffer.supervision.order import Ordering


class Checks:
    """Checks of orders against the loaded jobs and their order."""

    def __init__(self, jobs: JobTable, ordering: Ordering) -> None:
        self._jobs = jobs
        self._ordering = ordering

    def check_new(self, wanted: Sequence[Desired], *, ordered: bool) -> None:
        """Raise unless all these jobs can be loaded together.

        Raises ProcessConflict for a name in use, ConfigError if one would come after itself or, if `ordered`, an
        unknown job, and PortConflict for the fixed ports of those that are to run.
        """
        seen: set[JobName] = set()
        for each in wanted:
            if each.name in self._jobs or each.name in seen:
                raise ProcessConflict(f"the job {each.name} already exists", hint="unload it first, or update it")
            seen.add(each.name)
        paths = {each.name: "$" if len(wanted) == 1 else f"$.jobs[{index}]" for index, each in enumerate(wanted)}
        self._ordering.check({each.name: each.config for each in wanted}, paths, complete=ordered)
        starting = {each.name: (each.config, each.target) for each in wanted if each.phase is Phase.STARTED}
        for name, (config, count) in starting.items():
            self._check_ports(name, config, count, starting)

    def check_enabled(self, job: Job) -> None:
        """Raise JobDisabled if nothing of the job can be started."""
        if job.disabled:
            raise JobDisabled(job.name, job.disabled)

    def check_start(self, job: Job) -> None:
        """Raise JobDisabled, or PortConflict if a start would take fixed ports of started jobs."""
        self.check_enabled(job)
        if not job.active:
            self._check_ports(job.name, job.config, job.config.numprocesses, {})

    def check_growth(self, job: Job, count: int) -> None:
        """Raise PortConflict if `count` processes would get fixed ports of other jobs, started or stopped."""
        self._check_ports(job.name, job.config, count)

    def check_definition(self, job: Job, config: JobConfig, start: bool = False) -> None:
        """Raise the errors of `Manager.update` unless `config` can become the definition of a job."""
        count = config.numprocesses
        if job.active and count == job.config.numprocesses:
            count = job.target
            config.replace(numprocesses=count)
        if start or job.active:
            self._check_ports(job.name, config, count, {})
        elif count > job.target:
            self._check_ports(job.name, config, count)
        self._ordering.check({job.name: config}, {job.name: "$"})

    def check_restart(self, job: Job, reset: bool) -> None:
        """Raise JobDisabled, or PortConflict if a restart would start processes with fixed ports of started jobs."""
        self.check_enabled(job)
        grows = job.active and reset and job.config.numprocesses > job.target
        if grows or job.phase in (Phase.COMPLETED, Phase.FAILED):
            self._check_ports(job.name, job.config, job.config.numprocesses, {})

    def _check_ports(
        self,
        name: JobName,
        config: JobConfig,
        count: int,
        starting: Mapping[JobName, tuple[JobConfig, int]] | None = None,
    ) -> None:
        """Raise PortConflict if `count` processes would get fixed ports of started jobs, or of those `starting` too.

        If `starting` is None, which is how a started job gets more processes, the ports of stopped jobs count as well.
        """
        if config.port_of(1) is None:
            return
        others = {job.name: (job.config, job.target) for job in self._jobs if job.active or starting is None}
        others |= starting or {}
        others.pop(name, None)
        found = conflict(
            config,
            count + config.surge,
            (
                (str(other) if other.session == name.session else "another application", each, number + each.surge)
                for other, (each, number) in others.items()
            ),
        )
        if found is not None:
            raise PortConflict(None, None, found.message, hint=found.hint, path=found.path)
