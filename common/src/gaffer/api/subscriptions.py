"""Subscriptions of a channel's client to topics: each sends what comes, in its turn, never more than one piece ahead.

What is said in a topic is an event and a message: an event of the node, stats under STATS, output under its label. Two
events are about the topic itself: GAP, with `{"from", "to"}`, when the client was too slow for what lies between these
two positions, and END when no more will come, because the process has ended or the job was unloaded.
"""

import asyncio
import codecs
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from gaffer.errors import ProcessError
from gaffer.http.access import Grant
from gaffer.http.sockjs import ConnectionClosed
from gaffer.jobs.names import JobName
from gaffer.manager import Manager
from gaffer.process import Process
from gaffer.processes.sampler import EVENT as STATS
from gaffer.processes.sampler import Target
from gaffer.streams.event_log import Event, match, normal
from gaffer.streams.rings import Chunk, Cursor, Records
from gaffer.supervision.channels import Topic, bare_event, event_prefix, parse_topic

GAP = "gap"
END = "end"

_PIECE = 16 * 1024  # bytes of output in one message

Say = Callable[[str, dict[str, Any]], Awaitable[None]]


class Subscription:
    """What one client wants of one topic, `count` times."""

    def __init__(self, manager: Manager, topic: str, grant: Grant, say: Say) -> None:
        """Take what comes from now on.

        Raises TopicError for what is no topic, ProcessError for what isn't there, Forbidden for what the grant is not
        for.
        """
        self.count = 1
        self._send_event = say
        self._parts = _open(manager, parse_topic(topic), grant, say)
        self._ending = False
        self._running: asyncio.Task[None] | None = None

    def start(self, on_end: Callable[[], Any]) -> None:
        """Begin to say it; `on_end()` is called after END."""
        self._running = asyncio.create_task(self._run(on_end))

    async def wait(self) -> None:
        """Wait until all was said, or `close` was called."""
        if self._running is not None:
            await asyncio.wait([self._running])

    def end(self) -> None:
        """Say what is there, then finish."""
        self._ending = True
        for part in self._parts:
            part.end()

    def close(self) -> None:
        """Say nothing more, if it was started."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self, on_end: Callable[[], Any]) -> None:
        with suppress(ConnectionClosed):
            await asyncio.gather(*(part.run() for part in self._parts))
            if not self._ending:
                await self._send_event(END, {})
                on_end()


class _Part(Protocol):
    async def run(self) -> None:
        """Say all that comes, until there is no more."""

    def end(self) -> None:
        """Let `run` return when it has said what is there."""


def _open(manager: Manager, topic: Topic, grant: Grant, say: Say) -> "list[_Part]":
    target = topic.target
    process = manager.get_process(target) if isinstance(target, int) else None
    if process is not None:
        grant.require_session(process.job.session)
    elif isinstance(target, JobName):
        grant.require_session(target.session)
    if topic.kind == "STREAM" and process is not None:
        labels = list(process.rings) if topic.detail == "." and process.rings else [topic.detail]
        return [_Output(process, label, say) for label in labels]
    if topic.kind == "STATS" and target is not None:
        return [_Stats(manager, target, say)]
    return [_Events(manager, topic, grant, say)]


async def _say_gap(piece: Chunk | Records[Event], say: Say) -> None:
    if piece.gap:
        await say(GAP, {"from": piece.offset - piece.gap, "to": piece.offset})


class _Events:
    """Events of the node that the grant is for; without their prefix in the topic of a job or a process.

    Without a prefix or pattern each comes under its aliases too, among which clients of version 0.5 choose themselves.
    """

    def __init__(self, manager: Manager, topic: Topic, grant: Grant, say: Say) -> None:
        self._prefix = event_prefix(topic)
        self._pattern = self._prefix or topic.detail
        self._cursor: Cursor[Records[Event]] = Cursor(manager.event_log)
        self._sessions = grant.sessions
        self._send_event = say

    async def run(self) -> None:
        while (records := await self._cursor.next()) is not None:
            await _say_gap(records, self._send_event)
            for event in records.items:
                for found in self._found(event):
                    name = bare_event(found, self._prefix)
                    if name is not None:
                        await self._send_event(name, event.payload(found))

    def _found(self, event: Event) -> Sequence[str]:
        """The names under which the client gets the event."""
        if self._sessions is not None and event.session not in self._sessions:
            return ()
        if not self._pattern:
            return event.names
        name = match(normal(self._pattern), event.names)
        return () if name is None else (name,)

    def end(self) -> None:
        self._cursor.end()


class _Output:
    """What a process writes to one of its streams, as text."""

    def __init__(self, process: Process, label: str, say: Say) -> None:
        self._cursor: Cursor[Chunk] = Cursor(process.ring(label))
        self._label = label
        self._about = {"name": process.name, "pid": process.pid}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._send_event = say

    async def run(self) -> None:
        while await self._pass_on():
            pass

    async def _pass_on(self) -> bool:
        chunk = await self._cursor.next(_PIECE)
        if chunk is not None and chunk.gap:
            self._decoder.reset()
            await _say_gap(chunk, self._send_event)
        text = self._decoder.decode(chunk.data if chunk is not None else b"", final=chunk is None)
        if text:
            await self._send_event(self._label, {**self._about, "data": text})
        return chunk is not None

    def end(self) -> None:
        self._cursor.end()


class _Stats:
    """The stats of a process or of a job's processes: the newest of each, when the client has taken those before."""

    def __init__(self, manager: Manager, target: Target, say: Say) -> None:
        self._manager = manager
        self._target = target
        self._newest: dict[int, dict[str, Any]] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._send_event = say
        if isinstance(target, JobName):
            manager.get(target)  # raises when there is none

    async def run(self) -> None:
        try:
            self._manager.monitor(self._on_stats, self._target, ended=self.end)
        except ProcessError:  # it has ended meanwhile
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
