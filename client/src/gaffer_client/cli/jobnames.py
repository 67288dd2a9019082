"""Jobs as commands name them: `SESSION.NAME`, or `NAME` in the session of the program."""

from gaffer.jobs.names import parse_job_name, split_job_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.jobs import Job
from gaffer_client.node import Server


def chosen_job(context: Context, args: Arguments, server: Server, name: str) -> Job:
    """Return the job `name` on a node; raise GafferError or UsageError if the name is invalid."""
    session = split_job_name(name, "")[0] or context.program.session(args)
    return Job(server, parse_job_name(name, session))
