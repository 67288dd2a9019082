"""Feeds of the changes of what a search found: coalesced, bounded for each reader, resumable.

A reader is a position in a log of changes, whatever the log records. What it missed is reported by an event `reset`,
after which the reader searches again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from gaffer.http.feed_formats import HEARTBEAT_EVENT, encode_event
from gaffer.http.feeds import After, Heartbeat, parse_heartbeat
from gaffer.http.search import FilterQuery, Tally
from gaffer.streams.position import Position
from gaffer.streams.rings import Cursor, Log, Records

INTERVAL = 0.25  # seconds between two events
MOST_RECORDS = 2000  # of the log in one event
MOST_ITEMS = 500  # in one event

T = TypeVar("T")


class ChangesQuery(FilterQuery, kw_only=True, forbid_unknown_fields=True):
    """The changes of which items to follow."""

    after: (
        Annotated[
            After,
            Meta(description="`EPOCH:SEQ` of a search, or the id of the last event, which Last-Event-ID overrides."),
        ]
        | None
    ) = None
    heartbeat: Heartbeat = "15"


class Start(NamedTuple):
    """Where a reader begins, and whether it `missed` changes before that."""

    offset: int
    missed: bool

    @classmethod
    def of(cls, source: Log[Any], epoch: str, after: str | None) -> "Start":
        """Return where to continue `after` a position, by default at the end of the source, whose id is `epoch`."""
        position = Position.parse(after) if after is not None else None
        if after is None:
            return cls(source.end, missed=False)
        if position is None or position.epoch != epoch or not source.start <= position.offset <= source.end:
            return cls(source.end, missed=True)
        return cls(position.offset, missed=False)


class News(NamedTuple):
    """What changed in an interval; `changed` are items that match now, `removed` the keys of those that do not.

    `more` are further fields of the event.
    """

    changed: list[Any]
    removed: list[str]
    tally: Tally
    more: dict[str, Any]


class ItemFeed(Generic[T]):
    """A reader of a log of changes; `finished` is done once it is closed. Use it on the log's loop."""

    def __init__(self, source: Log[T], epoch: str, after: str | None, heartbeat: str) -> None:
        """Begin `after` a position of the log, whose id is `epoch`; raises BadRequest for an invalid heartbeat."""
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._source = source
        self._epoch = epoch
        self._heartbeat = parse_heartbeat(heartbeat)
        start, self._missed = Start.of(source, epoch, after)
        self._cursor: Cursor[Records[T]] = Cursor(source, start)
        self._ending = asyncio.Event()
        self._earliest = 0.0

    def end(self) -> None:
        """Let `run` send what is available, and return."""
        self._ending.set()
        self._cursor.end()

    def close(self) -> None:
        """Finish the feed."""
        if not self.finished.done():
            self.finished.set_result(None)

    async def run(
        self, find: Callable[[list[T]], Awaitable[News | None]], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Send events until the log is closed or `end` was called.

        `find` returns the news for some records of the log, None if it would be too much for one event. Nothing is sent
        for news without items, except when `more` differs from before.
        """
        more: dict[str, Any] = {}
        if self._missed:
            await send(self._reset())
        while (records := await self._next()) is not None:
            news = await find(records) if records and not self._missed else None
            if self._missed or (records and news is None):
                await send(self._reset())
            elif news is not None and (news.changed or news.removed or news.more != more):
                more = news.more
                await send(self._items(news))
            else:
                await send(HEARTBEAT_EVENT)

    async def _next(self) -> list[T] | None:
        """Wait for records; return none of them when a heartbeat is due, and None at the end."""
        self._missed = False
        try:
            async with asyncio.timeout(self._heartbeat):
                first = await self._cursor.next()
        except TimeoutError:
            return []
        if first is None:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._earliest - time.monotonic())):
                await self._ending.wait()
        self._earliest = time.monotonic() + INTERVAL
        records = list(first.items)
        self._missed = first.gap > 0
        while self._cursor.offset < self._source.end and not self._missed:
            piece = self._source.read(self._cursor.offset)
            self._cursor.offset = piece.end
            records += piece.items
            self._missed = piece.gap > 0 or len(records) > MOST_RECORDS
        if self._missed:
            self._cursor.offset = self._source.end
        return records

    def _items(self, news: News) -> bytes:
        content = {
            "changed": news.changed,
            "removed": news.removed,
            "total": news.tally.total,
            "counts": news.tally.counts,
            **news.more,
        }
        return encode_event("items", msgspec.json.encode(content).decode(), self._position)

    def _reset(self) -> bytes:
        return encode_event("reset", "{}", self._position)

    @property
    def _position(self) -> Position:
        return Position(self._epoch, self._cursor.offset)
