"""The pieces of a feed: waiting for chunks, and the text of server-sent events."""

import asyncio
import itertools
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.http.feeds import EventStream, Feed
from gaffer.streams import Chunk, Ring
from support.poll import eventually_async


async def take(feed: Feed, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    async with aclosing(feed.steps()) as steps:
        async for chunk in steps:
            found.append(chunk.data if chunk is not None else None)
            if len(found) == count:
                break
    return found


async def test_chunks_come_as_they_are_written_and_end_with_the_ring() -> None:
    ring = Ring()
    ring.append(b"old")
    reading = asyncio.create_task(take(Feed(ring, ring.end, None), 10))
    for data in (b"a", b"b"):
        await eventually_async(lambda: ring.watchers)
        ring.append(data)
    ring.append(b"last")
    ring.close()
    assert b"".join(data or b"" for data in await reading) == b"ablast"
    assert ring.watchers == 0


async def test_ending_a_feed_gives_what_is_there_first() -> None:
    ring = Ring()
    ring.append(b"rest")
    feed = Feed(ring, 0, None)
    feed.end()
    assert await take(feed, 10) == [b"rest"]
    assert feed.finished.done()


async def test_a_waiting_feed_ends_at_once() -> None:
    feed = Feed(Ring(), 0, None)
    reading = asyncio.create_task(take(feed, 10))
    await asyncio.sleep(0)
    feed.end()
    assert await asyncio.wait_for(reading, 5) == []


async def test_heartbeats_come_while_nothing_else_does() -> None:
    ring = Ring()
    ring.append(b"a")
    assert await asyncio.wait_for(take(Feed(ring, 0, 0.01), 4), 5) == [b"a", None, None, None]


def parse(stream: bytes) -> list[dict[str, str]]:
    """What a browser makes of an event stream: the fields of each event, `data` lines joined."""
    events = []
    for block in stream.decode().split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"ECHO\n", "ECHO"),
        (b"a\nb\n", "a\nb"),
        (b"a\n\n", "a\n"),
        (b"no end", "no end"),
        (b"a\r\nb\rc", "a\nb\nc"),
        (b"\xff", "\ufffd"),
        (b"\n", ""),
        (b"id: 7\ndata: x\n\nevent: evil\n", "id: 7\ndata: x\n\nevent: evil"),
    ],
)
def test_the_data_of_an_event(data: bytes, expected: str) -> None:
    [event] = parse(EventStream("out").format(Chunk(10, data, 0)))
    assert event == {"event": "out", "id": str(10 + len(data)), "data": expected}


def test_a_gap_comes_before_what_follows_it() -> None:
    gap, event = parse(EventStream("out").format(Chunk(30, b"x", 20)))
    assert gap == {"event": "gap", "data": '{"from":10,"to":30}'}
    assert event["id"] == "31"


@given(st.text(alphabet="aé€\U0001f600"), st.lists(st.integers(0, 200), max_size=5))
def test_characters_cut_in_two_arrive_whole_and_ids_never_lie_within_one(text: str, cuts: list[int]) -> None:
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream, found = EventStream("out"), ""
    for begin, end in itertools.pairwise(bounds):
        for event in parse(stream.format(Chunk(begin, data[begin:end], 0))):
            found += event["data"]
            data[int(event["id"]) :].decode()  # a reconnect begins with a whole character
    assert found == text
