"""`gaffer drain`: takes a node of the cluster out of service, and puts it back."""

import math
import time
from contextlib import AbstractContextManager

from gaffer.errors import did_you_mean
from gaffer.runtime.options import Option
from gaffer.schemas.bodies import DrainState
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.output import print_json, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import Unreachable
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server

_PAUSE = 0.2  # seconds between two looks at a node that drains


def drain(context: Context, args: Arguments) -> int:
    timeout = _seconds(args.text("--timeout"))
    name = args.text("<node>")
    with _node(context, name) as server:
        what = printable(name or server.url)
        if args.flag("--undo"):
            state, text = server.resume(), f"{what} is back in service"
        else:
            state = server.drain()
            if args.flag("--wait"):
                state = _wait(server, what, timeout)
            text = f"{what} is drained" if state["drained"] else f"{what} drains: {_left(state)}"
    if context.json:
        print_json(state)
    else:
        print(text)
    return Exit.OK


def _wait(server: Server, what: str, timeout: float) -> DrainState:
    deadline = time.monotonic() + timeout
    while not (state := server.drained())["drained"]:
        if not state["draining"]:
            raise CommandFailed(f"{what} was put back into service meanwhile")
        if time.monotonic() > deadline:
            raise CommandFailed(f"{what} is not drained after {timeout:g} s: {_left(state)}")
        time.sleep(_PAUSE)
    return state


def _left(state: DrainState) -> str:
    number = state["processes"]
    return f"{number} process{'' if number == 1 else 'es'} still there"


def _is_url(text: str) -> bool:
    return "://" in text or text.startswith("unix:")


def _node(context: Context, name: str | None) -> AbstractContextManager[Server]:
    """The node at that URL, or of that name or id by the lookups; by default that of --endpoint."""
    if name is None or _is_url(name):
        return context.server(name)
    with context.lookup() as lookup:
        return context.announced_server(_find(lookup, name), lookup)


def _find(lookup: Lookup, name: str) -> str:
    """Where the node of that name or id is, by the lookups."""
    try:
        nodes = lookup.nodes()["nodes"]
    except Unreachable as error:
        raise CommandFailed(
            error.message,
            hint="lookups tell where a node is (-L, GAFFER_LOOKUPD); the URL of the node will do as well",
            status=Exit.UNREACHABLE,
        ) from None
    for failure in lookup.failures.values():
        warn(failure.message)
    found = sorted({node["origin"] for node in nodes if name in (node["name"], node.get("id"))})
    if not found:
        raise CommandFailed(
            f"no node is called {name}",
            hint=did_you_mean(name, [node["name"] for node in nodes]) or "`gaffer lookup:nodes` lists them",
            status=Exit.NOT_FOUND,
        )
    if len(found) > 1:
        raise CommandFailed(f"{len(found)} nodes are called {name}: {', '.join(found)}", hint="give the URL of one")
    return found[0]


def _seconds(text: str | None) -> float:
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise UsageError(f"--timeout {text} is not a number of seconds")
    return seconds


COMMANDS = (
    Command(
        "drain",
        "Take a node out of service, or put it back",
        drain,
        "node",
        "[<node>]",
        options=(
            Option("--undo", "put the node back into service"),
            Option("--wait", "come back when all its processes have ended"),
            Option("--timeout=SECONDS", "wait no longer than that; the exit status is 1 then"),
        ),
        details="""
            The lookups stop naming the node, then its processes end, those of the last loaded job first, each after
            the `drain_timeout` of its job. The node stays up, and its jobs wait until `gaffer drain --undo`, or until
            gafferd starts again.

            <node> is the name or id of a node, as `gaffer lookup:nodes` shows it, or its URL; by default the node of
            --endpoint. To a node that is found by its name, your API key goes only when you list it, in `nodes` of
            ~/.gaffer/gaffer.ini or in GAFFER_NODES, or when --cacert verifies its certificate.

            The exit status is 4 when no node has that name, 3 when the node or every lookup is unreachable.
        """,
        examples=("drain", "drain node1 --timeout=120", "drain node1 --undo"),
        uses=("--lookupd",),
    ),
)
