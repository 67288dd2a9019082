"""Output of processes: one bounded ring a stream, and cursors that read it.

A subscriber is a cursor, a position in the ring, not a queue: it costs nothing while it does not read, and when the
ring has moved past it, it learns how many bytes it lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

DEFAULT_LIMIT = 256 * 1024  # bytes a ring keeps
READ_SIZE = 64 * 1024  # bytes a cursor gets at most at a time


class Chunk(NamedTuple):
    """`data` begins at byte `offset` of the stream; `gap` bytes before it were lost to this reader."""

    offset: int
    data: bytes
    gap: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


class Ring:
    """The newest `limit` bytes of a stream. Offsets count from the first byte ever written. Not thread-safe."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.start = 0
        self.end = 0
        self.closed = False
        self.dropped = 0  # bytes that readers lost
        self._chunks: deque[bytes] = deque()
        self._watchers: set[Callable[[], None]] = set()

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

    def close(self) -> None:
        """No more data will come."""
        self.closed = True
        self._wake()

    def read(self, offset: int, size: int = READ_SIZE) -> Chunk:
        """Up to `size` bytes from `offset` on, without consuming them; no data when there is none yet."""
        gap = max(0, self.start - offset)
        self.dropped += gap
        position = min(max(offset, self.start), self.end)
        if position == self.end:
            return Chunk(position, b"", gap)
        # The newest chunks are the ones that are asked for: walk from the end.
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

    def offset_of_tail_bytes(self, count: int) -> int:
        """Where the last `count` bytes begin, or the oldest byte that is left."""
        return max(self.start, self.end - count)

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

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever data comes or the ring closes."""
        self._watchers.add(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Undo `watch`; unknown callbacks are ignored."""
        self._watchers.discard(callback)

    @property
    def watchers(self) -> int:
        """How many wait for data."""
        return len(self._watchers)

    def _wake(self) -> None:
        if self._watchers:
            for callback in tuple(self._watchers):
                callback()


class Cursor:
    """Reads a ring in order, at its own pace. Use it on the loop the ring is filled on."""

    def __init__(self, ring: Ring, offset: int | None = None) -> None:
        self.ring = ring
        self.offset = ring.end if offset is None else offset
        self._ending = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, size: int = READ_SIZE) -> Chunk | None:
        """The next chunk, at most `size` bytes, as soon as there is one; None once all is read and no more comes."""
        while True:
            if self.offset < self.ring.end:
                chunk = self.ring.read(self.offset, size)
                self.offset = chunk.end
                return chunk
            if self.ring.closed or self._ending:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            self.ring.watch(self._wake)
            try:
                await self._waiter
            finally:
                self.ring.unwatch(self._wake)
                self._waiter = None

    def end(self) -> None:
        """No more is wanted than what is there: `next` gives that, then None."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
