"""`gaffer ps` and `gaffer scale`: the processes of an application on a node."""

import re
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gaffer.jobs.names import parse_job_name, split_job_name
from gaffer_client.cli.checking import checked_on_failure, items
from gaffer_client.cli.commands.apps import no_application
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import suggesting
from gaffer_client.cli.output import (
    BLOCK_COLOURS,
    cause_of,
    clock,
    coloured,
    ending,
    moment,
    print_error,
    print_json,
    printable,
)
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.places import app_name
from gaffer_client.cli.table import Command
from gaffer_client.errors import NotFound, StatusError
from gaffer_client.jobs import Job
from gaffer_client.naming import drift_lines, in_state, job_state
from gaffer_client.progress import retry_text, rollout_text
from gaffer_client.transport import path_of

if TYPE_CHECKING:
    from gaffer.schemas.views import ExitInfo, Instance, JobView
    from gaffer_client.documents import ListedJob

_NEGATIVE = re.compile(r"=\s*-")
_SPEC = re.compile(r"(?P<type>[^=]+)(?P<change>[=+-][0-9]+)")


def ps(context: Context, args: Arguments) -> int:
    session = app_name(args, args.text("<name>"))
    with context.server() as server:
        try:
            document = server.transport.read(path_of("jobs", session), query={"view": "stats"})
        except NotFound:
            raise no_application(server, session) from None
    if context.json:
        print_json(document)
        return Exit.OK
    with checked_on_failure(server.transport, document, "JobListing"):
        blocks = [_block(job) for job in items(document, "jobs")]
    for index, block in enumerate(blocks):
        print(coloured(block, BLOCK_COLOURS[index % len(BLOCK_COLOURS)], sys.stdout))
    return Exit.OK


def _block(info: "ListedJob") -> str:
    config, stats = info["config"], info["stats"]
    name = split_job_name(info["name"])[1]
    command = " ".join([str(config.get("cmd", "")), *map(shlex.quote, map(str, config.get("args") or ()))])
    lines = [
        printable(f"=== {name}: `{command}`"),
        f"Total CPU: {_number(stats['cpu'], 6)} Total MEM: {_number(stats['mem'], 2)}",
        "",
    ]
    for instance in info["instances"]:
        if instance["pid"] is not None:
            lines.append(_process(name, instance))
        elif str(instance["state"]) != str(info["state"]) and info["state"] != "stopped":
            lines.append(printable(f"{_label(name, instance)}: {in_state(instance['state'])}"))
    if info.get("restarts"):
        lines.append(printable(f"Restarts: {info['restarts']}{_last_exit(info.get('last_exit'))}"))
    lines += [printable(line) for line in _story(name, info)]
    return "\n".join(lines)


def _story(name: str, info: "JobView") -> Iterator[str]:
    """Yield what happens to the job besides its processes: its runs, its rollout, and its state unless it just runs."""
    if last_run := info.get("last_run"):
        yield f"Last run: {moment(last_run)}"
    if (next_run := info.get("next_run")) and info["state"] != "waiting":  # else it is the reason
        yield f"Next run: {moment(next_run)}"
    if rollout := rollout_text(info.get("rollout")):
        yield rollout[0].upper() + rollout[1:]
    yield from drift_lines(info)
    # The lines of the processes show the errors of probes.
    probed = info["state"] in ("starting", "running") and any(each.get("probe_error") for each in info["instances"])
    reason = None if probed else info["reason"]
    retry = retry_text(info)
    if info["state"] != "running" or reason or retry:
        yield f"{name} is {job_state(info['state'], reason)}{f'; {retry}' if retry else ''}"


def _process(name: str, instance: "Instance") -> str:
    """Return the line of a process, with its state and the last error of its probes."""
    numbers = {"pid": instance["pid"], "os pid": instance["os_pid"], "port": instance.get("port")}
    shown = "".join(f", {key} {number}" for key, number in numbers.items() if number is not None)
    error = f": {instance['probe_error']}" if instance.get("probe_error") else ""
    up = f"up for {clock(instance.get('uptime') or 0)}"
    return printable(f"{_label(name, instance)}: {up}{shown}, {instance['state']}{error}")


