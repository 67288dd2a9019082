"""Jobs as commands name them: `SESSION.NAME`, `SESSION.*`, or `NAME` in the session of the program."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gaffer.errors import did_you_mean
from gaffer.jobs.names import JobName, parse_job_name, split_job_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.output import print_error
from gaffer_client.cli.parse import Arguments
from gaffer_client.errors import NotFound, StatusError
from gaffer_client.jobs import Job
from gaffer_client.node import Server

ALL_JOBS = ".*"


def qualified(context: Context, args: Arguments, name: str) -> JobName:
    """Return the name of a job with its session; raise GafferError or UsageError if it is invalid."""
    return parse_job_name(name, split_job_name(name, "")[0] or context.program.session(args))


def chosen_job(context: Context, args: Arguments, server: Server, name: str) -> Job:
    """Return the job `name` on a node; raise GafferError or UsageError if the name is invalid."""
    return Job(server, qualified(context, args, name))


def chosen_jobs(context: Context, args: Arguments, server: Server, names: Sequence[str]) -> list[Job]:
    """Return the jobs `names` on a node; `SESSION.*` are all jobs of a session, which has to exist."""
    jobs = []
    for name in names:
        if not name.endswith(ALL_JOBS):
            jobs.append(chosen_job(context, args, server, name))
            continue
        session = parse_job_name("job", name.removesuffix(ALL_JOBS)).session
        try:
            jobs += [Job(server, each) for each in server.jobs(session)]
        except NotFound as error:
            error.hint = did_you_mean(session, server.sessions()) or error.hint
            raise
    return jobs


@contextmanager
def suggesting(*jobs: Job) -> Iterator[None]:
    """Add the job that was perhaps meant to NotFound, if that is about one of these jobs of a node."""
    try:
        yield
    except NotFound as error:
        known = jobs[0].server.jobs() if jobs else []
        missing = next((job.name for job in jobs if job.name not in known), None)
        error.hint = (did_you_mean(missing, known) if missing else None) or error.hint
        raise


def for_each_job(context: Context, args: Arguments, names: Sequence[str], act: Callable[[Job], object]) -> int:
    """Call `act` for one job after the other, report each failure, and return the exit status.

    Raises what `act` raises if there is only one job.
    """
    failures: list[CommandFailed | StatusError] = []
    with context.server() as server:
        jobs = chosen_jobs(context, args, server, names)
        for job in jobs:
            try:
                with suggesting(job):
                    act(job)
            except (CommandFailed, StatusError) as error:
                if len(jobs) == 1:
                    raise
                failures.append(error)
                print_error(context.program.name, error.message, error.hint)
    if not failures:
        return Exit.OK
    if len(failures) < len(jobs):
        return Exit.PARTIAL
    return Exit.NOT_FOUND if all(isinstance(failure, NotFound) for failure in failures) else Exit.FAILED
