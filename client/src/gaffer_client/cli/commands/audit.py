"""`history`: who changed what on a node, and what happened to its jobs."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gaffer.jobs.names import parse_job_name
from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import ALL_JOBS, qualified
from gaffer_client.cli.output import moment, print_json, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.since import parse_age, parse_time
from gaffer_client.cli.table import Command
from gaffer_client.node import Server

if TYPE_CHECKING:
    from gaffer.schemas.history import HistoryEntry, HistoryPage

_DEFAULT_LIMIT = 20
_PAGE = 1000  # entries that a node returns at once
_HEADINGS = ("WHAT", "JOB", "CALLER", "ADDRESS", "RESULT", "DETAILS")


def history(context: Context, args: Arguments) -> int:
    limit, since = chosen_part(args)
    with context.server() as server:
        page = read_history(server, chosen_name(context, args), since, limit)
    if context.json:
        print_json(page)
    elif page["entries"]:
        show_entries([((), entry) for entry in page["entries"]])
    else:
        print("Nothing was recorded.")
    return Exit.OK


def chosen_part(args: Arguments) -> tuple[int, float | None]:
    """Return how many entries to show, and since when; raise UsageError."""
    return _limit(args.text("--limit")), _since(args.text("--since"))


def show_entries(entries: "Sequence[tuple[Sequence[str], HistoryEntry]]", origin: Sequence[str] = ()) -> None:
    """Print entries as a table, each with columns that say where it happened, whose headings are `origin`."""
    print(table(("WHEN", *origin, *_HEADINGS), [_row(where, entry) for where, entry in entries]))


def read_history(server: Server, job: str | None, since: float | None, limit: int) -> "HistoryPage":
    page = server.history(job, since=since, limit=min(limit, _PAGE))
    while page["next"] is not None and len(page["entries"]) < limit:
        left = limit - len(page["entries"])
        older = server.history(job, since=since, limit=min(left, _PAGE), before=page["next"])
        page = {"entries": [*page["entries"], *older["entries"]], "next": older["next"]}
    return page


def chosen_name(context: Context, args: Arguments) -> str | None:
    """Return the job or session that is chosen, or None for all; raise GafferError if its name is invalid."""
    name = args.text("<job>")
    if name is None:
        return None
    if name.endswith(ALL_JOBS):
        session = name.removesuffix(ALL_JOBS)
        return parse_job_name("job", session).session
    return str(qualified(context, args, name))


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 10**6):
        raise UsageError(f"invalid value --limit={text}", hint="use a number from 1 to 1000000")
    return int(text)


def _since(text: str | None) -> float | None:
    if text is None:
        return None
    age = parse_age(text)
    return parse_time(text) if age is None else max(0.0, time.time() - age)


def _row(where: Sequence[str], entry: "HistoryEntry") -> tuple[object, ...]:
    return (
        moment(entry["at"]),
        *where,
        " ".join(_what(entry)),
        entry["job"] or (f"{entry['session']}{ALL_JOBS}" if entry["session"] else "-"),
        entry["caller"] or "-",
        entry["address"] or "-",
        result_text(entry["outcome"], entry["error"], entry["count"]),
        " ".join(entry_details(entry["pid"], entry["details"])),
    )


def result_text(outcome: str, error: str | None, count: int) -> str:
    """Return how something ended, and how often: `refused (forbidden) x3`."""
    result = outcome if error is None else f"{outcome} ({error})"
    return result if count == 1 else f"{result} x{count}"


def _what(entry: "HistoryEntry") -> Iterator[str]:
    if entry["kind"] in ("command", "node"):
        yield "gafferd" if entry["kind"] == "node" else "command"
    yield entry["action"]
    if entry["route"] is not None and entry["kind"] != "command":
        yield entry["route"]


def entry_details(pid: int | None, details: Mapping[str, object]) -> Iterator[str]:
    """Yield the details of an entry as `name=value`."""
    if pid is not None:
        yield f"pid={pid}"
    for name, value in sorted(details.items()):
        if value is None or value == []:
            continue
        if name == "until" and isinstance(value, int | float):
            value = moment(value)
        elif name == "scale" and isinstance(value, str):
            value = value.removeprefix("=")  # scale=3, next to scale=+1
        elif isinstance(value, list):
            value = ",".join(map(str, value))
        yield f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def commands(job_help: str) -> tuple[Command, ...]:
    """Return the commands for a program; `job_help` says which jobs <job> can be."""
    return (
        Command(
            "history",
            "Show who changed what on a node, and what happened to its jobs",
            history,
            "node",
            "[<job>]",
            effect="read",
            on_several="fleet_records:history",
            scope="control",
            options=(
                Option("--since=TIME", "only entries since then: a duration such as 30m or 2h, or 2026-01-31T06:00"),
                Option("--limit=N", f"show at most N entries (default: {_DEFAULT_LIMIT})"),
            ),
            details=f"""
                {job_help} SESSION.* means all jobs of a session; without a job, everything is shown. Lists calls that
                change something, also refused and failed ones, reloads, starts and stops of the daemon, and failures,
                rollouts and the like of jobs, newest first, also of several nodes. xN stands for N similar calls.
                Requires the scope `control`.
            """,
            examples=("history shop.web", "history --since=2h --limit=100"),
            uses=("--procfile", "--directory"),
        ),
    )
