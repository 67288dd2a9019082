"""Jobs as commands name them: `SESSION.NAME`, or `NAME` in the session of the program."""

from collections.abc import Callable, Sequence

from gaffer.jobs.names import parse_job_name, split_job_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.output import print_error
from gaffer_client.cli.parse import Arguments
from gaffer_client.errors import NotFound, StatusError
from gaffer_client.jobs import Job
from gaffer_client.node import Server


def chosen_job(context: Context, args: Arguments, server: Server, name: str) -> Job:
    """Return the job `name` on a node; raise GafferError or UsageError if the name is invalid."""
    session = split_job_name(name, "")[0] or context.program.session(args)
    return Job(server, parse_job_name(name, session))


def for_each_job(context: Context, args: Arguments, names: Sequence[str], act: Callable[[Job], object]) -> int:
    """Call `act` for one job after the other, report each failure, and return the exit status.

    Raises what `act` raises if there is only one job.
    """
    failures: list[CommandFailed | StatusError] = []
    with context.server() as server:
        for job in [chosen_job(context, args, server, name) for name in names]:
            try:
                act(job)
            except (CommandFailed, StatusError) as error:
                if len(names) == 1:
                    raise
                failures.append(error)
                print_error(context.program.name, error.message, error.hint)
    if not failures:
        return Exit.OK
    if len(failures) < len(names):
        return Exit.PARTIAL
    return Exit.NOT_FOUND if all(isinstance(failure, NotFound) for failure in failures) else Exit.FAILED
