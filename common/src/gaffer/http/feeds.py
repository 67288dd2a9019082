"""Feeds: how a client wants to follow a source (the query), and the waiting between two pieces of it."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta
from tornado.web import RequestHandler

from gaffer.errors import BadRequest
from gaffer.streams import Cursor, Piece, Ring, Source

LONGPOLL, CONTINUOUS, EVENTSOURCE = KINDS = ("longpoll", "continuous", "eventsource")

_DEFAULT_HEARTBEAT = 60.0  # seconds
_MIN_HEARTBEAT, _MAX_HEARTBEAT = 0.1, 86400.0

_OFFSET = re.compile(r"[0-9]{1,18}", re.ASCII)
_TAIL = re.compile(r"([0-9]{1,9})(b?)", re.ASCII)

P = TypeVar("P", bound=Piece)


Heartbeat = Annotated[
    str,
    Meta(pattern="^(true|false|0|[1-9][0-9]{0,3})$", description="Seconds to an empty line; true: 60, false: none."),
]


class FollowQuery(msgspec.Struct):
    """How to follow something."""

    feed: Annotated[
        Literal["longpoll", "continuous", "eventsource"],
        Meta(description="The next piece; all that comes; all that comes as server-sent events."),
    ] = "longpoll"
    heartbeat: Heartbeat = "true"
    after: Annotated[int, Meta(ge=0, description="Begin here: the X-Gaffer-Offset of an earlier answer.")] | None = None
    tail: (
        Annotated[str, Meta(pattern="^[0-9]{1,9}b?$", description="Begin that many lines or events back; `b`: bytes.")]
        | None
    ) = None


class Tail(NamedTuple):
    """The last `size` lines or records, or bytes."""

    size: int
    in_bytes: bool


class FeedQuery(NamedTuple):
    """What the client asked for.

    `heartbeat` in seconds, None for none. `after` is a position in the source; it and `tail` say where to begin.
    `reconnects` means that `after` is what a browser remembers.
    """

    kind: str
    heartbeat: float | None
    after: int | None = None
    tail: Tail | None = None
    reconnects: bool = False

    @classmethod
    def of(cls, handler: RequestHandler, kinds: Sequence[str] = KINDS, *, past: bool = True) -> "FeedQuery":
        """Read `feed`, the first of `kinds` unless given, `heartbeat`, `after` and `tail`.

        A Last-Event-ID header, sent by browsers that reconnect, counts as `after`. Without a `past` there is nothing
        to begin with but what comes next. Raises BadRequest (`bad_value`).
        """
        kind = handler.get_query_argument("feed", kinds[0])
        if kind not in kinds:
            raise _wrong("feed", kind, f"use {', '.join(kinds)}")
        after = _parse_after(handler.get_query_argument("after", None))
        tail = _parse_tail(handler.get_query_argument("tail", None))
        if not past and (after, tail) != (None, None):
            raise BadRequest("there is nothing older than now", reason="bad_value", hint="leave out `after` and `tail`")
        if after is not None and tail is not None:
            raise BadRequest("`after` and `tail` both say where to begin", reason="bad_value", hint="give one of them")
        heartbeat = _parse_heartbeat(handler.get_query_argument("heartbeat", "true"))
        last_event = handler.request.headers.get("Last-Event-ID", "")
        if past and kind == EVENTSOURCE and _OFFSET.fullmatch(last_event):
            return cls(kind, heartbeat, int(last_event), reconnects=True)
        return cls(kind, heartbeat, after, tail)

    def start_in(self, source: Source[Any]) -> int | None:
        """The position to begin at; None when the client didn't say.

        Raises BadRequest for a position not reached yet. One that a browser remembers must be of an earlier life of
        the node, since there was no other way to it: then all that is there is new.
        """
        if self.after is not None:
            if self.after <= source.end:
                return self.after
            if self.reconnects:
                return source.start
            raise _wrong("after", str(self.after), f"it ends at {source.end}")
        if self.tail is None:
            return None
        if isinstance(source, Ring):
            in_ring = source.offset_of_tail if self.tail.in_bytes else source.offset_of_tail_lines
            return in_ring(self.tail.size)
        if self.tail.in_bytes:
            raise _wrong("tail", f"{self.tail.size}b", "give a number of records")
        return source.offset_of_tail(self.tail.size)


class Feed(Generic[P]):
    """A cursor that tells when a heartbeat is due, and when it is through. Use it on the source's loop."""

    def __init__(self, source: Source[P], offset: int, heartbeat: float | None) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cursor = Cursor(source, offset)
        self._heartbeat = heartbeat

    @property
    def offset(self) -> int:
        """Where the next piece begins."""
        return self._cursor.offset

    def end(self) -> None:
        """Make `next` give what is there, and then None."""
        self._cursor.end()

    def close(self) -> None:
        """Nothing more is done for the client."""
        if not self.finished.done():
            self.finished.set_result(None)

    async def next(self, write: Callable[[P], bytes], size: int | None = None) -> bytes | None:
        """What `write` makes of the next piece of `size` positions or fewer, as soon as it makes anything of one.

        Empty when a heartbeat is due. None at the end: the source is closed, or `end()` was called, and all is read.
        """
        try:
            async with asyncio.timeout(self._heartbeat):
                while (piece := await self._cursor.next(size)) is not None:
                    content = write(piece)
                    if content:
                        return content
                return None
        except TimeoutError:
            return b""


def _parse_after(text: str | None) -> int | None:
    if text is not None and not _OFFSET.fullmatch(text):
        raise _wrong("after", text, "give the X-Gaffer-Offset of the answer before")
    return int(text) if text is not None else None


def _parse_tail(text: str | None) -> Tail | None:
    if text is None:
        return None
    match = _TAIL.fullmatch(text)
    if match is None:
        raise _wrong("tail", text, "give a number of lines or events (20), or of bytes (4096b)")
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
