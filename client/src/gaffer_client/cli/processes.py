"""Processes as commands name them: by Gaffer's pid, by `JOB.SLOT` as in `ps`, or by their job if it has only one."""

from typing import NamedTuple

from gaffer.jobs.names import parse_pid, split_job_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.jobnames import chosen_job, suggesting
from gaffer_client.cli.parse import Arguments
from gaffer_client.node import Server
from gaffer_client.processes import Process


class Target(NamedTuple):
    """A process, and one of its streams if it was named."""

    process: Process
    stream: str | None = None


def chosen_process(context: Context, args: Arguments, server: Server, word: str) -> Target:
    """Return the process that `word` names: `PID`, `PID.STREAM`, `[SESSION.]JOB.SLOT` or `[SESSION.]JOB`."""
    first, dot, stream = word.partition(".")
    if (pid := parse_pid(first)) is not None:
        return Target(Process(server, pid), stream if dot else None)
    name, dot, last = word.rpartition(".")
    slot = int(last) if dot and name and last.isascii() and last.isdecimal() and len(last) < 7 else None
    job = chosen_job(context, args, server, word if slot is None else name)
    with suggesting(job):
        running = {each.get("slot", 0): each["pid"] for each in job.info()["instances"] if each["pid"] is not None}
    if slot is not None:
        if slot in running:
            return Target(Process(server, running[slot]))
        raise CommandFailed(
            f"{job.name} has no process in slot {slot}",
            hint=f"running slots: {', '.join(map(str, running))}" if running else f"{job.name} has no processes",
            status=Exit.NOT_FOUND,
        )
    if not running:
        raise CommandFailed(f"{job.name} has no processes", hint=f"`{context.program.name} ps` shows why")
    if len(running) > 1:
        names = ", ".join(f"{split_job_name(job.name)[1]}.{slot}" for slot in running)
        raise UsageError(f"{job.name} has {len(running)} processes", hint=f"name one of them: {names}")
    return Target(Process(server, next(iter(running.values()))))
