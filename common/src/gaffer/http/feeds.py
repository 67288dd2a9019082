"""Feeds: the query that selects how to follow a source, and the cursor that waits for its pieces."""

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

# Stands for a position that belongs to no source.
_ELSEWHERE = Position("0", 0)

P = TypeVar("P", bound=Piece)


Heartbeat = Annotated[
    str,
    Meta(
        pattern=f"^({_HEARTBEAT_PATTERN})$",
        description="Seconds between heartbeats (empty lines), 0.1 to 86400; `true`: 60; `false` or 0: no heartbeats.",
    ),
]
After = Annotated[
    str,
    Meta(
        pattern=f"^{PATTERN}$",
        description="Position to start at: the X-Gaffer-Offset or event id of an earlier response.",
    ),
]
TailSize = Annotated[
    str,
    Meta(
        pattern=f"^{_TAIL_PATTERN}$",
        description="Start this number of lines or events back, or of bytes with the suffix `b`.",
    ),
]


class StartQuery(msgspec.Struct):
    """The position to start at; by default the current end."""

    after: After | None = None
    tail: TailSize | None = None


class FollowQuery(StartQuery):
    """How to follow a source."""

    feed: Annotated[
        Literal["longpoll", "continuous", "eventsource"],
        Meta(
            description="`longpoll`: one piece; `continuous`: a stream; `eventsource`: a stream of server-sent events."
        ),
    ] = "longpoll"
    heartbeat: Heartbeat = "true"


class Tail(NamedTuple):
    """The last `size` lines or records, or bytes if `in_bytes`."""

    size: int
    in_bytes: bool


class FeedQuery(NamedTuple):
    """A parsed feed query.

    `heartbeat` is in seconds, None for no heartbeats. `after`, a position in the source, or `tail` is where to start.
    """

    kind: str
    heartbeat: float | None
    after: Position | None = None
    tail: Tail | None = None

    @classmethod
    def of(cls, handler: RequestHandler, kinds: Sequence[str] = KINDS, *, past: bool = True) -> "FeedQuery":
        """Parse the arguments `feed` (by default the first of `kinds`), `heartbeat`, `after` and `tail` of a request.

        A Last-Event-ID header, which browsers send when they reconnect, takes precedence over `after`. An event id
        without an epoch was issued by an earlier version and belongs to no source. Without `past`, `after` and `tail`
        are rejected. Raises BadRequest (`bad_value`).
        """
        kind = handler.get_query_argument("feed", kinds[0])
        if kind not in kinds:
            raise _invalid("feed", kind, f"use {', '.join(kinds)}")
        after = _parse_after(handler.get_query_argument("after", None))
        tail = parse_tail(handler.get_query_argument("tail", None))
        if not past and (after, tail) != (None, None):
            raise BadRequest("`after` and `tail` are not supported here", reason="bad_value", hint="omit them")
        if after is not None and tail is not None:
            raise BadRequest("`after` and `tail` are mutually exclusive", reason="bad_value", hint="use one of them")
        heartbeat = parse_heartbeat(handler.get_query_argument("heartbeat", "true"))
        last_event = handler.request.headers.get("Last-Event-ID", "")
        if past and last_event:
            resumed = Position.parse(last_event)
            return cls(kind, heartbeat, resumed if resumed is not None and resumed.epoch else _ELSEWHERE)
        return cls(kind, heartbeat, after, tail)

    def is_elsewhere(self, source: Source[Any]) -> bool:
        """Return whether `after` is a position in another source, such as that of an earlier run of the node."""
        after = self.after
        return after is not None and after.epoch != "" and (after.epoch != source.epoch or after.offset > source.end)

    def start_in(self, source: Source[Any]) -> int | None:
        """Return the position to start at; None if the client named none.

        For a position in another source this is the oldest one retained, since all of this source is new to the client.
        Raises BadRequest for a position that has not been reached.
        """
        if self.after is not None:
            if self.is_elsewhere(source):
                return source.start
            if self.after.offset > source.end:
                raise _invalid("after", str(self.after), f"use at most {source.end}, the current end")
            return self.after.offset
        if self.tail is None:
            return None
        if isinstance(source, Ring):
            in_ring = source.offset_of_tail if self.tail.in_bytes else source.offset_of_tail_lines
            return in_ring(self.tail.size)
        if self.tail.in_bytes:
            raise _invalid("tail", f"{self.tail.size}b", "use a number of records")
        return source.offset_of_tail(self.tail.size)


class Feed(Generic[P]):
    """A cursor with heartbeats; `finished` is done once it is closed. Use it on the source's loop."""

    def __init__(self, source: Source[P], offset: int, heartbeat: float | None) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cursor = Cursor(source, offset)
        self._heartbeat = heartbeat

    @property
    def offset(self) -> int:
        """The position of the next piece."""
        return self._cursor.offset

    def end(self) -> None:
        """Make `next` return what is available, and then None."""
        self._cursor.end()

    def close(self) -> None:
        """Finish the feed."""
        if not self.finished.done():
            self.finished.set_result(None)

    async def next(self, write: Callable[[P], bytes], size: int | None = None) -> bytes | None:
        """Wait for a piece of at most `size` positions for which `write` returns any bytes, and return these.

        Returns empty bytes when a heartbeat is due, and None at the end: the source is closed or `end()` was called,
        and everything has been read.
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
        raise _invalid("after", text, "use the X-Gaffer-Offset of the previous response")
    return position


def parse_tail(text: str | None) -> Tail | None:
    """Return the tail in `text`, if any; raises BadRequest (`bad_value`)."""
    if text is None:
        return None
    match = _TAIL.fullmatch(text)
    if match is None:
        raise _invalid("tail", text, "use a number of lines or events (20), or of bytes (4096b)")
    return Tail(int(match[1]), bool(match[2]))


def parse_heartbeat(text: str) -> float | None:
    """Return the seconds in `text`, None for no heartbeats; raises BadRequest (`bad_value`)."""
    if HEARTBEAT.fullmatch(text) is None:
        raise _invalid("heartbeat", text, "use true, false, or 0.1 to 86400 seconds")
    if text == "true":
        return _DEFAULT_HEARTBEAT
    return (float(text) or None) if text != "false" else None


def _invalid(name: str, value: str, hint: str) -> BadRequest:
    return BadRequest(f"invalid value {name}={value!r}", reason="bad_value", hint=hint)
