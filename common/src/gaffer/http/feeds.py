"""Feeds: how a client wants to follow a source (the query), and the waiting between two pieces of it."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta
from tornado.web import RequestHandler

from gaffer.errors import BadRequest
from gaffer.streams.position import PATTERN, Position
from gaffer.streams.rings import Cursor, Piece, Ring, Source

LONGPOLL, CONTINUOUS, EVENTSOURCE = KINDS = ("longpoll", "continuous", "eventsource")

_DEFAULT_HEARTBEAT = 60.0  # seconds
_ZEROS, _DIGITS = r"(?:\.0{1,18})?", r"(?:\.[0-9]{1,18})?"
# 0, or 0.1 to 86400 seconds.
_SECONDS = (
    rf"0{_ZEROS}|0\.[1-9][0-9]{{0,17}}|[1-9][0-9]{{0,3}}{_DIGITS}|[1-7][0-9]{{4}}{_DIGITS}"
    rf"|8[0-5][0-9]{{3}}{_DIGITS}|86[0-3][0-9]{{2}}{_DIGITS}|86400{_ZEROS}"
)
_HEARTBEAT_PATTERN = f"true|false|{_SECONDS}"
_TAIL_PATTERN = "([0-9]{1,9})(b?)"

HEARTBEAT = re.compile(_HEARTBEAT_PATTERN, re.ASCII)
_TAIL = re.compile(_TAIL_PATTERN, re.ASCII)

# Where a reader stood that names a position which is not of this source.
_ELSEWHERE = Position("0", 0)

P = TypeVar("P", bound=Piece)


Heartbeat = Annotated[
    str,
    Meta(
        pattern=f"^({_HEARTBEAT_PATTERN})$",
        description="Seconds to an empty line, 0.1 to 86400; true: 60, false or 0: none.",
    ),
]
After = Annotated[
    str,
    Meta(pattern=f"^{PATTERN}$", description="Begin here: the X-Gaffer-Offset or event id of an earlier answer."),
]
TailSize = Annotated[
    str, Meta(pattern=f"^{_TAIL_PATTERN}$", description="Begin that many lines or events back; `b`: bytes.")
]


class StartQuery(msgspec.Struct):
    """Where to begin; else with what comes next."""

    after: After | None = None
    tail: TailSize | None = None


class FollowQuery(StartQuery):
    """How to follow something."""

    feed: Annotated[
        Literal["longpoll", "continuous", "eventsource"],
        Meta(description="The next piece; all that comes; all that comes as server-sent events."),
    ] = "longpoll"
    heartbeat: Heartbeat = "true"


class Tail(NamedTuple):
    """The last `size` lines or records, or bytes."""

    size: int
    in_bytes: bool


class FeedQuery(NamedTuple):
    """What the client asked for.

    `heartbeat` in seconds, None for none. `after` is a position in the source; it and `tail` say where to begin.
    """

    kind: str
    heartbeat: float | None
    after: Position | None = None
    tail: Tail | None = None

    @classmethod
    def of(cls, handler: RequestHandler, kinds: Sequence[str] = KINDS, *, past: bool = True) -> "FeedQuery":
        """Read `feed`, the first of `kinds` unless given, `heartbeat`, `after` and `tail`.

        A Last-Event-ID header, sent by browsers that reconnect, goes before `after`. Ids have an epoch; one without was
        given by an earlier version. Without a `past` there is nothing to begin with but what comes next. Raises
        BadRequest (`bad_value`).
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
        if past and last_event:
            resumed = Position.parse(last_event)
            return cls(kind, heartbeat, resumed if resumed is not None and resumed.epoch else _ELSEWHERE)
        return cls(kind, heartbeat, after, tail)

    def is_elsewhere(self, source: Source[Any]) -> bool:
        """Whether `after` is a position in another source, such as that of an earlier life of the node."""
        after = self.after
        return after is not None and after.epoch != "" and (after.epoch != source.epoch or after.offset > source.end)

    def start_in(self, source: Source[Any]) -> int | None:
        """The position to begin at; None when the client didn't say.

        For a position elsewhere that is the oldest that is kept, since all of it is new to the client. Raises
        BadRequest for a position not reached yet.
        """
        if self.after is not None:
            if self.is_elsewhere(source):
                return source.start
            if self.after.offset > source.end:
                raise _wrong("after", str(self.after), f"it ends at {source.end}")
            return self.after.offset
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


def _parse_after(text: str | None) -> Position | None:
    if text is None:
        return None
    position = Position.parse(text)
    if position is None:
        raise _wrong("after", text, "give the X-Gaffer-Offset of the answer before")
    return position


def _parse_tail(text: str | None) -> Tail | None:
    if text is None:
        return None
    match = _TAIL.fullmatch(text)
    if match is None:
        raise _wrong("tail", text, "give a number of lines or events (20), or of bytes (4096b)")
    return Tail(int(match[1]), bool(match[2]))


def _parse_heartbeat(text: str) -> float | None:
    if HEARTBEAT.fullmatch(text) is None:
        raise _wrong("heartbeat", text, "give true, false, or 0.1 to 86400 seconds")
    if text == "true":
        return _DEFAULT_HEARTBEAT
    return (float(text) or None) if text != "false" else None


def _wrong(name: str, value: str, hint: str) -> BadRequest:
    return BadRequest(f"{name}={value!r} can't be used", reason="bad_value", hint=hint)