def _label(name: str, instance: "Instance") -> str:
    """Return the name of a process: its slot, as in its log files; one-off processes have no slot."""
    return f"{name}.{instance['slot']}" if instance.get("slot") else f"{name} (once)"


def _last_exit(last: "ExitInfo | None") -> str:
    if last is None:
        return ""
    if last["exit_code"] is None and last["uptime"] == 0:
        return "; the last start failed"
    cause = cause_of(last["reason"])
    how = f"{ending(last['exit_code'], last['term_signal'])} after {last['uptime']:.1f} s"
    return f"; the last process ended with {how}{f': {cause}' if cause else ''}"


def _number(value: float | str, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float | int) else printable(value)


def scale(context: Context, args: Arguments) -> int:
    app, specs = changes(args)
    session = app_name(args, app)
    scaled: dict[str, dict[str, int]] = {}
    failures: list[StatusError] = []
    with context.server() as server:
        for name, change in specs:
            try:
                job = Job(server, parse_job_name(name, session))
                with suggesting(job):
                    number = job.scale(change)
            except StatusError as error:
                failures.append(error)
                from gaffer_client.cli.diagnosis import hint_at

                hint = (hint_at(server.url, "node") if isinstance(error, NotFound) else None) or error.hint
                print_error(context.program.name, f"can't scale {name}: {error.message}", hint)
                continue
            scaled[name] = {"numprocesses": number}
            if not context.json:
                print(printable(f"Scaling {name} processes... done, {outcome(job, name, number)}"))
    if context.json:
        print_json(scaled)
    if not failures:
        return Exit.OK
    if scaled:
        return Exit.PARTIAL
    return Exit.NOT_FOUND if all(isinstance(error, NotFound) for error in failures) else Exit.FAILED


def changes(args: Arguments) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the application, if given, and the types with the changes of their numbers; raise UsageError."""
    app, words = args.text("<name>"), args.words("<spec>")
    if app is not None and ("=" in app or _SPEC.fullmatch(app)):
        words.insert(0, app)
        app = None
    specs = [_read_spec(word) for word in words]
    if not specs:
        raise UsageError("no types to scale given", hint="write type=N, type+N or type-N")
    return app, specs


def outcome(job: Job, name: str, number: int) -> str:
    """Return the effect of the new number: no processes run while a job is stopped or failed, or the node drained."""
    try:
        info = job.info()
    except StatusError:  # the key lacks the scope `read`, or the job was removed
        return f"now running {number}"
    state = f"{name} is {job_state(info['state'], info['reason'])}"
    if info["state"] == "waiting" and number:
        return f"{number} to run later: {state}"
    if info.get("disabled"):
        return f"{number} to run after `gaffer enable {info['name']}`: {state}"
    if info["state"] in ("stopped", "completed", "failed"):
        return f"{number} to run after `gafferctl start {info['name']}`: {state}"
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
        effect="read",
        on_several="fleet:ps",
        details="""
            <name> is the application (default: the name of the directory). Each process is shown with its state:
            `starting` until it is ready, with the last error of its probes, then `ready`; a job with the reason why it
            does not run or is disabled, and the progress of a rolling restart, update or rollback.
        """,
        examples=("ps", "ps shop", "ps shop --json"),
        uses=("--procfile", "--directory"),
    ),
    Command(
        "scale",
        "Change the number of processes",
        scale,
        "node",
        "[<name>] [<spec>...]",
        effect="write",
        on_several="fleet:scale",
        aliases=("ps:scale",),
        details="""
            Each <spec> sets or changes the number of processes of a type: `web=3`, `web+2`, `web-1`. <name> is the
            application (default: the name of the directory). Use SESSION.TYPE for a type of another application.
        """,
        examples=("scale web=3", "scale web+1 worker-1", "scale shop web=3"),
        uses=("--procfile", "--directory"),
    ),
)
