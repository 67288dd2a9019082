"""`logs` and `events` of several nodes, merged, with what becomes of the nodes meanwhile."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gaffer.jobs.names import JobName, split_job_name
from gaffer_client.cli.commands.logs import arrival_times, chosen_lines, chosen_logs, lines
from gaffer_client.cli.commands.watching import details, gap_text, heartbeat, kind_of
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.members import ALL_JOBS, Choice, Failure, Tally, Target, failure_document
from gaffer_client.cli.output import Palette, age, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError
from gaffer_client.fleet import AT_A_TIME, Member
from gaffer_client.jobs import Job
from gaffer_client.live import LiveLookup
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server

_MAX_FEEDS = 512
_MAX_QUEUED = 1000  # items of all feeds that are not shown yet; then the feeds wait
_REFRESH = 1.0  # seconds


class _Key(NamedTuple):
    """A feed: of a job on a node, or of all events of a node."""

    node: str
    url: str
    job: str


class _Item(NamedTuple):
    """What a feed says: something to `show`, a `notice` that something is missing, or how it is connected."""

    key: _Key
    kind: str  # show, notice, open, lost, read, failed, ended
    content: Any = None


@dataclass
class _Shown:
    """How a node is connected, over all its feeds."""

    member: Member
    lost_at: float | None = None


_Open = Callable[[Server, str, "_Feed"], Iterator[Any]]
"""Opens the feed of a job on a node, and yields what is to be shown."""


class _Feed:
    """Reads one feed in a thread of its own."""

    def __init__(self, key: _Key, put: Callable[[_Item], object], limit: threading.Semaphore) -> None:
        self.key = key
        self._put = put
        self._limit = limit

    def note(self, text: str) -> None:
        """Say that something is missing in the feed."""
        self._put(_Item(self.key, "notice", text))

    def opened(self) -> None:
        """Say that the feed is connected."""
        self._put(_Item(self.key, "open"))

    def lost(self, error: GafferClientError | None) -> None:
        """Say that the feed is not connected."""
        self._put(_Item(self.key, "lost", error.message if error is not None else "it closed the connection"))

    def start(self, context: Context, lookup: Lookup | LiveLookup, open_: _Open) -> None:
        """Start the thread."""
        run = partial(self._run, context, lookup, open_)
        threading.Thread(target=run, name=f"{self.key.job} on {self.key.url}", daemon=True).start()

    def _run(self, context: Context, lookup: Lookup | LiveLookup, open_: _Open) -> None:
        try:
            with self._limit, context.announced_server(self.key.url, lookup) as server:
                for found in open_(server, self.key.job, self):
                    self._put(_Item(self.key, "show", found))
            self._put(_Item(self.key, "read"))
        except (GafferClientError, CommandFailed) as error:
            self._put(_Item(self.key, "failed", error))
        finally:
            self._put(_Item(self.key, "ended"))


class _Merged:
    """Shows the feeds of several nodes as they come; says when a node becomes unreachable, and when it is back."""

    def __init__(self, context: Context, open_: _Open, show: Callable[[Member, str, Any], object]) -> None:
        self._context = context
        self._open = open_
        self._show = show
        self._tally = Tally(context)
        self._items: queue.Queue[_Item] = queue.Queue(_MAX_QUEUED)
        self._nodes: dict[str, _Shown] = {}
        self._running: set[_Key] = set()
        self._known: set[_Key] = set()
        self._good: set[_Key] = set()
        self._told_of_limit = False

    def follow(self, choice: Choice, find: Callable[[Choice], Sequence[Target]], live: LiveLookup) -> int:
        """Follow the feeds until all have ended; nodes that get the jobs later are added."""
        unlimited = threading.Semaphore(_MAX_FEEDS)
        self._add(find(choice), live, unlimited, first=True)
        due = time.monotonic() + _REFRESH
        while self._running:
            with suppress(queue.Empty):
                self._handle(self._items.get(timeout=max(0.0, due - time.monotonic())))
            if time.monotonic() >= due:
                due = time.monotonic() + _REFRESH
                with suppress(CommandFailed):  # no node has the jobs now
                    self._add(find(choice), live, unlimited)
        return self._tally.status

    def read(self, targets: Sequence[Target], lookup: Lookup) -> int:
        """Show what the feeds hold now, of a limited number at a time."""
        self._add(targets, lookup, threading.Semaphore(AT_A_TIME), first=True)
        while self._running:
            self._handle(self._items.get())
        return self._tally.status

    def _add(
        self, targets: Sequence[Target], lookup: Lookup | LiveLookup, limit: threading.Semaphore, *, first: bool = False
    ) -> None:
        for member, jobs in targets:
            for job in jobs:
                key = _Key(member.key, member.url, job)
                if key in self._known:
                    continue
                if len(self._known) == _MAX_FEEDS:
                    if not self._told_of_limit:
                        warn(f"only {_MAX_FEEDS} logs are followed at a time; choose jobs or nodes to see the others")
                    self._told_of_limit = True
                    return
                self._known.add(key)
                self._running.add(key)
                self._nodes.setdefault(member.key, _Shown(member)).member = member
                if not first:
                    self._say(member, "added", f"{member.name} has {job} now" if job else f"{member.name} joined")
                _Feed(key, self._items.put, limit).start(self._context, lookup, self._open)

    def _handle(self, item: _Item) -> None:
        node = self._nodes[item.key.node]
        member = node.member
        if item.kind == "ended":
            self._running.discard(item.key)
        elif item.key.url != member.url:
            return  # the node has another address now
        elif item.kind == "show":
            self._show(member, item.key.job, item.content)
        elif item.kind == "notice":
            self._say(member, "missed", f"{member.name}: {item.content}")
        elif item.kind == "open":
            self._succeeded(item.key)
            if node.lost_at is not None:
                away = age((time.monotonic() - node.lost_at) * 1000)
                node.lost_at = None
                self._say(member, "back", f"{member.name} is back after {away}; what it kept meanwhile follows")
        elif item.kind == "lost":
            if node.lost_at is None:
                node.lost_at = time.monotonic()
                self._say(member, "unreachable", f"{member.name} is unreachable: {item.content}; trying again")
        elif item.kind == "read":
            self._succeeded(item.key)
        elif item.kind == "failed":
            self._fail(member, item.key.job, item.content)

    def _succeeded(self, key: _Key) -> None:
        if key not in self._good:
            self._good.add(key)
            self._tally.succeeded()

    def _fail(self, member: Member, job: str, failure: Failure) -> None:
        if isinstance(failure, UsageError):
            raise failure
        self._tally.failed(member, failure, job or None)
        if self._context.json:
            print_json_line({"node": member.name, "job": job or None, "error": failure_document(failure)})

    def _say(self, member: Member, kind: str, text: str) -> None:
        if self._context.json:
            print_json_line({"node": member.name, "notice": kind, "message": text})
        else:
            warn(text)


def logs(context: Context, args: Arguments, command: Command) -> int:
    """Show the logs of a job on the chosen nodes, or follow them."""
    choice, follows, wanted = chosen_logs(args), args.flag("--follow"), chosen_lines(args)
    dated = arrival_times(args)
    palette = Palette(sys.stdout)

    def open_(server: Server, job: str, feed: _Feed) -> Iterator[tuple[int, str, str]]:
        pieces = Job(server, job).logs(**choice, follow=follows, patient=True, on_open=feed.opened, on_lost=feed.lost)
        return lines(pieces, lambda text: feed.note(f"{job}: {text}"))

    def show(member: Member, job: str, line: tuple[int, str, str]) -> None:
        slot, stream, text = line
        if not wanted(text):
            return
        if context.json:
            at = {"at": round(time.time(), 3)} if dated else {}
            print_json_line({**at, "node": member.name, "job": job, "slot": slot, "stream": stream, "line": text})
        elif args.flag("--plain"):
            print(text, flush=True)
        else:
            label = f"{member.name} {JobName(*split_job_name(job)).display}.{slot}"
            at_ = f"{time.strftime('%H:%M:%S')} " if dated else ""
            print(palette.paint(label, printable(f"{at_}{label} | ")) + printable(text), flush=True)

    merged = _Merged(context, open_, show)
    names = args.words("<job>")
    with context.lookup() as lookup:
        if not follows:
            return merged.read(Choice(context, args, lookup).targets(names), lookup)
        with lookup.watch() as live:
            return merged.follow(Choice(context, args, live), lambda chosen: chosen.targets(names), live)


def events(context: Context, args: Arguments, command: Command) -> int:
    """Show the events of jobs on the chosen nodes as they happen."""
    job = args.text("<job>")
    interval = heartbeat(args.text("--heartbeat"))
    palette = Palette(sys.stdout, always=args.flag("--colorize"), never=args.flag("--no-color"))

    def open_(server: Server, name: str, feed: _Feed) -> Iterator[tuple[str, Any]]:
        pattern = f"proc.{JobName(*split_job_name(name)).display}" if name else "proc"
        watcher = server.get_watcher(pattern, heartbeat=interval, patient=True, on_open=feed.opened, on_lost=feed.lost)
        for received in watcher.events():
            if received.event == "gap":
                feed.note(gap_text(received))
            else:
                yield received.event, received.data

    def show(member: Member, name: str, found: tuple[str, Any]) -> None:
        event, message = found
        if context.json:
            print_json_line({"node": member.name, **message})
            return
        kind, about = kind_of(event), str(message.get("name", "-"))
        words = details(kind, message)
        text = f"{time.strftime('%H:%M:%S')} {member.name} {about} | {kind}{f' ({words})' if words else ''}"
        print(palette.paint(member.name, printable(text)), flush=True)

    def find(choice: Choice) -> Sequence[Target]:
        if job is None or job == ALL_JOBS:
            return [Target(member, ("",)) for member in choice.members()]
        return choice.targets([job])

    merged = _Merged(context, open_, show)
    with context.lookup() as lookup, lookup.watch() as live:
        return merged.follow(Choice(context, args, live), find, live) or Exit.OK
