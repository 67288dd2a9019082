"""Long answers: how a client wants to follow something (the query), and the waiting between two pieces of it."""

import asyncio
import codecs
import json
import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

from tornado.web import RequestHandler

from gaffer.errors import BadRequest
from gaffer.streams import Chunk, Cursor, Ring

KINDS = ("longpoll", "continuous", "eventsource")

_DEFAULT_HEARTBEAT = 60.0  # seconds
_MIN_HEARTBEAT, _MAX_HEARTBEAT = 0.1, 86400.0

_OFFSET = re.compile(r"[0-9]{1,18}", re.ASCII)
_TAIL = re.compile(r"([0-9]{1,9})(b?)", re.ASCII)
_LINE_END = re.compile(r"\r\n|\r|\n")


class FeedQuery(NamedTuple):
    """What the client asked for: `heartbeat` in seconds, `after` an offset in the stream, `tail` where to begin.

    None means no heartbeat, or that the client didn't say where to begin.
    """

    kind: str
    heartbeat: float | None
    after: int | None
    tail: str | None

    @classmethod
    def of(cls, handler: RequestHandler) -> "FeedQuery":
        """Read `feed`, `heartbeat`, `after` and `tail`; raises BadRequest (`bad_value`) for a wrong one.

        A Last-Event-ID header, sent by browsers that reconnect, counts as `after`.
        """
        kind = handler.get_query_argument("feed", "longpoll")
        if kind not in KINDS:
            raise _wrong("feed", kind, f"use {', '.join(KINDS)}")
        after, tail = handler.get_query_argument("after", None), handler.get_query_argument("tail", None)
        if after is not None and tail is not None:
            raise BadRequest("`after` and `tail` both say where to begin", reason="bad_value", hint="give one of them")
        if after is not None and not _OFFSET.fullmatch(after):
            raise _wrong("after", after, "give the X-Gaffer-Offset of the answer before")
        if tail is not None and not _TAIL.fullmatch(tail):
            raise _wrong("tail", tail, "give a number of lines (20) or bytes (4096b)")
        last_event = handler.request.headers.get("Last-Event-ID", "")
        if kind == "eventsource" and _OFFSET.fullmatch(last_event):
            after, tail = last_event, None
        heartbeat = _parse_heartbeat(handler.get_query_argument("heartbeat", "true"))
        return cls(kind, heartbeat, int(after) if after is not None else None, tail)

    def start_in(self, ring: Ring) -> int | None:
        """The offset to begin at; None when the client didn't say. Raises BadRequest for one not reached yet."""
        if self.after is not None:
            if self.after > ring.end:
                raise _wrong("after", str(self.after), f"the stream ends at {ring.end}")
            return self.after
        if self.tail is None:
            return None
        match = _TAIL.fullmatch(self.tail)
        assert match is not None
        count = int(match[1])
        return ring.offset_of_tail_bytes(count) if match[2] else ring.offset_of_tail_lines(count)


class Feed:
    """One reader of a ring, which can be told to end."""

    def __init__(self, ring: Ring, offset: int, heartbeat: float | None) -> None:
        self.ring = ring
        self._cursor = Cursor(ring, offset)
        self._heartbeat = heartbeat
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def offset(self) -> int:
        """Where the next chunk begins."""
        return self._cursor.offset

    def end(self) -> None:
        """Make `steps` end."""
        if not self._over.done():
            self._over.set_result(None)

    async def steps(self) -> AsyncGenerator[Chunk | None]:
        """Each chunk as it comes, None when a heartbeat is due; ends with the stream or by `end()`."""
        reading: asyncio.Task[Chunk | None] | None = None
        try:
            while not self._over.done():
                reading = reading or asyncio.ensure_future(self._cursor.next())
                await asyncio.wait((reading, self._over), timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    chunk, reading = reading.result(), None
                    if chunk is None:
                        return
                    yield chunk
                elif not self._over.done():
                    yield None
        finally:
            if reading is not None:
                reading.cancel()
            self._cursor.close()


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
            lost = {"from": chunk.offset - chunk.gap, "to": chunk.offset}
            parts.append(f"event: gap\ndata: {json.dumps(lost)}\n\n")
        text = self._decoder.decode(chunk.data)
        if text:
            lines = _LINE_END.split(text)
            if len(lines) > 1 and not lines[-1]:
                lines.pop()
            undecoded = len(self._decoder.getstate()[0])
            data = "".join(f"data: {line}\n" for line in lines)
            parts.append(f"event: {self._event}\nid: {chunk.end - undecoded}\n{data}\n")
        return "".join(parts).encode()


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
