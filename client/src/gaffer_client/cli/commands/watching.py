"""`gafferctl watch` and `gaffer events`: live events of a node."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import chosen_job
from gaffer_client.cli.output import Palette, cause_of, ending, moment, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError
from gaffer_client.node import DEFAULT_HEARTBEAT, Server
from gaffer_client.progress import ROLLOUTS

if TYPE_CHECKING:
    from gaffer_client.eventsource import Received

_JOBS = "proc"  # the prefix of the events of jobs


def watch(context: Context, args: Arguments) -> int:
    with context.server() as server:
        return _follow(context, args, server, args.text("<pattern>") or ".", lambda event, name: f"{event} {name}")


def events(context: Context, args: Arguments) -> int:
    name = args.text("<job>")
    with context.server() as server:
        pattern = _JOBS if name is None else f"{_JOBS}.{chosen_job(context, args, server, name).display_name}"
        return _follow(context, args, server, pattern, lambda event, _name: kind_of(event))


def _follow(context: Context, args: Arguments, server: Server, pattern: str, title: Callable[[str, str], str]) -> int:
    """Show the events that match a pattern, each with its `title`, made of its event and the name of its job."""
    palette = Palette(sys.stdout, always=args.flag("--colorize"), never=args.flag("--no-color"))
    watcher = server.get_watcher(
        pattern,
        heartbeat=heartbeat(args.text("--heartbeat")),
        on_lost=lambda error: _warn_lost(server.url, error),
    )
    for received in watcher.events():
        event, message, _ = received
        if event == "gap":
            warn(gap_text(received))
        elif context.json:
            print_json_line(message)
        else:
            name = str(message.get("name", "-"))
            words = details(kind_of(event), message)
            how = f" ({words})" if words else ""
            line = f"{time.strftime('%H:%M:%S')} {name} | {title(event, name)}{how}"
            print(palette.paint(name, printable(line)), flush=True)
    return Exit.OK


def gap_text(gap: "Received") -> str:
    """Return in words what an event `gap` reports."""
    lost = gap.lost
    if lost is None and not gap.id:
        return "an unknown number of events may be missing: none had arrived yet, to resume after"
    if lost is None:
        return "the node was restarted: its events begin anew, and an unknown number of them may be missing"
    return f"{lost} event{' was' if lost == 1 else 's were'} lost: they were read too slowly, or are no longer kept"


def kind_of(event: str) -> str:
    """Return the last part of the name of an event: `exit` of `proc.web.exit`."""
    return event.rpartition(".")[2]


def details(kind: str, message: Mapping[str, Any]) -> str:
    """Return in words what an event of this kind reports; empty if its name says it all."""
    found = {"pid": "-", "rollout": "-", "processes": "?", "replaced": "?", **message}
    rollout = ROLLOUTS.get(found["rollout"], found["rollout"])
    match kind:
        case "exit":
            how, cause = ending(found.get("exit_code"), found.get("term_signal")), cause_of(found.get("reason"))
            return f"{how}, {cause}" if cause else how
        case "ready":
            return f"process {found['pid']}"
        case "not_ready" | "not_live":
            return f"process {found['pid']}: {found.get('error') or 'no reason given'}"
        case "rollout":
            return f"{rollout} of {_processes(found['processes'])}"
        case "rollout_done":
            return f"{rollout}: {_processes(found['replaced'])} replaced"
        case "rollout_failed":
            return f"{rollout} stopped: {found.get('reason') or 'no reason given'}"
        case "disabled" if isinstance(found.get("until"), int | float):
            return f"until {moment(found['until'])}: {found.get('reason')}"
        case "run_ended":
            return "succeeded" if found.get("success") else "failed"
        case "limit" | "start_failed":
            return f"process {found['pid']}: {found.get('message') or found.get('reason') or 'no reason given'}"
        case "action":
            return f"{found.get('action')} {str(found.get('outcome')).replace('_', ' ')}"
        case _:
            return str(found.get("reason") or "")


def _processes(number: object) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"


def _warn_lost(url: str, error: GafferClientError | None) -> None:
    why = error.message if error is not None else f"{url} closed the event stream"
    warn(f"{why}; reconnecting")


def heartbeat(text: str | None) -> float:
    """Return the interval of heartbeats in seconds; raise UsageError."""
    if text is None:
        return DEFAULT_HEARTBEAT
    try:
        seconds = float("60" if text == "true" else text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86400:
        raise UsageError(f"--heartbeat: {text!r} is not a valid number of seconds", hint="use 0.1 to 86400")
    return seconds


_OPTIONS = (
    Option("--heartbeat=SECONDS", f"interval of the node's heartbeats (default: {DEFAULT_HEARTBEAT:g})"),
    Option("--colorize", "use colours even if the output is not a terminal"),
    Option("--no-color", "do not use colours"),
)

GAFFER_COMMANDS = (
    Command(
        "events",
        "Show the events of jobs on a node as they happen",
        events,
        "node",
        "[<job>]",
        effect="read",
        on_several="fleet_feeds:events",
        options=_OPTIONS,
        details="""
            Shows the events of all jobs, or those of <job>: SESSION.NAME, or the NAME of a type of the application in
            this directory. Each event is shown with its reason. A lost connection is reopened, and missed events are
            shown. Press Ctrl-C to exit.
        """,
        examples=("events", "events shop.web", "events web --json"),
        uses=("--procfile", "--directory"),
    ),
)

COMMANDS = (
    Command(
        "watch",
        "Show the events of the node as they happen",
        watch,
        "node",
        "[<pattern>]",
        effect="read",
        options=_OPTIONS,
        details="""
            <pattern> is a prefix of event names, such as `exit`, `proc.dummy` or `proc.dummy.spawn` (default: all
            events). Exits are shown with the exit code or signal, other events with their reason. A lost connection
            is reopened, and missed events are shown. Press Ctrl-C to exit.
        """,
        examples=("watch", "watch exit", "watch proc.web --json"),
    ),
)
