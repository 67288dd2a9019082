"""`gaffer ps` and `gaffer scale`: the processes of an application on a node."""

import re
import shlex
import sys
from typing import TYPE_CHECKING

from gaffer.jobs.names import parse_job_name, split_job_name
from gaffer.schemas.stats import JobStats
from gaffer_client.cli.commands.apps import jobs_of
from gaffer_client.cli.config import Context
from gaffer_client.cli.diagnosis import hint_at
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import BLOCK_COLOURS, clock, coloured, ending, print_error, print_json, printable
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.procfile_app import app_name
from gaffer_client.cli.table import Command
from gaffer_client.errors import NotFound, StatusError
from gaffer_client.jobs import Job
from gaffer_client.naming import in_state

if TYPE_CHECKING:
    from gaffer.schemas.responses import ExitInfo, Instance, JobInfo

_NEGATIVE = re.compile(r"=\s*-")
_SPEC = re.compile(r"(?P<type>[^=]+)(?P<change>[=+-][0-9]+)")


def ps(context: Context, args: Arguments) -> int:
    session = app_name(args, args.text("<name>"))
    found: list[tuple[JobInfo, JobStats]] = []
    with context.server() as server:
        for name in jobs_of(server, session):
            job = Job(server, name)
            try:
                found.append((job.info(), job.stats()))
            except NotFound:  # unloaded in the meantime
                continue
    if context.json:
        print_json({"sessionid": session, "jobs": [{**info, "stats": stats} for info, stats in found]})
        return Exit.OK
    for index, (info, stats) in enumerate(found):
        colour = BLOCK_COLOURS[index % len(BLOCK_COLOURS)]
        print(coloured(_block(info, stats), colour, sys.stdout))
    return Exit.OK


def _block(info: "JobInfo", stats: JobStats) -> str:
    config = info["config"]
    name = split_job_name(info["name"])[1]
    command = " ".join([str(config.get("cmd", "")), *map(shlex.quote, map(str, config.get("args") or ()))])
    lines = [
        printable(f"=== {name}: `{command}`"),
        f"Total CPU: {_number(stats['cpu'], 6)} Total MEM: {_number(stats['mem'], 2)}",
        "",
    ]
    lines += [_process(name, instance) for instance in info["instances"] if instance["pid"] is not None]
    if info.get("restarts"):
        lines.append(printable(f"Restarts: {info['restarts']}{_last_exit(info.get('last_exit'))}"))
    if info["state"] != "running" or info["reason"]:
        lines.append(printable(_state(name, info)))
    return "\n".join(lines)


def _process(name: str, instance: "Instance") -> str:
    """Return the line of a process, named by its slot as its log files are; one-off processes have no slot."""
    label = f"{name}.{instance['slot']}" if instance.get("slot") else f"{name} (once)"
    numbers = {"pid": instance["pid"], "os pid": instance["os_pid"], "port": instance.get("port")}
    shown = "".join(f", {key} {number}" for key, number in numbers.items() if number is not None)
    return printable(f"{label}: up for {clock(instance.get('uptime') or 0)}{shown}")


def _last_exit(last: "ExitInfo | None") -> str:
    if last is None:
        return ""
    if last["exit_code"] is None and last["uptime"] == 0:
        return "; the last start failed"
    return (
        f"; the last process ended with {ending(last['exit_code'], last['term_signal'])} after {last['uptime']:.1f} s"
    )


def _state(name: str, info: "JobInfo") -> str:
    reason = f": {info['reason']}" if info["reason"] else ""
    return f"{name} is {in_state(info['state'])}{reason}"


def _number(value: float | str, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float | int) else printable(value)


def scale(context: Context, args: Arguments) -> int:
    app, words = args.text("<name>"), args.words("<spec>")
    if app is not None and ("=" in app or _SPEC.fullmatch(app)):
        words.insert(0, app)
        app = None
    specs = [_read_spec(word) for word in words]
    if not specs:
        raise UsageError("no types to scale given", hint="write type=N, type+N or type-N")
    session = app_name(args, app)
    scaled: dict[str, dict[str, int]] = {}
    failures: list[StatusError] = []
    with context.server() as server:
        for name, change in specs:
            try:
                job = Job(server, parse_job_name(name, session))
                number = job.scale(change)
            except StatusError as error:
                failures.append(error)
                hint = (hint_at(server.url, "node") if isinstance(error, NotFound) else None) or error.hint
                print_error(context.program.name, f"can't scale {name}: {error.message}", hint)
                continue
            scaled[name] = {"numprocesses": number}
            if not context.json:
                print(printable(f"Scaling {name} processes... done, {_outcome(job, name, number)}"))
    if context.json:
        print_json(scaled)
    if not failures:
        return Exit.OK
    if scaled:
        return Exit.PARTIAL
    return Exit.NOT_FOUND if all(isinstance(error, NotFound) for error in failures) else Exit.FAILED


def _outcome(job: Job, name: str, number: int) -> str:
    """Return the effect of the new number: no processes run while a job is stopped or failed, or the node drained."""
    try:
        info = job.info()
    except StatusError:  # the key lacks the scope `read`, or the job was removed
        return f"now running {number}"
    if info["state"] == "waiting":
        return f"{number} to run later: {_state(name, info)}"
    if info["state"] in ("stopped", "completed", "failed"):
        return f"{number} to run after `gafferctl start {info['name']}`: {_state(name, info)}"
    return f"now running {number}"


def _read_spec(word: str) -> tuple[str, str]:
    """Return the type and the change as it is sent to the node: `=3`, `+2`, `-1`."""
    match = _SPEC.fullmatch(word)
    if match is None:
        hint = "use 0 or more" if _NEGATIVE.search(word) else "write type=N, type+N or type-N"
        raise UsageError(f"{word!r} is not a valid change of the number of processes", hint=hint)
    return match["type"], match["change"]


COMMANDS = (
    Command(
        "ps",
        "Show the processes of an application",
        ps,
        "node",
        "[<name>]",
        details="<name> is the application (default: the name of the directory).",
        examples=("ps", "ps shop", "ps shop --json"),
        uses=("--procfile", "--directory"),
    ),
    Command(
        "scale",
        "Change the number of processes",
        scale,
        "node",
        "[<name>] [<spec>...]",
        aliases=("ps:scale",),
        details="""
            Each <spec> sets or changes the number of processes of a type: `web=3`, `web+2`, `web-1`. <name> is the
            application (default: the name of the directory). Use SESSION.TYPE for a type of another application.
        """,
        examples=("scale web=3", "scale web+1 worker-1", "scale shop web=3"),
        uses=("--procfile", "--directory"),
    ),
)
