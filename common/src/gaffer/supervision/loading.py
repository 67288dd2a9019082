"""Loading jobs with all that is left of their predecessors: what is desired of them, processes, exits."""

import time
from collections.abc import Iterable, Mapping

from msgspec import structs

from gaffer.jobs import adoption
from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.desired import Desired
from gaffer.jobs.job import Job
from gaffer.jobs.names import parse_job_name
from gaffer.jobs.recorder import Past
from gaffer.jobs.states import Phase
from gaffer.processes import procfs
from gaffer.processes.survivors import Survivor
from gaffer.supervision.executor import Executor
from gaffer.supervision.job_table import JobTable


class Loading:
    """Makes jobs of a table. The manager's lock guards it.

    `past` is that of the jobs by qualified name; each gets its own when it is loaded, until `end_unclaimed`.
    """

    def __init__(self, jobs: JobTable, executor: Executor, past: Mapping[str, Past]) -> None:
        self._jobs = jobs
        self._executor = executor
        self._past = dict(past)

    def add(self, desired: Desired, *, drained: bool) -> None:
        """Load a job; `drained` is the state of the node."""
        job = Job(desired.name, desired.config, self._jobs.next_pid, drained=drained)
        desired.apply_to(job)
        past = self._past.pop(str(job.name), Past())
        survivors = self._jobs.adopt(job.name)
        pids = {each.record.pid for each in survivors}
        job.last_run, job.armed_at = past.last_run, past.armed_at
        # The exit of a survivor may be known already, while what follows from it was not stored.
        again = [each.restarts for each in past.exits if each.pid in pids and each.restarts is not None]
        job.restarts = max([min([past.restarts, *again]), *(each.record.restarts for each in survivors)])
        job.exits.extend(each for each in past.exits if each.pid not in pids)
        self._jobs.add(job)
        self._executor.publish(job, "create", **adoption.mark(bool(survivors)))
        if self._jobs.is_leaving(job.name):
            self._executor.submit(job, ev.NameFreed(False))
        disabling = desired.disabling(time.time())
        if disabling is not None:
            self._executor.submit(job, disabling)
        newest = _newest(survivors)
        for each in survivors:  # oldest first: in this order those that have exited are listed
            self._adopt(job, each, newest)
            # A committed process runs whether its job does or not.
            if desired.phase is not Phase.STARTED and each.record.slot and not each.exited:
                self._executor.submit(job, ev.ProcessStopRequested(each.record.pid))
        if desired.phase is Phase.STARTED:
            failures = past.failures if past.failures and past.failures.definition == job.config.launch_digest else None
            self._executor.submit(job, ev.StartRequested(desired.target, failures))

    def _adopt(self, job: Job, survivor: Survivor, newest: Mapping[int, int]) -> None:
        record = survivor.record
        replaced = newest[record.slot] != record.pid
        self._executor.expect(survivor)
        self._executor.submit(job, ev.Adopted(record.pid, record, _age(survivor), survivor.exited, replaced))

    def end_unclaimed(self) -> list[str]:
        """End the survivors that no job has adopted, but for detached ones; return the names of their jobs.

        Jobs that are loaded from now on are new, and have no past.
        """
        self._past.clear()
        names = sorted(self._jobs.unclaimed())
        for name in names:
            parsed = parse_job_name(name)
            survivors = self._jobs.adopt(parsed)
            timeout = max(each.record.graceful_timeout for each in survivors)
            config = JobConfig(parsed.name, "unknown", graceful_timeout=timeout, numprocesses=0)
            job = Job(parsed, config, self._jobs.next_pid)
            self._jobs.add_leaving(job)
            newest = _newest(survivors)
            for each in survivors:
                # It is stopped because of the job, not because of its definition.
                self._adopt(job, structs.replace(each, record=structs.replace(each.record, definition="")), newest)
            self._executor.submit(job, ev.Unloaded())
        return names


def _newest(survivors: Iterable[Survivor]) -> dict[int, int]:
    """Return the pid of the newest survivor in each slot, given the oldest first."""
    return {each.record.slot: each.record.pid for each in survivors}


def _age(survivor: Survivor) -> float:
    """Return how many seconds ago a process was started."""
    record = survivor.record
    if record.spawned_at:
        return max(0.0, time.monotonic() - record.spawned_at)
    stat = procfs.read_stat(record.os_pid) if survivor.parent is not None else None
    return procfs.age(stat.start_time if stat is not None else record.start_time)
