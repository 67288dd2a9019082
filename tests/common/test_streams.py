import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.streams.rings import Cursor, Ring

chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=30)


def filled(parts: list[bytes], limit: int) -> Ring:
    ring = Ring(limit)
    for part in parts:
        ring.append(part)
    return ring


@given(chunks, st.integers(1, 200), st.integers(0, 1300), st.integers(1, 100))
def test_reading_gives_the_stream_from_the_offset_or_from_what_is_left(
    parts: list[bytes], limit: int, offset: int, size: int
) -> None:
    everything = b"".join(parts)
    ring = filled(parts, limit)
    chunk = ring.read(offset, size)
    assert chunk.gap == max(0, ring.start - offset)
    assert chunk.offset == min(max(offset, ring.start), ring.end)
    assert chunk.data == everything[chunk.offset : chunk.offset + size]
    assert ring.end == len(everything)
    assert ring.end - ring.start <= max(limit, len(parts[-1]) if parts else 0)


@given(st.lists(st.sampled_from([b"a\n", b"bb", b"\n", b"c\nd\ne", b"x"]), max_size=20), st.integers(0, 8))
def test_tail_lines_begins_where_the_last_lines_do(parts: list[bytes], count: int) -> None:
    text = b"".join(parts)
    ring = filled(parts, 10_000)
    lines = text.splitlines(keepends=True)
    expected = b"".join(lines[-count:]) if count else b""
    assert text[ring.offset_of_tail_lines(count) :] == expected


def test_tail_bytes_stops_at_what_is_left() -> None:
    ring = filled([b"0123456789"] * 5, 20)
    assert ring.offset_of_tail(5) == 45
    assert ring.offset_of_tail(500) == ring.start == 30


async def test_a_cursor_waits_for_data_and_ends_with_the_ring() -> None:
    ring = Ring()
    ring.append(b"before")
    cursor = Cursor(ring)
    waiting = asyncio.ensure_future(cursor.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    ring.append(b"after")
    chunk = await waiting
    assert chunk is not None
    assert (chunk.data, chunk.gap) == (b"after", 0)
    ring.append(b"last")
    ring.close()
    last = await cursor.next()
    assert last is not None
    assert last.data == b"last"
    assert await cursor.next() is None
    assert ring.watchers == 0


async def test_an_overtaken_cursor_learns_how_much_it_lost_and_goes_on() -> None:
    ring = Ring(limit=100)
    cursor = Cursor(ring)
    for number in range(10):
        ring.append(b"%d" % number * 50)
    chunk = await cursor.next(50)
    assert chunk is not None
    assert chunk.gap == 400
    assert chunk.data == b"8" * 50
    assert ring.dropped == 400
    following = await cursor.next(50)
    assert following is not None
    assert (following.gap, following.data) == (0, b"9" * 50)


async def test_a_cursor_that_does_not_read_keeps_nothing() -> None:
    ring = Ring(limit=1000)
    cursors = [Cursor(ring, 0) for _ in range(100)]
    for _ in range(1000):
        ring.append(bytes(100))
    assert ring.end - ring.start <= 1000
    chunk = await cursors[0].next()
    assert chunk is not None
    assert chunk.gap == 100_000 - 1000


async def test_a_cancelled_wait_leaves_the_cursor_usable() -> None:
    ring = Ring()
    cursor = Cursor(ring)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(cursor.next(), 0.01)
    ring.append(b"x")
    chunk = await cursor.next()
    assert chunk is not None
    assert chunk.data == b"x"
