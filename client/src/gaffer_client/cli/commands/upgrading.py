"""`upgrade`: starts the installed program on nodes in place of the one that runs, with their processes going on."""

import time
from typing import TYPE_CHECKING, NamedTuple

from gaffer.runtime.options import Option
from gaffer_client.cli.commands.draining import parse_timeout
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.members import show_plan
from gaffer_client.cli.output import print_error, print_json, printable
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError, NotFound, Unreachable
from gaffer_client.lazy import LazyModule
from gaffer_client.node import Server
from gaffer_client.transport import with_query

if TYPE_CHECKING:
    from gaffer_client import documents
else:
    documents = LazyModule("gaffer_client.documents")

_TIMEOUT = 30.0  # seconds
_CHECK_TIMEOUT = 40.0  # seconds that a node may take to check the program
_AGAIN = 0.05  # seconds between two attempts to connect


class _Upgraded(NamedTuple):
    """An upgrade that succeeded; `seconds` without an answer, `kept` processes of `processes` went on."""

    node: str
    before: str
    after: str
    seconds: float
    processes: int
    kept: int

    def __str__(self) -> str:
        untouched = f"{self.kept} process{'' if self.kept == 1 else 'es'} untouched"
        lost = f", {self.processes - self.kept} gone" if self.kept < self.processes else ""
        return f"{self.node}: {self.before} -> {self.after} in {self.seconds:.1f} s, {untouched}{lost}"

    def document(self) -> dict[str, object]:
        return {
            "node": self.node,
            "from": self.before,
            "to": self.after,
            "seconds": round(self.seconds, 3),
            "processes": self.processes,
            "untouched": self.kept,
        }


def upgrade(context: Context, args: Arguments) -> int:
    timeout = parse_timeout(args.text("--timeout") or f"{_TIMEOUT:g}")
    names: list[str | None] = [*args.words("<node>")] or [None]
    statuses: set[int] = set()
    for name in names:
        try:
            with context.server(name) as server:
                done = _upgrade(server, name or server.url, timeout, force=args.flag("--force"))
        except (CommandFailed, GafferClientError) as error:
            if len(names) == 1:
                raise
            print_error(context.program.name, printable(f"{name}: {error.message}"), error.hint)
            statuses.add(_status(error))
        else:
            statuses.add(Exit.OK)
            if context.json:
                print_json(done.document())
            else:
                print(printable(done), flush=True)
    if len(statuses) == 1:
        return statuses.pop()
    return Exit.PARTIAL if Exit.OK in statuses else Exit.FAILED


def plan(context: Context, args: Arguments, command: Command) -> int:
    """Show what `upgrade` would do."""
    names: list[str | None] = [*args.words("<node>")] or [None]
    for name in names:
        with context.server(name) as server:
            verb = f"upgrade from {server.version} to the version that is installed there"
            show_plan(context, name or context.node_name(server), server.url, verb)
    return Exit.OK


def _status(error: CommandFailed | GafferClientError) -> int:
    if isinstance(error, CommandFailed):
        return error.status
    return Exit.UNREACHABLE if isinstance(error, Unreachable) else Exit.FAILED


def _upgrade(server: Server, name: str, timeout: float, *, force: bool) -> _Upgraded:
    transport = server.transport
    before = set(transport.get("/pids", documents.PidList)["pids"])
    path = with_query("/upgrade", {"force": "true"} if force else None)
    deadline = time.monotonic() + max(timeout, _CHECK_TIMEOUT)
    try:
        answer = transport.request("POST", path, deadline=deadline)
    except NotFound:
        raise CommandFailed(f"{name} runs a version that can't be upgraded in place", hint="restart it") from None
    started = transport.decode(answer, documents.UpgradeStarted)
    began = time.monotonic()
    health = _await_successor(server, name, started["pid"], began + timeout)
    seconds = time.monotonic() - began
    after = set(transport.get("/pids", documents.PidList)["pids"])
    return _Upgraded(name, started["version"], health["version"], seconds, len(before), len(before & after))


def _await_successor(server: Server, name: str, pid: int, deadline: float) -> "documents.HealthInfo":
    """Return the health of the next gafferd once it answers."""
    error = "the earlier gafferd still answers"
    while time.monotonic() < deadline:
        try:
            health = server.transport.get("/health", documents.HealthInfo, deadline=deadline)
        except Unreachable as unreachable:  # connections of the earlier one are closed
            error = unreachable.message
        else:
            if health.get("pid") != pid:
                return health
        time.sleep(_AGAIN)
    raise CommandFailed(
        f"{name} makes way for the installed gafferd, which does not answer: {error}",
        hint="its processes keep running; see the log of the keeper on the node",
    )


_OPTIONS = (
    Option("--force", "do not check first whether the installed gafferd can start"),
    Option("--timeout=SECONDS", f"give up a node that does not answer after SECONDS (default: {_TIMEOUT:g})"),
)
_SUMMARY = "Replace gafferd by the installed version, with its processes going on"
_STEPS = """
            Install the new version first. The node checks that it can start with its configuration, then
            hands its processes and sockets over to it; clients wait for a moment. The node needs a keeper.
"""

GAFFER_COMMANDS = (
    Command(
        "upgrade",
        _SUMMARY,
        upgrade,
        "node",
        "[<node>...]",
        effect="write",
        plan="upgrading:plan",
        options=_OPTIONS,
        details=f"""{_STEPS}
            <node> is the name or id of a node, as shown by `gaffer lookup:nodes`, or its URL (default: the node of
            --endpoint). Nodes are upgraded one after the other. A node found by name gets your API key only if you list
            it, in `nodes` of ~/.gaffer/gaffer.ini or in GAFFER_NODES, or if --cacert verifies its certificate.

            The exit status is 5 if only some of several nodes were upgraded. Of one node it is 1 if it refuses or does
            not answer any more, 4 if no node has that name, and 3 if it, or every lookup, is unreachable.
        """,
        examples=("upgrade", "upgrade web1 web2", "upgrade --timeout=60 http://10.0.0.7:5000"),
        uses=("--lookupd",),
    ),
)
COMMANDS = (
    Command(
        "upgrade",
        _SUMMARY,
        upgrade,
        "node",
        effect="write",
        options=_OPTIONS,
        details=_STEPS,
        examples=("upgrade", "upgrade --force"),
    ),
)
