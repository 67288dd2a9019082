"""Processes as commands name them: by Gaffer's pid, by `JOB.SLOT` as in `ps`, or by their job if it has only one."""

from typing import NamedTuple

from gaffer.jobs.names import parse_pid, split_job_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.jobnames import chosen_job, suggesting
from gaffer_client.cli.parse import Arguments
from gaffer_client.jobs import Job
from gaffer_client.node import Server
from gaffer_client.processes import Process


class Target(NamedTuple):
    """A process, and one of its streams if it was named."""

    process: Process
    stream: str | None = None


def names_process(word: str) -> bool:
    """Return whether `word` names a process itself, not a job: `PID`, `PID.STREAM` or `JOB.SLOT`."""
    return parse_pid(word.partition(".")[0]) is not None or split_slot(word)[1] is not None


def split_slot(word: str) -> tuple[str, int | None]:
    """Return the job and the slot of `JOB.SLOT`, or `word` and None."""
    name, _, last = word.rpartition(".")
    is_slot = name and last.isascii() and last.isdecimal() and len(last) < 7
    return (name, int(last)) if is_slot else (word, None)


def chosen_process(context: Context, args: Arguments, server: Server, word: str) -> Target:
    """Return the process that `word` names: `PID`, `PID.STREAM`, `[SESSION.]JOB.SLOT` or `[SESSION.]JOB`."""
    first, dot, stream = word.partition(".")
    if (pid := parse_pid(first)) is not None:
        return Target(Process(server, pid), stream if dot else None)
    name, slot = split_slot(word)
    return Target(process_of(context, chosen_job(context, args, server, name), slot))


def process_of(context: Context, job: Job, slot: int | None) -> Process:
    """Return the process of a job in a slot, or its only one; raise CommandFailed if there is none, or several."""
    with suggesting(job):
        running = {each.get("slot", 0): each["pid"] for each in job.info()["instances"] if each["pid"] is not None}
    if slot is not None:
        if slot in running:
            return Process(job.server, running[slot])
        raise CommandFailed(
            f"{job.name} has no process in slot {slot}",
            hint=f"running slots: {', '.join(map(str, running))}" if running else f"{job.name} has no processes",
            status=Exit.NOT_FOUND,
        )
    if not running:
        raise CommandFailed(f"{job.name} has no processes", hint=f"`{context.program.name} ps` shows why")
    if len(running) > 1:
        names = ", ".join(f"{split_job_name(job.name)[1]}.{slot}" for slot in running)
        raise CommandFailed(
            f"{job.name} has {len(running)} processes", hint=f"name one of them: {names}", status=Exit.USAGE
        )
    return Process(job.server, next(iter(running.values())))
