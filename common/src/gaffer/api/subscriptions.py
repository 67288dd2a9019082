"""Subscriptions of channel clients to topics. Each sends its data in order, with at most one piece in flight.

Data is sent as an event with a message: an event of the node, stats under STATS, or output under its label. Two events
concern the topic itself: GAP, with `{"from", "to"}`, if the client was too slow and lost what lies between these
positions, and END when nothing more will follow, because the process has exited or the job was unloaded.
"""

import asyncio
import codecs
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from gaffer.errors import ProcessError
from gaffer.http.access import Grant, Scope
from gaffer.http.sockjs import ConnectionClosed
from gaffer.jobs.names import JobName
from gaffer.manager import Manager
from gaffer.process import Process
from gaffer.processes.sampler import EVENT as STATS
from gaffer.processes.sampler import Target
from gaffer.schemas.history import AUDIT
from gaffer.streams.event_log import Event, normal
from gaffer.streams.rings import Chunk, Cursor, Log, Records
from gaffer.supervision.channels import Topic, bare_event, event_prefix, parse_topic

GAP = "gap"
END = "end"

_PIECE = 16 * 1024  # bytes of output in one message

Send = Callable[[str, dict[str, Any]], Awaitable[None]]


class Subscription:
    """The subscription of one client to one topic; `count` is the number of SUBs."""

    def __init__(self, manager: Manager, topic: str, grant: Grant, send: Send) -> None:
        """Subscribe from now on; `send` is called with each event and message.

        Raises TopicError for an invalid topic, ProcessError for an unknown job or process, Forbidden if the grant does
        not cover the topic.
        """
        self.count = 1
        self._send_event = send
        self._parts = _open(manager, parse_topic(topic), grant, send)
        self._ending = False
        self._running: asyncio.Task[None] | None = None

    def start(self, on_end: Callable[[], Any]) -> None:
        """Start sending; `on_end()` is called after END."""
        self._running = asyncio.create_task(self._run(on_end))

    async def wait(self) -> None:
        """Wait until everything has been sent, or `close` was called."""
        if self._running is not None:
            await asyncio.wait([self._running])

    def end(self) -> None:
        """Send what is available, then finish."""
        self._ending = True
        for part in self._parts:
            part.end()

    def close(self) -> None:
        """Stop sending at once."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self, on_end: Callable[[], Any]) -> None:
        with suppress(ConnectionClosed):
            await asyncio.gather(*(part.run() for part in self._parts))
            if not self._ending:
                await self._send_event(END, {})
                on_end()


def require_for_pattern(grant: Grant, pattern: str) -> None:
    """Raise Forbidden unless the grant permits to follow the events that match a pattern."""
    if normal(pattern) == AUDIT:  # it names the callers
        grant.require(Scope.CONTROL)


def log_for(manager: Manager, pattern: str) -> Log[Event]:
    """Return the log of the events that match a pattern."""
    return manager.events.unlisted if normal(pattern) == AUDIT else manager.event_log


class _Part(Protocol):
    async def run(self) -> None:
        """Send data until the source ends."""

    def end(self) -> None:
        """Let `run` return after sending what is available."""


def _open(manager: Manager, topic: Topic, grant: Grant, send: Send) -> "list[_Part]":
    target = topic.target
    process = manager.get_process(target) if isinstance(target, int) else None
    if process is not None:
        grant.require_session(process.job.session)
    elif isinstance(target, JobName):
        grant.require_session(target.session)
    if topic.kind == "EVENTS":
        require_for_pattern(grant, topic.detail)
    if topic.kind == "STREAM" and process is not None:
        labels = list(process.rings) if topic.detail == "." and process.rings else [topic.detail]
        return [_Output(process, label, send) for label in labels]
    if topic.kind == "STATS" and target is not None:
        return [_Stats(manager, target, send)]
    return [_Events(manager, topic, grant, send)]


async def _send_gap(piece: Chunk | Records[Event], send: Send) -> None:
    if piece.gap:
        await send(GAP, {"from": piece.offset - piece.gap, "to": piece.offset})


class _Events:
    """Events of the node that the grant covers; in the topic of a job or process their names have no prefix.

    Without a prefix or pattern each event is sent under all of its names, among which clients of version 0.5 select.
    """

    def __init__(self, manager: Manager, topic: Topic, grant: Grant, send: Send) -> None:
        self._prefix = event_prefix(topic)
        self._pattern = self._prefix or topic.detail
        self._cursor: Cursor[Records[Event]] = Cursor(log_for(manager, self._pattern))
        self._sessions = grant.sessions
        self._send_event = send

    async def run(self) -> None:
        while (records := await self._cursor.next()) is not None:
            await _send_gap(records, self._send_event)
            for event in records.items:
                for found in self._found(event):
                    name = bare_event(found, self._prefix)
                    if name is not None:
                        await self._send_event(name, event.payload(found))

    def _found(self, event: Event) -> Sequence[str]:
        """Return the names under which the event is sent."""
        if self._sessions is not None and event.session not in self._sessions:
            return ()
        if not self._pattern:
            return event.names
        name = event.match(normal(self._pattern))
        return () if name is None else (name,)

    def end(self) -> None:
        self._cursor.end()


class _Output:
    """The output of a process on one stream, as text."""

    def __init__(self, process: Process, label: str, send: Send) -> None:
        self._cursor: Cursor[Chunk] = Cursor(process.ring(label))
        self._label = label
        self._about = {"name": process.name, "pid": process.pid}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._send_event = send

    async def run(self) -> None:
        while await self._send_next():
            pass

    async def _send_next(self) -> bool:
        chunk = await self._cursor.next(_PIECE)
        if chunk is not None and chunk.gap:
            self._decoder.reset()
            await _send_gap(chunk, self._send_event)
        text = self._decoder.decode(chunk.data if chunk is not None else b"", final=chunk is None)
        if text:
            await self._send_event(self._label, {**self._about, "data": text})
        return chunk is not None

    def end(self) -> None:
        self._cursor.end()


class _Stats:
    """The stats of a process or of a job's processes: the newest ones once the client has received the last."""

    def __init__(self, manager: Manager, target: Target, send: Send) -> None:
        self._manager = manager
        self._target = target
        self._newest: dict[int, dict[str, Any]] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._send_event = send
        if isinstance(target, JobName):
            manager.get(target)  # raises if it does not exist

    async def run(self) -> None:
        try:
            self._manager.monitor(self._on_stats, self._target, ended=self.end)
        except ProcessError:  # it has exited
            return
        try:
            while not self._ended or self._newest:
                await self._news.wait()
                self._news.clear()
                newest, self._newest = self._newest, {}
                for message in newest.values():
                    await self._send_event(STATS, message)
        finally:
            self._manager.unmonitor(self._on_stats, self._target)

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def _on_stats(self, event: str, message: dict[str, Any]) -> None:
        self._newest[message["pid"]] = message
        self._news.set()
