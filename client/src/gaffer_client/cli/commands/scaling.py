"""`gaffer ps` and `gaffer scale`: the jobs of an application on a node, and their numbers of processes."""

import re
import shlex
import sys

from gaffer.names import parse_job_name, split_job_name
from gaffer_client.answers import JobInfo, JobStats
from gaffer_client.cli.commands.apps import jobs_of
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import BLOCK_COLOURS, clock, coloured, print_error, print_json, printable
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.procfile_app import app_name
from gaffer_client.cli.table import Command
from gaffer_client.errors import NotFound, StatusError
from gaffer_client.jobs import Job

_SPEC = re.compile(r"(?P<type>.+)(?P<change>[=+-][0-9]+)")


def ps(context: Context, args: Arguments) -> int:
    session = app_name(args, args.text("<name>"))
    found: list[tuple[JobInfo, JobStats]] = []
    with context.server() as server:
        for name in jobs_of(server, session):
            job = Job(server, name)
            try:
                found.append((job.info(), job.stats()))
            except NotFound:  # unloaded meanwhile
                continue
    if context.json:
        print_json({"sessionid": session, "jobs": [{**info, "stats": stats} for info, stats in found]})
        return Exit.OK
    for index, (info, stats) in enumerate(found):
        colour = BLOCK_COLOURS[index % len(BLOCK_COLOURS)]
        print(coloured(_block(info, stats), colour, sys.stdout))
    return Exit.OK


def _block(info: JobInfo, stats: JobStats) -> str:
    config = info["config"]
    name = split_job_name(info["name"])[1]
    command = " ".join([str(config.get("cmd", "")), *map(shlex.quote, map(str, config.get("args") or ()))])
    lines = [
        printable(f"=== {name}: `{command}`"),
        f"Total CPU: {_number(stats['cpu'], 6)} Total MEM: {_number(stats['mem'], 2)}",
        "",
    ]
    lines += [
        f"{printable(name)}.{instance['pid']}: up for {clock(instance.get('uptime') or 0)}"
        for instance in info["instances"]
        if instance["pid"] is not None
    ]
    if info["state"] != "running":
        reason = f": {info['reason']}" if info["reason"] else ""
        lines.append(printable(f"{name} is {info['state']}{reason}"))
    return "\n".join(lines)


def _number(value: float | str, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float | int) else printable(value)


def scale(context: Context, args: Arguments) -> int:
    app, words = args.text("<name>"), args.words("<spec>")
    if app is not None and ("=" in app or _SPEC.fullmatch(app)):
        words.insert(0, app)
        app = None
    specs = [_read_spec(word) for word in words]
    if not specs:
        raise UsageError("nothing to scale", hint="write type=N, type+N or type-N")
    session = app_name(args, app)
    scaled: dict[str, dict[str, int]] = {}
    failures: list[StatusError] = []
    with context.server() as server:
        for name, change in specs:
            try:
                number = Job(server, parse_job_name(name, session)).scale(change)
            except StatusError as error:
                failures.append(error)
                print_error(context.program.name, f"can't scale {name}: {error.message}", error.hint)
                continue
            scaled[name] = {"numprocesses": number}
            if not context.json:
                print(printable(f"Scaling {name} processes... done, now running {number}"))
    if context.json:
        print_json(scaled)
    if not failures:
        return Exit.OK
    if scaled:
        return Exit.PARTIAL
    return Exit.NOT_FOUND if all(isinstance(error, NotFound) for error in failures) else Exit.FAILED


def _read_spec(word: str) -> tuple[str, str]:
    """The type, and the change as it is sent: `=3`, `+2`, `-1`."""
    match = _SPEC.fullmatch(word)
    if match is None:
        raise UsageError(f"{word!r} says no number", hint="write type=N, type+N or type-N")
    return match["type"], match["change"]


COMMANDS = (
    Command(
        "ps",
        "Show the processes of an application",
        ps,
        "node",
        "[<name>]",
        details="<name> is the application, by default the name of the folder.",
    ),
    Command(
        "scale",
        "Change the numbers of processes",
        scale,
        "node",
        "[<name>] [<spec>...]",
        aliases=("ps:scale",),
        details="""
            Each <spec> sets or changes the number of a type's processes: `web=3`, `web+2`, `web-1`. <name> is the
            application, by default the name of the folder; a type of another one is SESSION.TYPE.
        """,
    ),
)
