"""What a job that comes after others waits for. Pure."""

from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.ordering import Condition
from gaffer.jobs.states import Phase

_VERBS = {Condition.READY: "be ready", Condition.STARTED: "start", Condition.COMPLETED: "complete"}


def obstacle(name: JobName, job: Job | None, condition: Condition) -> str | None:
    """Return why `job`, whose name is `name`, does not meet `condition`; None if it does."""
    if job is None:
        return f"waiting for {name.display}, which does not exist: load it"
    if is_met(job, condition):
        return None
    wanted = condition if condition in (Condition.STARTED, Condition.COMPLETED) else Condition.READY
    if wanted is Condition.COMPLETED and not job.config.runs_once and job.config.restart_policy == "always":
        return f"waiting for {name.display} to complete, which never happens: set its kind to once"
    if wanted is not Condition.STARTED and job.config.scheduled:
        return (
            f"waiting for {name.display} to {_VERBS[wanted]}, which never happens: a schedule runs it again and again"
        )
    if job.phase is Phase.FAILED:
        return f"waiting for {name.display}, which has failed" + (f": {job.reason}" if job.reason else "")
    if job.disabled:
        return f"waiting for {name.display}, which is {job.disabled}"
    if not job.active:
        return f"waiting for {name.display}, which is stopped: start it"
    if job.target == 0:
        return f"waiting for {name.display}, which has no processes: scale it up"
    return f"waiting for {name.display} to {_VERBS[wanted]}: it is {job.state}" + (
        f" ({job.reason})" if job.reason else ""
    )


def is_met(job: Job, condition: Condition) -> bool:
    """Whether `job` is as `condition` wants it."""
    if job.phase is Phase.COMPLETED:
        return True
    match condition:
        case Condition.COMPLETED:
            return False
        case _ if job.awaits_connection:
            return True
        case Condition.STARTED:
            return job.all_started
        case _:
            return not job.config.runs_once and job.all_ready
