"""Output of processes: one bounded ring a stream, and cursors that read it.

A subscriber is a cursor, a position in the ring, not a queue: it costs nothing while it does not read, and when the
ring has moved past it, it learns how much it lost. Cursors read a `Log` of records as they read a `Ring` of bytes.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

from gaffer.streams.position import Position

DEFAULT_LIMIT = 256 * 1024  # bytes a ring keeps
READ_SIZE = 64 * 1024  # bytes a cursor gets at most at a time


class Piece(Protocol):
    """What one read gives: the part of a source up to `end`; `gap` positions before it were lost to this reader."""

    @property
    def end(self) -> int:
        """The position after the last."""

    @property
    def gap(self) -> int:
        """How many positions before the first were lost."""


P = TypeVar("P", bound=Piece)


class Losses:
    """Counts the positions that readers of several sources lost, and keeps them when the sources are gone."""

    def __init__(self) -> None:
        self.count = 0


class Source(Generic[P]):
    """What cursors read: positions `start` to `end` are there, older ones were dropped. Not thread-safe."""

    read_size: int  # positions that a cursor gets at most at a time

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.closed = False
        self.dropped = 0  # positions that readers lost
        self.losses: Losses | None = None  # where they are counted together with those of other sources
        self._watchers: set[Callable[[], None]] = set()

    def read(self, offset: int, size: int) -> P:
        """Up to `size` positions from `offset` on, without consuming them; an empty piece when there are none yet."""
        raise NotImplementedError

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self._wake()

    def reopen(self) -> None:
        """More may come again."""
        self.closed = False

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever something comes or the source closes."""
        self._watchers.add(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Undo `watch`; unknown callbacks are ignored."""
        self._watchers.discard(callback)

    @cached_property
    def epoch(self) -> str:
        """Random: no other source has it, also not one of the same name in a later life of the program."""
        return secrets.token_hex(8)

    def position(self, offset: int) -> Position:
        """The offset, for a reader that is to resume there."""
        return Position(self.epoch, offset)

    @property
    def watchers(self) -> int:
        """How many wait."""
        return len(self._watchers)

    def offset_of_tail(self, count: int) -> int:
        """Where the last `count` positions begin, or the oldest that is left."""
        return max(self.start, self.end - count)

    def _lost(self, offset: int) -> int:
        gap = max(0, self.start - offset)
        if gap:
            self.dropped += gap
            if self.losses is not None:
                self.losses.count += gap
        return gap

    def _wake(self) -> None:
        if self._watchers:
            for callback in tuple(self._watchers):
                callback()


class Chunk(NamedTuple):
    """`data` begins at byte `offset` of the stream; `gap` bytes before it were lost to this reader."""

    offset: int
    data: bytes
    gap: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


class Ring(Source[Chunk]):
    """The newest `limit` bytes of a stream. Offsets count from the first byte ever written."""

    read_size = READ_SIZE

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        super().__init__()
        self.limit = limit
        self._chunks: deque[bytes] = deque()

    def append(self, data: bytes) -> None:
        """Add `data` and wake who waits."""
        if not data:
            return
        self._chunks.append(data)
        self.end += len(data)
        # Whole chunks leave, so the ring may keep up to one chunk less than its limit.
        while self.end - self.start > self.limit and len(self._chunks) > 1:
            self.start += len(self._chunks.popleft())
        self._wake()

    def read(self, offset: int, size: int = READ_SIZE) -> Chunk:
        """Up to `size` bytes from `offset` on, without consuming them; no data when there is none yet."""
        gap = self._lost(offset)
        position = min(max(offset, self.start), self.end)
        if position == self.end:
            return Chunk(position, b"", gap)
        # The newest chunks are the ones that are asked for, most often the last one: walk from the end.
        newest = self._chunks[-1]
        if position == self.end - len(newest) and len(newest) <= size:
            return Chunk(position, newest, gap)
        newer: list[bytes] = []
        at = self.end
        for chunk in reversed(self._chunks):
            at -= len(chunk)
            newer.append(chunk)
            if at <= position:
                break
        skip = position - at
        parts: list[bytes] = []
        found = -skip
        while newer and found < size:
            parts.append(newer.pop())
            found += len(parts[-1])
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return Chunk(position, data[skip : skip + size], gap)

    def offset_of_tail_lines(self, count: int) -> int:
        """Where the last `count` lines begin, or the oldest byte that is left; an unfinished line counts."""
        if count <= 0:
            return self.end
        at = self.end
        left = count + 1
        for chunk in reversed(self._chunks):
            position = len(chunk)
            if at == self.end and chunk.endswith(b"\n"):
                position -= 1
            while (position := chunk.rfind(b"\n", 0, position)) != -1:
                left -= 1
                if left == 1:
                    return at - len(chunk) + position + 1
            at -= len(chunk)
        return self.start


T = TypeVar("T")


class Records(NamedTuple, Generic[T]):
    """`items`, of which the first has the number `offset`; `gap` records before it were lost to this reader."""

    offset: int
    items: list[T]
    gap: int

    @property
    def end(self) -> int:
        """The number after the last item."""
        return self.offset + len(self.items)


class Log(Source[Records[T]]):
    """The newest `limit` records of a sequence, numbered from 0 on."""

    read_size = 100

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._records: deque[T] = deque(maxlen=limit)

    def append(self, record: T) -> None:
        """Add a record and wake who waits."""
        self._records.append(record)
        self.end += 1
        self.start = self.end - len(self._records)
        self._wake()

    def read(self, offset: int, size: int = read_size) -> Records[T]:
        """Up to `size` records from number `offset` on; none when there are none yet."""
        gap = self._lost(offset)
        position = min(max(offset, self.start), self.end)
        first = position - self.start
        records = self._records
        # By index, which a deque finds from its nearer end: most readers are at the newest record.
        return Records(position, [records[at] for at in range(first, min(first + size, len(records)))], gap)


class Cursor(Generic[P]):
    """Reads a source in order, at its own pace, from now on unless `offset` says where. Use it on the source's loop."""

    def __init__(self, source: Source[P], offset: int | None = None) -> None:
        self.source = source
        self.offset = source.end if offset is None else offset
        self._ending = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, size: int | None = None) -> P | None:
        """The next piece, of `size` positions or fewer, once there is one; None when all is read and no more comes."""
        while True:
            if self.offset < self.source.end:
                piece = self.source.read(self.offset, size or self.source.read_size)
                self.offset = piece.end
                return piece
            if self.source.closed or self._ending:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            self.source.watch(self._wake)
            try:
                await self._waiter
            finally:
                self.source.unwatch(self._wake)
                self._waiter = None

    def end(self) -> None:
        """No more is wanted than what is there: `next` gives that, then None."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
