"""Output of processes: one bounded ring per stream, and cursors that read it.

A subscriber is a cursor, a position in the ring, not a queue: it costs nothing while it does not read, and if the ring
has moved past it, the next read reports how much was lost. Cursors read a `Log` of records like a `Ring` of bytes.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import chain
from typing import Generic, NamedTuple, Protocol, TypeVar

from gaffer.streams.position import Position

DEFAULT_LIMIT = 256 * 1024  # bytes that a ring keeps
LARGEST_LIMIT = 16 * 1024 * 1024  # bytes that it keeps at most, for a moment
READ_SIZE = 64 * 1024  # maximum bytes that a cursor gets at a time


class Piece(Protocol):
    """The result of one read: the part of a source up to `end`; the `gap` positions before it were lost."""

    @property
    def end(self) -> int:
        """The position after the last one."""

    @property
    def gap(self) -> int:
        """The number of positions lost before the first one."""


P = TypeVar("P", bound=Piece)


class Losses:
    """A count of positions that readers of several sources lost, which outlives the sources."""

    def __init__(self) -> None:
        self.count = 0


class Source(Generic[P]):
    """A source for cursors: it holds positions `start` to `end`; older ones were dropped. Not thread-safe."""

    read_size: int  # maximum positions that a cursor gets at a time

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.closed = False
        self.dropped = 0  # positions that readers lost
        self.losses: Losses | None = None  # the total over several sources
        self._watchers: set[Callable[[], None]] = set()

    def read(self, offset: int, size: int) -> P:
        """Return up to `size` positions from `offset`, without consuming them; empty if there are none yet."""
        raise NotImplementedError

    def close(self) -> None:
        """Mark the end of the source."""
        self.closed = True
        self._wake()

    def reopen(self) -> None:
        """Undo `close`."""
        self.closed = False

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever data is added or the source closes."""
        self._watchers.add(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Undo `watch`; unknown callbacks are ignored."""
        self._watchers.discard(callback)

    @cached_property
    def epoch(self) -> str:
        """A random id that distinguishes this source from all others, including its successors after a restart."""
        return secrets.token_hex(8)

    def position(self, offset: int) -> Position:
        """Return the position of `offset`, for a reader that resumes there."""
        return Position(self.epoch, offset)

    @property
    def watchers(self) -> int:
        """The number of watchers."""
        return len(self._watchers)

    def offset_of_tail(self, count: int) -> int:
        """Return the offset of the last `count` positions, or of the oldest one left."""
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
    """A piece of a stream: `data` begins at byte `offset`; the `gap` bytes before it were lost to this reader."""

    offset: int
    data: bytes
    gap: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


def _cut(chunks: Iterable[bytes], skip: int, size: int) -> bytes:
    """Return up to `size` bytes of consecutive chunks after the first `skip`."""
    parts: list[bytes] = []
    found = -skip
    for chunk in chunks:
        parts.append(chunk)
        found += len(chunk)
        if found >= size:
            break
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return data[skip : skip + size]


class Ring(Source[Chunk]):
    """The newest `limit` bytes of a stream. Offsets count from the first byte ever written."""

    read_size = READ_SIZE

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        super().__init__()
        self.limit = limit
        self._chunks: deque[bytes] = deque()

    def resume(self, epoch: str, offset: int) -> None:
        """Continue the ring with this epoch at `offset`; call it before anything is appended."""
        self.epoch = epoch
        self.start = self.end = offset

    def append(self, data: bytes) -> None:
        """Append `data` and wake the watchers."""
        if not data:
            return
        self._chunks.append(data)
        self.end += len(data)
        # Whole chunks are dropped, so the ring may keep up to one chunk less than its limit.
        while self.end - self.start > self.limit and len(self._chunks) > 1:
            self.start += len(self._chunks.popleft())
        self._wake()

    def read(self, offset: int, size: int = READ_SIZE) -> Chunk:
        """Return up to `size` bytes from `offset`, without consuming them; empty if there are none yet."""
        gap = self._lost(offset)
        position = min(max(offset, self.start), self.end)
        if position == self.end:
            return Chunk(position, b"", gap)
        # Reads are usually of the newest chunks, mostly the last one: walk from the end.
        newest = self._chunks[-1]
        if position == self.end - len(newest) and len(newest) <= size:
            return Chunk(position, newest, gap)
        if self.end - position <= position - self.start:
            return Chunk(position, self._from_end(position, size), gap)
        return Chunk(position, self._from_start(position, size), gap)

    def _from_end(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`, which is nearer to the end."""
        newer: list[bytes] = []
        at = self.end
        for chunk in reversed(self._chunks):
            at -= len(chunk)
            newer.append(chunk)
            if at <= position:
                break
        return _cut(reversed(newer), position - at, size)

    def _from_start(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`, which is nearer to the start, as that of a slow reader."""
        at = self.start
        chunks = iter(self._chunks)
        for chunk in chunks:
            if at + len(chunk) > position:
                return _cut(chain((chunk,), chunks), position - at, size)
            at += len(chunk)
        return b""

    def offset_of_tail_lines(self, count: int) -> int:
        """Return the offset of the last `count` lines, or of the oldest byte left; an unfinished line counts."""
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
    """A piece of a log: `items`, numbered from `offset`; the `gap` records before it were lost to this reader."""

    offset: int
    items: list[T]
    gap: int

    @property
    def end(self) -> int:
        """The number after the last item."""
        return self.offset + len(self.items)


class Log(Source[Records[T]]):
    """The newest `limit` records of a sequence, numbered from 0."""

    read_size = 100

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._records: deque[T] = deque(maxlen=limit)

    def append(self, record: T) -> None:
        """Append a record and wake the watchers."""
        self._records.append(record)
        self.end += 1
        self.start = self.end - len(self._records)
        self._wake()

    def read(self, offset: int, size: int = read_size) -> Records[T]:
        """Return up to `size` records from number `offset`; empty if there are none yet."""
        gap = self._lost(offset)
        position = min(max(offset, self.start), self.end)
        first = position - self.start
        records = self._records
        # By index, which a deque looks up from its nearer end: most readers are near the newest record.
        return Records(position, [records[at] for at in range(first, min(first + size, len(records)))], gap)


class Cursor(Generic[P]):
    """A reader of a source, in order, from `offset`, by default the current end. Use it on the source's loop."""

    def __init__(self, source: Source[P], offset: int | None = None) -> None:
        self.source = source
        self.offset = source.end if offset is None else offset
        self._ending = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, size: int | None = None) -> P | None:
        """Wait for and return the next piece, of up to `size` positions; None at the end."""
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
        """Stop at the current end of the source: `next` returns what is left, then None."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
