"""The pieces of a feed: waiting for what comes, where to begin, and how it is written."""

import asyncio
import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import BadRequest
from gaffer.http.feed_formats import EncodedOutput, Messages, Output, to_json
from gaffer.http.feeds import HEARTBEAT, Feed, FeedQuery, Tail
from gaffer.streams.position import Position
from gaffer.streams.rings import Chunk, Log, Records, Ring, Source
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
    nothing: Messages[int] = Messages(lambda number: None)
    feed = Feed(log, 0, 0.05)
    due = asyncio.create_task(feed.next(nothing.plain))
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
        (Ring(), FeedQuery("longpoll", None, after=Position("", 3)), 3),
        (Ring(), FeedQuery("longpoll", None, tail=Tail(2, False)), 8),
        (Ring(), FeedQuery("longpoll", None, tail=Tail(2, True)), 10),
        (Ring(), FeedQuery("longpoll", None, tail=Tail(99, True)), 0),
        (Log(4), FeedQuery("longpoll", None, tail=Tail(2, False)), 4),
        (Log(4), FeedQuery("longpoll", None, tail=Tail(99, False)), 2),
        (Log(4), FeedQuery("longpoll", None, after=Position("", 0)), 0),
        (Log(4), FeedQuery("eventsource", None, after=Position("", 6)), 6),
        (Log(4), FeedQuery("eventsource", None, after=Position("another", 3)), 2),
    ],
)
def test_where_a_feed_begins(source: Source[Any], query: FeedQuery, start: int | None) -> None:
    assert query.start_in(filled(source)) == start


@pytest.mark.parametrize(
    ("source", "query"),
    [
        (Ring(), FeedQuery("longpoll", None, after=Position("", 13))),
        (Log(4), FeedQuery("longpoll", None, after=Position("", 7))),
        (Log(4), FeedQuery("longpoll", None, tail=Tail(2, True))),
    ],
)
def test_where_a_feed_cannot_begin(source: Source[Any], query: FeedQuery) -> None:
    with pytest.raises(BadRequest) as caught:
        query.start_in(filled(source))
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize("source", [Ring(), Log(4)])
def test_a_position_is_of_one_source(source: Source[Any]) -> None:
    filled(source)
    own = FeedQuery("eventsource", None, after=Position.parse(str(source.position(source.end - 1))))
    assert (own.is_elsewhere(source), own.start_in(source)) == (False, source.end - 1)
    for after in (source.position(source.end + 1), Ring().position(1), Position("0", 0)):
        assert FeedQuery("longpoll", None, after=after).is_elsewhere(source)
    assert not FeedQuery("longpoll", None).is_elsewhere(source)


@pytest.mark.parametrize(
    "text", ["", ":", ":1", "a:", "a:b", "1:-1", "é:1", "a b:1", "a:1:1", "1" * 19, "a" * 65 + ":1"]
)
def test_what_is_not_a_position(text: str) -> None:
    assert Position.parse(text) is None


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
        (b"ECHO\n", "ECHO\n"),
        (b"a\nb\n", "a\nb\n"),
        (b"a\n\n", "a\n\n"),
        (b"no end", "no end"),
        (b"a\r\nb\rc", "a\nb\nc"),
        (b"\xff", "\ufffd"),
        (b"\n", "\n"),
        (b"id: 7\ndata: x\n\nevent: evil\n", "id: 7\ndata: x\n\nevent: evil\n"),
    ],
)
def test_the_data_of_an_event(data: bytes, expected: str) -> None:
    [event] = parse(Output("out", "e").events(Chunk(10, data, 0)))
    assert event == {"event": "out", "id": f"e:{10 + len(data)}", "data": expected}


@pytest.mark.parametrize("kind", [Output, EncodedOutput])
def test_a_gap_comes_before_what_follows_it(kind: type[Output]) -> None:
    gap, event = parse(kind("out", "e").events(Chunk(30, b"x", 20)))
    assert gap == {"event": "gap", "data": '{"from":10,"to":30}'}
    assert event["id"] == "e:31"


def pieces(data: bytes, cuts: list[int]) -> list[Chunk]:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [Chunk(begin, data[begin:end], 0) for begin, end in itertools.pairwise(bounds)]


@given(st.text(alphabet="aé€\U0001f600\r\n"), st.lists(st.integers(0, 200), max_size=5))
def test_the_data_of_events_are_the_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    stream, found = Output("out", "e"), ""
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    written = b"".join(map(stream.events, pieces(data, cuts))) + stream.last_events(len(data))
    for event in parse(written):
        found += event["data"]
        rest = data[int(event["id"].removeprefix("e:")) :].decode()  # a reconnect begins with a whole character
        assert found + rest.replace("\r\n", "\n").replace("\r", "\n") == expected
    assert found == expected


@given(st.binary(), st.lists(st.integers(0, 200), max_size=5))
def test_encoded_output_keeps_every_byte(data: bytes, cuts: list[int]) -> None:
    stream = EncodedOutput("out", "e")
    events = parse(b"".join(map(stream.events, pieces(data, cuts))) + stream.last_events(len(data)))
    assert b"".join(base64.b64decode(event["data"]) for event in events) == data


def test_what_a_character_lacks_at_the_end_is_replaced() -> None:
    stream = Output("out", "e")
    assert stream.events(Chunk(0, "é".encode()[:1], 0)) == b""
    assert parse(stream.last_events(1)) == [{"event": "out", "id": "e:1", "data": "\ufffd"}]


def even(number: int) -> tuple[str, Any] | None:
    return ("even", {"event": "even", "n": number}) if number % 2 == 0 else None


def test_messages_are_lines_or_events_with_the_number_to_go_on_from() -> None:
    piece = Records(10, [2, 3, 4], 0)
    assert Messages(even).plain(piece) == b'{"event":"even","n":2}\n{"event":"even","n":4}\n'
    assert parse(Messages(even, "e").events(piece)) == [
        {"event": "even", "id": "e:11", "data": '{"event":"even","n":2}'},
        {"event": "even", "id": "e:13", "data": '{"event":"even","n":4}'},
    ]
    assert "id" not in parse(Messages(even).events(piece))[0]
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
    messages: Messages[int] = Messages(lambda _: (message["event"], message))
    [event] = parse(messages.events(Records(0, [0], 0)))
    assert event["event"] == message["event"].replace("\n", " ")
    assert isinstance(json.loads(event["data"]), dict)


def test_a_message_that_holds_itself_is_written() -> None:
    message: dict[str, Any] = {"event": "a"}
    message["self"] = message
    assert "text" in json.loads(to_json(message))


@given(st.floats(0.1, 86400) | st.integers(1, 86400))
def test_any_heartbeat_within_the_limits_is_described(seconds: float) -> None:
    assert HEARTBEAT.fullmatch(f"{seconds:.17f}" if isinstance(seconds, float) else str(seconds))


@pytest.mark.parametrize(
    ("text", "described"),
    [
        *(
            (text, True)
            for text in ("true", "false", "0", "0.0", "0.1", "86400.0", "9999.5", "10000", "85999", "86399.9")
        ),
        *((text, False) for text in ("", "-1", "0.01", "86400.1", "86401", "100000", "1e3", ".5", "5.", "nan", "yes")),
    ],
)
def test_heartbeats(text: str, described: bool) -> None:
    assert (HEARTBEAT.fullmatch(text) is not None) is described
