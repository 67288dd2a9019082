"""`exits` and `history` of several nodes, merged by time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gaffer_client.cli.commands.audit import chosen_name, chosen_part, read_history, show_entries
from gaffer_client.cli.commands.fleet import gather, named_jobs
from gaffer_client.cli.commands.history import show_exits
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.members import ALL_JOBS, Target
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.jobs import Job
from gaffer_client.node import Server

if TYPE_CHECKING:
    from gaffer.schemas.history import HistoryEntry
    from gaffer.schemas.views import ExitInfo


def exits(context: Context, args: Arguments, command: Command) -> int:
    """Show how the last processes of a job ended on the chosen nodes."""

    def ask(server: Server, target: Target) -> "dict[str, list[ExitInfo]]":
        return {name: Job(server, name).exits() for name in target.jobs}

    status, found = gather(context, args, named_jobs(args), "exits", ask)
    merged = [
        ((target.member.name, name), each) for target, jobs in found for name, ended in jobs.items() for each in ended
    ]
    if merged:
        show_exits(args, sorted(merged, key=_when, reverse=True), ("NODE", "JOB"))
    elif status == Exit.OK and not context.json:
        print("No process has ended.")
    return status


def history(context: Context, args: Arguments, command: Command) -> int:
    """Show what was changed on the chosen nodes, and what happened to their jobs."""
    limit, since = chosen_part(args)
    job = chosen_name(context, args)

    def ask(server: Server, target: Target) -> "Sequence[HistoryEntry]":
        return read_history(server, job, since, limit)["entries"]

    status, found = gather(context, args, [ALL_JOBS], "entries", ask)  # also of nodes that have the job no more
    merged = [((target.member.name,), entry) for target, entries in found for entry in entries]
    if merged:
        show_entries(sorted(merged, key=lambda each: each[1]["at"], reverse=True)[:limit], ("NODE",))
    elif status == Exit.OK and not context.json:
        print("Nothing was recorded.")
    return status


def _when(found: "tuple[Sequence[str], ExitInfo]") -> float:
    return found[1].get("at") or 0.0
