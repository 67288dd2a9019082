"""Long answers: how a client wants to follow something (the query), and the waiting between two pieces of it."""

import asyncio
import codecs
import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

import msgspec
from tornado.web import RequestHandler

from gaffer.errors import BadRequest
from gaffer.streams import Chunk, Cursor, Ring

KINDS = ("longpoll", "continuous", "eventsource")

_DEFAULT_HEARTBEAT = 60.0  # seconds
_MIN_HEARTBEAT, _MAX_HEARTBEAT = 0.1, 86400.0

_OFFSET = re.compile(r"[0-9]{1,18}", re.ASCII)
_TAIL = re.compile(r"([0-9]{1,9})(b?)", re.ASCII)
_LINE_END = re.compile(r"\r\n|\r|\n")


class Tail(NamedTuple):
    """The last `size` lines, or bytes."""

    size: int
    in_bytes: bool


class FeedQuery(NamedTuple):
    """What the client asked for.

    `heartbeat` in seconds, None for none. `after` is an offset in the stream; it and `tail` say where to begin.
    """

    kind: str
    heartbeat: float | None
    after: int | None
    tail: Tail | None

    @classmethod
    def of(cls, handler: RequestHandler) -> "FeedQuery":
        """Read `feed`, `heartbeat`, `after` and `tail`; raises BadRequest (`bad_value`) for a wrong one.

        A Last-Event-ID header, sent by browsers that reconnect, counts as `after`.
        """
        kind = handler.get_query_argument("feed", "longpoll")
        if kind not in KINDS:
            raise _wrong("feed", kind, f"use {', '.join(KINDS)}")
        after = _parse_after(handler.get_query_argument("after", None))
        tail = _parse_tail(handler.get_query_argument("tail", None))
        if after is not None and tail is not None:
            raise BadRequest("`after` and `tail` both say where to begin", reason="bad_value", hint="give one of them")
        last_event = handler.request.headers.get("Last-Event-ID", "")
        if kind == "eventsource" and _OFFSET.fullmatch(last_event):
            after, tail = int(last_event), None
        return cls(kind, _parse_heartbeat(handler.get_query_argument("heartbeat", "true")), after, tail)

    def start_in(self, ring: Ring) -> int | None:
        """The offset to begin at; None when the client didn't say. Raises BadRequest for one not reached yet."""
        if self.after is not None:
            if self.after > ring.end:
                raise _wrong("after", str(self.after), f"the stream ends at {ring.end}")
            return self.after
        if self.tail is None:
            return None
        if self.tail.in_bytes:
            return ring.offset_of_tail(self.tail.size)
        return ring.offset_of_tail_lines(self.tail.size)


class Feed:
    """A cursor that tells when a heartbeat is due, and when it is through. Use it on the ring's loop."""

    def __init__(self, ring: Ring, offset: int, heartbeat: float | None) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cursor = Cursor(ring, offset)
        self._heartbeat = heartbeat

    @property
    def offset(self) -> int:
        """Where the next chunk begins."""
        return self._cursor.offset

    def end(self) -> None:
        """Make `steps` end once it has given what is there."""
        self._cursor.end()

    async def steps(self) -> AsyncGenerator[Chunk | None]:
        """Each chunk as it comes, None when a heartbeat is due; ends with the stream or by `end()`."""
        try:
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat):
                        chunk = await self._cursor.next()
                except TimeoutError:
                    yield None
                    continue
                if chunk is None:
                    return
                yield chunk
        finally:
            self.finished.set_result(None)


class EventStream:
    """Formats chunks of text as server-sent events; an id is the offset to go on from."""

    HEARTBEAT = b":\n\n"

    def __init__(self, event: str) -> None:
        self._event = event
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def format(self, chunk: Chunk) -> bytes:
        """The events for a chunk: a gap when bytes were lost, then the text, less one line end at its end."""
        parts = []
        if chunk.gap:
            self._decoder.reset()
            lost = msgspec.json.encode({"from": chunk.offset - chunk.gap, "to": chunk.offset}).decode()
            parts.append(f"event: gap\ndata: {lost}\n\n")
        text = self._decoder.decode(chunk.data)
        if text:
            lines = _LINE_END.split(text)
            if len(lines) > 1 and not lines[-1]:
                lines.pop()
            undecoded = len(self._decoder.getstate()[0])
            data = "".join(f"data: {line}\n" for line in lines)
            parts.append(f"event: {self._event}\nid: {chunk.end - undecoded}\n{data}\n")
        return "".join(parts).encode()


def _parse_after(text: str | None) -> int | None:
    if text is not None and not _OFFSET.fullmatch(text):
        raise _wrong("after", text, "give the X-Gaffer-Offset of the answer before")
    return int(text) if text is not None else None


def _parse_tail(text: str | None) -> Tail | None:
    if text is None:
        return None
    match = _TAIL.fullmatch(text)
    if match is None:
        raise _wrong("tail", text, "give a number of lines (20) or bytes (4096b)")
    return Tail(int(match[1]), bool(match[2]))


def _parse_heartbeat(text: str) -> float | None:
    if text == "true":
        return _DEFAULT_HEARTBEAT
    if text == "false":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if seconds == 0:
        return None
    if not _MIN_HEARTBEAT <= seconds <= _MAX_HEARTBEAT:
        raise _wrong("heartbeat", text, f"true, false, or {_MIN_HEARTBEAT:g} to {_MAX_HEARTBEAT:g} seconds")
    return seconds


def _wrong(name: str, value: str, hint: str) -> BadRequest:
    return BadRequest(f"{name}={value!r} can't be used", reason="bad_value", hint=hint)
