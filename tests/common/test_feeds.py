"""The pieces of a feed: waiting for what comes, where to begin, and how it is written."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import BadRequest
from gaffer.http.feed_formats import Messages, Output, to_json
from gaffer.http.feeds import Feed, FeedQuery, Tail
from gaffer.streams import Chunk, Log, Records, Ring, Source
from support.poll import eventually_async


async def take(feed: Feed[Any], count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count and (content := await feed.next(Output("out").plain)) is not None:
        found.append(content)
    return found


async def test_pieces_come_as_they_are_written_and_end_with_the_source() -> None:
    ring = Ring()
    ring.append(b"old")
    reading = asyncio.create_task(take(Feed(ring, ring.end, None), 10))
    for data in (b"a", b"b"):
        await eventually_async(lambda: ring.watchers)
        ring.append(data)
    ring.append(b"last")
    ring.close()
    assert b"".join(await reading) == b"ablast"
    assert ring.watchers == 0


async def test_ending_a_feed_gives_what_is_there_first() -> None:
    ring = Ring()
    ring.append(b"rest")
    feed = Feed(ring, 0, None)
    feed.end()
    assert await take(feed, 10) == [b"rest"]


async def test_a_waiting_feed_ends_at_once() -> None:
    feed = Feed(Ring(), 0, None)
    reading = asyncio.create_task(take(feed, 10))
    await asyncio.sleep(0)
    feed.end()
    assert await asyncio.wait_for(reading, 5) == []


async def test_heartbeats_come_while_nothing_else_does() -> None:
    ring = Ring()
    ring.append(b"a")
    assert await asyncio.wait_for(take(Feed(ring, 0, 0.01), 4), 5) == [b"a", b"", b"", b""]


async def test_heartbeats_come_also_while_all_that_comes_is_for_others() -> None:
    log: Log[int] = Log(10)
    feed = Feed(log, 0, 0.05)
    due = asyncio.create_task(feed.next(Messages(lambda number: None).plain))
    while not due.done():
        log.append(1)
        await asyncio.sleep(0.001)
    assert await due == b""


def filled(source: Source[Any]) -> Source[Any]:
    for letter in "abcdef":
        source.append(letter.encode() + b"\n")  # type: ignore[attr-defined]
    return source


@pytest.mark.parametrize(
    ("source", "query", "start"),
    [
        (Ring(), FeedQuery("longpoll", None), None),
        (Ring(), FeedQuery("longpoll", None, after=3), 3),
        (Ring(), FeedQuery("longpoll", None, tail=Tail(2, False)), 8),
        (Ring(), FeedQuery("longpoll", None, tail=Tail(2, True)), 10),
        (Ring(), FeedQuery("longpoll", None, tail=Tail(99, True)), 0),
        (Log(4), FeedQuery("longpoll", None, tail=Tail(2, False)), 4),
        (Log(4), FeedQuery("longpoll", None, tail=Tail(99, False)), 2),
        (Log(4), FeedQuery("longpoll", None, after=0), 0),
        (Log(4), FeedQuery("eventsource", None, after=6, reconnects=True), 6),
        (Log(4), FeedQuery("eventsource", None, after=7, reconnects=True), 2),
    ],
)
def test_where_a_feed_begins(source: Source[Any], query: FeedQuery, start: int | None) -> None:
    assert query.start_in(filled(source)) == start


@pytest.mark.parametrize(
    ("source", "query"),
    [
        (Ring(), FeedQuery("longpoll", None, after=13)),
        (Log(4), FeedQuery("longpoll", None, after=7)),
        (Log(4), FeedQuery("longpoll", None, tail=Tail(2, True))),
    ],
)
def test_where_a_feed_cannot_begin(source: Source[Any], query: FeedQuery) -> None:
    with pytest.raises(BadRequest) as caught:
        query.start_in(filled(source))
    assert caught.value.reason == "bad_value"


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
    [event] = parse(Output("out").events(Chunk(10, data, 0)))
    assert event == {"event": "out", "id": str(10 + len(data)), "data": expected}


def test_a_gap_comes_before_what_follows_it() -> None:
    gap, event = parse(Output("out").events(Chunk(30, b"x", 20)))
    assert gap == {"event": "gap", "data": '{"from":10,"to":30}'}
    assert event["id"] == "31"


@given(st.text(alphabet="aé€\U0001f600"), st.lists(st.integers(0, 200), max_size=5))
def test_characters_cut_in_two_arrive_whole_and_ids_never_lie_within_one(text: str, cuts: list[int]) -> None:
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream, found = Output("out"), ""
    for begin, end in itertools.pairwise(bounds):
        for event in parse(stream.events(Chunk(begin, data[begin:end], 0))):
            found += event["data"]
            data[int(event["id"]) :].decode()  # a reconnect begins with a whole character
    assert found == text


def even(number: int) -> tuple[str, Any] | None:
    return ("even", {"event": "even", "n": number}) if number % 2 == 0 else None


def test_messages_are_lines_or_events_with_the_number_to_go_on_from() -> None:
    piece = Records(10, [2, 3, 4], 0)
    assert Messages(even).plain(piece) == b'{"event":"even","n":2}\n{"event":"even","n":4}\n'
    assert parse(Messages(even).events(piece)) == [
        {"event": "even", "id": "11", "data": '{"event":"even","n":2}'},
        {"event": "even", "id": "13", "data": '{"event":"even","n":4}'},
    ]
    assert "id" not in parse(Messages(even, ids=False).events(piece))[0]
    assert Messages(even).plain(Records(10, [1, 3], 0)) == Messages(even).events(Records(10, [1, 3], 0)) == b""


def test_lost_messages_are_told_even_when_nothing_follows() -> None:
    piece = Records(10, [1], 4)
    assert Messages(even).plain(piece) == b'{"event":"gap","from":6,"to":10}\n'
    assert parse(Messages(even).events(piece)) == [{"event": "gap", "data": '{"from":6,"to":10}'}]


@pytest.mark.parametrize(
    "message",
    [
        {"event": "a", "value": object()},
        {"event": "a", "value": "\udcff"},
        {"event": "a", "value": [{("x", 1): 2}]},
        {"event": "a\nb", "value": "c\nd"},
    ],
)
def test_what_applications_publish_is_written_whatever_it_is(message: dict[str, Any]) -> None:
    assert isinstance(json.loads(to_json(message)), dict)
    [event] = parse(Messages(lambda _: (message["event"], message)).events(Records(0, [0], 0)))
    assert event["event"] == message["event"].replace("\n", " ")
    assert isinstance(json.loads(event["data"]), dict)


def test_a_message_that_holds_itself_is_written() -> None:
    message: dict[str, Any] = {"event": "a"}
    message["self"] = message
    assert "text" in json.loads(to_json(message))
