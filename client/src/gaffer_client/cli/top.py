"""`gaffer top`: the jobs of a node or of a cluster, live on a terminal."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from gaffer_client.cli.board import Act, Board, Row
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.members import Choice
from gaffer_client.cli.output import age, print_json_line, printable, wants_colour
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.screen import Ended, Screen
from gaffer_client.errors import GafferClientError
from gaffer_client.fleet import ask_all
from gaffer_client.jobs import Job
from gaffer_client.node import Server

if TYPE_CHECKING:
    from gaffer_client.documents import ListedJob
    from gaffer_client.lookup import Lookup

_INTERVAL = 2.0  # seconds
_LOG_INTERVAL = 0.5
_TAIL = "200"  # lines of a log that are shown at first
_MAX_ACTIONS = 4  # at a time
_MAX_LINE = 4096  # characters of a line of a log


class _Node(NamedTuple):
    """A node by its name, and how to connect to it."""

    name: str
    connect: Callable[[], AbstractContextManager[Server]]


class _Answer(NamedTuple):
    """What the nodes list, and the errors of those that do not answer, by name."""

    jobs: dict[str, list["ListedJob"]]
    failures: dict[str, str]


class _Source:
    """Asks the nodes; `find` returns those there are now."""

    def __init__(self, find: Callable[[], list[_Node]]) -> None:
        self._find = find
        self.nodes: dict[str, _Node] = {}

    def ask(self) -> _Answer:
        """Return what the nodes list now."""
        try:
            self.nodes = {node.name: node for node in self._find()}
        except (GafferClientError, CommandFailed) as error:
            if not self.nodes:
                raise
            failures = {"lookup": error.message}
        else:
            failures = {}
        jobs: dict[str, list[ListedJob]] = {}
        for node, answer in ask_all(list(self.nodes.values()), _list):
            if isinstance(answer, GafferClientError | CommandFailed):
                failures[node.name] = answer.message
            else:
                jobs[node.name] = answer
        return _Answer(jobs, failures)


def _list(node: _Node) -> "list[ListedJob] | CommandFailed":
    try:
        with node.connect() as server:
            return server.list_jobs(stats=True)
    except CommandFailed as failure:
        return failure


def top(context: Context, args: Arguments) -> int:
    """Show the jobs of one node."""
    with context.server() as server:
        name = context.node_name(server)
    return _run(context, args, _Source(lambda: [_Node(name, context.server)]), name, several=False)


def top_of_several(context: Context, args: Arguments) -> int:
    """Show the jobs of the chosen nodes."""
    with context.lookup() as lookup:

        def find() -> list[_Node]:
            members = Choice(context, args, lookup, warns=False).members()
            return [_Node(member.name, _connection(context, lookup, member.url)) for member in members]

        title = ", ".join(args.words("--node")) or "cluster"
        return _run(context, args, _Source(find), title, several=True)


def _connection(context: Context, lookup: "Lookup", url: str) -> Callable[[], AbstractContextManager[Server]]:
    @contextmanager
    def connect() -> Iterator[Server]:
        with context.announced_server(url, lookup) as server:
            server.transport.deadline = time.monotonic() + context.timeout
            yield server

    return connect


def _run(context: Context, args: Arguments, source: _Source, title: str, *, several: bool) -> int:
    interval = _interval(args.text("--interval"))
    if context.json or args.flag("--once"):
        return _print(context, source, title, interval, several=several, once=args.flag("--once"))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal", hint="use --once or --json")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("this terminal can't move its cursor, as TERM says", hint="set TERM, or use --once or --json")
    answer = source.ask()
    if not answer.jobs:  # an empty screen would hide why
        why = "; ".join(answer.failures.values()) or "there is no node"
        raise CommandFailed(why, hint="`gaffer doctor` shows what is wrong", status=Exit.UNREACHABLE)
    board = Board(title, several=several, colour=wants_colour(sys.stdout))
    _update(board, answer)
    try:
        with Screen() as screen:
            _Live(source, board, screen, interval).run()
    except Ended as ended:
        return ended.status
    except EOFError:  # the terminal is gone
        return Exit.FAILED
    return Exit.OK


def _print(context: Context, source: _Source, title: str, interval: float, *, several: bool, once: bool) -> int:
    """Print the jobs without a terminal: once, or a JSON document for each interval."""
    while True:
        answer = source.ask()
        if context.json:
            print_json_line(_document(answer))
        else:
            board = Board(title, several=several, colour=False, live=False)
            _update(board, answer)
            rows = sum(map(len, answer.jobs.values())) + len(answer.failures) + 3
            print("\n".join(line.rstrip() for line in board.render(200, rows)[:-1]))
        if once:
            if not answer.failures:
                return Exit.OK
            return Exit.PARTIAL if answer.jobs else Exit.UNREACHABLE
        time.sleep(interval)


def _document(answer: _Answer) -> dict[str, Any]:
    nodes: list[Mapping[str, Any]] = [{"node": name, "jobs": jobs} for name, jobs in answer.jobs.items()]
    return {"nodes": [*nodes, *({"node": name, "error": why} for name, why in answer.failures.items())]}


def _update(board: Board, answer: _Answer) -> None:
    board.update([Row.of(name, info) for name, jobs in answer.jobs.items() for info in jobs], answer.failures)


class _Live:
    """Keeps a board on the screen up to date; nodes are asked in threads."""

    def __init__(self, source: _Source, board: Board, screen: Screen, interval: float) -> None:
        self._source = source
        self._board = board
        self._screen = screen
        self._interval = interval
        self._lock = threading.Lock()
        self._news: list[Callable[[], object]] = []
        self._hurry = threading.Event()
        self._log: _Log | None = None
        self._actions = threading.Semaphore(_MAX_ACTIONS)

    def run(self) -> None:
        """Show the board until a key quits."""
        threading.Thread(target=self._poll, name="top", daemon=True).start()
        while True:
            with self._lock:
                news, self._news = self._news, []
            for show in news:
                show()
            self._screen.draw(self._board.render(*self._screen.size))
            for key in self._screen.keys(self._interval):
                act = self._board.press(key)
                if act is not None and act.kind == "quit":
                    return
                if act is not None:
                    self._do(act)

    def _do(self, act: Act) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.closed.set()
        if act.row is None:
            return
        node = self._source.nodes.get(act.row.node)
        if node is None:
            self._board.say(f"{act.row.node} is gone")
        elif act.kind == "follow":
            self._log = _Log(node, act.row.job, self._show_lines)
            threading.Thread(target=self._log.read, name="log", daemon=True).start()
        elif self._actions.acquire(blocking=False):
            self._board.say(f"{act.kind} {act.row.job} on {act.row.node}: sent")
            threading.Thread(target=self._act, args=(act.kind, node, act.row.job), name=act.kind, daemon=True).start()
        else:
            self._board.say("the nodes have not answered the last orders yet")

    def _act(self, kind: str, node: _Node, job: str) -> None:
        try:
            with node.connect() as server:
                found = Job(server, job)
                found.restart() if kind == "restart" else found.stop()
            text = f"{kind} {job} on {node.name}: done"
        except (GafferClientError, CommandFailed) as error:
            text = f"{kind} {job} on {node.name}: {error.message}"
        finally:
            self._actions.release()
        self._tell(lambda: self._board.say(text))
        self._hurry.set()

    def _poll(self) -> None:
        while True:
            self._hurry.wait(self._interval)
            self._hurry.clear()
            try:
                answer = self._source.ask()
            except (GafferClientError, CommandFailed) as error:
                message = error.message
                self._tell(lambda message=message: self._board.say(message))  # type: ignore[misc]
            else:
                self._tell(lambda answer=answer: _update(self._board, answer))  # type: ignore[misc]

    def _show_lines(self, log: "_Log", lines: list[str]) -> None:
        def show() -> None:
            if log is self._log:
                self._board.add_lines(lines)

        self._tell(show)

    def _tell(self, show: Callable[[], object]) -> None:
        with self._lock:
            self._news.append(show)
        self._screen.wake()


class _Log:
    """The end of the log of a job, and what is added until it is closed."""

    def __init__(self, node: _Node, job: str, show: Callable[["_Log", list[str]], object]) -> None:
        self.closed = threading.Event()
        self._node = node
        self._job = job
        self._show = show

    def read(self) -> None:
        """Pass on lines as they come; a node that does not answer is asked again."""
        position: str | None = None
        lost_at: float | None = None
        unfinished: dict[tuple[int, str], str] = {}
        while not self.closed.is_set():
            lines: list[str] = []
            try:
                with self._node.connect() as server:
                    start = {"tail": _TAIL} if position is None else {"offset": position}
                    for piece in Job(server, self._job).logs(streams=("out", "err"), **start):  # type: ignore[arg-type]
                        position = piece.position or position
                        lines += [f"({piece.lost} bytes are no longer kept)"] if piece.lost else []
                        key = piece.slot, piece.stream
                        text = unfinished.pop(key, "") + piece.data.decode(errors="replace")
                        *whole, rest = text.split("\n")
                        unfinished[key] = rest[-_MAX_LINE:]
                        lines += [
                            printable(f"{piece.slot} | {line.removesuffix(chr(13))}"[:_MAX_LINE]) for line in whole
                        ]
                if lost_at is not None:
                    lines.insert(0, f"({self._node.name} is back after {age((time.monotonic() - lost_at) * 1000)})")
                    lost_at = None
            except (GafferClientError, CommandFailed) as error:
                if lost_at is None:
                    lost_at = time.monotonic()
                    lines.append(printable(f"({error.message}; trying again)"))
            if lines:
                self._show(self, lines)
            self.closed.wait(_LOG_INTERVAL)


def _interval(text: str | None) -> float:
    try:
        value = _INTERVAL if text is None else float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600:
        raise UsageError(f"--interval: {text!r} is not a valid number of seconds", hint="use 0.1 to 3600")
    return value
