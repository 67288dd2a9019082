"""`gaffer drain`: takes a node out of service and puts it back."""

import math
import time
from typing import TYPE_CHECKING

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.members import show_plan
from gaffer_client.cli.output import print_json, printable
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command

if TYPE_CHECKING:
    from gaffer.schemas.bodies import DrainState
    from gaffer_client.node import Server

_POLL_INTERVAL = 0.2  # seconds


def drain(context: Context, args: Arguments) -> int:
    timeout = parse_timeout(args.text("--timeout"))
    context.limit(timeout)
    name = args.text("<node>")
    with context.server(name) as server:
        what = printable(name or server.url)
        if args.flag("--undo"):
            state, text = server.resume(), f"{what} is back in service"
        else:
            state = server.drain()
            if args.flag("--wait"):
                state = _wait(server, what, timeout)
            text = f"{what} is drained" if state["drained"] else f"{what} is draining: {_left(state)}"
    if context.json:
        print_json(state)
    else:
        print(text)
    return Exit.OK


def plan(context: Context, args: Arguments, command: Command) -> int:
    """Show what `drain` or `undrain` would do."""
    name = args.text("<node>")
    with context.server(name) as server:
        state, number = server.drained(), server.health()["processes"]
        if command.name == "undrain" or args.flag("--undo"):
            verb = "undrain" if state["draining"] else "undrain, which changes nothing"
        else:
            verb = f"drain, which stops {number} process{'' if number == 1 else 'es'}"
        show_plan(context, name or context.node_name(server), server.url, verb)
    return Exit.OK


def _wait(server: "Server", what: str, timeout: float) -> "DrainState":
    deadline = time.monotonic() + timeout
    while not (state := server.drained())["drained"]:
        if not state["draining"]:
            raise CommandFailed(f"{what} was put back into service while draining")
        if time.monotonic() > deadline:
            raise CommandFailed(f"{what} not drained within {timeout:g} s: {_left(state)}")
        time.sleep(_POLL_INTERVAL)
    return state


def _left(state: "DrainState") -> str:
    number = state["processes"]
    return f"{number} process{'' if number == 1 else 'es'} left"


def parse_timeout(text: str | None) -> float:
    """Return the seconds that --timeout gives, infinite by default; raise UsageError."""
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise UsageError(f"--timeout: {text!r} is not a number of seconds")
    return seconds


def undrain(context: Context, args: Arguments) -> int:
    name = args.text("<node>")
    with context.server(name) as server:
        state = server.resume()
        if context.json:
            print_json(state)
        else:
            print(f"{printable(name or server.url)} is back in service")
    return Exit.OK


COMMANDS = (
    Command(
        "drain",
        "Take a node out of service, or put it back into service",
        drain,
        "node",
        "[<node>]",
        effect="destructive",
        plan="draining:plan",
        options=(
            Option("--undo", "put the node back into service"),
            Option("--wait", "return once all its processes have exited"),
            Option("--timeout=SECONDS", "give up after SECONDS and exit with status 1"),
        ),
        details="""
            Lookups stop listing the node's processes, then the processes are stopped, each after the
            `drain_timeout` of its job. Jobs end in the reverse order of their start: a job before those that it comes
            `after`. The node keeps running; its jobs wait until `gaffer drain --undo` or a restart of gafferd.

            <node> is the name or id of a node, as shown by `gaffer lookup:nodes`, or its URL (default: the node of
            --endpoint). A node found by name gets your API key only if you list it, in `nodes` of
            ~/.gaffer/gaffer.ini or in GAFFER_NODES, or if --cacert verifies its certificate.

            The exit status is 4 if no node has that name, and 3 if the node or every lookup is unreachable.
        """,
        examples=("drain", "drain node1 --timeout=120", "drain node1 --undo"),
        uses=("--lookupd",),
    ),
    Command(
        "undrain",
        "Put a node back into service",
        undrain,
        "node",
        "[<node>]",
        effect="write",
        plan="draining:plan",
        details="<node> is as for `drain`. `gaffer drain --undo` does the same.",
        examples=("undrain", "undrain node1"),
        uses=("--lookupd",),
    ),
)
