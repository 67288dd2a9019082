"""Server-sent events, from bytes cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer_client.sse import EventParser, ServerEvent


def parse(*pieces: bytes) -> list[ServerEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: a\n\n", [("message", "a", "")]),
        ("event: stderr\ndata: STDERR 20\n\n", [("stderr", "STDERR 20", "")]),
        ("data: a\ndata: b\n\n", [("message", "a\nb", "")]),
        ("data:a\n\ndata:  b\n\n", [("message", "a", ""), ("message", " b", "")]),
        ("data\n\n", [("message", "", "")]),
        ("id: 7\ndata: a\n\ndata: b\n\n", [("message", "a", "7"), ("message", "b", "7")]),
        ("id: 7\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "7"), ("message", "b", "")]),
        ("id: a\0b\ndata: a\n\n", [("message", "a", "")]),
        (": beat\n\n:\n\ndata: a\n\n", [("message", "a", "")]),
        ("event: x\n\ndata: a\n\n", [("message", "a", "")]),
        ("data: a\r\n\r\ndata: b\r\r", [("message", "a", ""), ("message", "b", "")]),
        ("\ufeffdata: a\n\n", [("message", "a", "")]),
        ("unknown: x\ndata: a\nDATA: b\n\n", [("message", "a", "")]),
        ("data: cut", []),
        ("data: cut\n", []),
    ],
)
def test_the_rules(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert parse(text.encode()) == expected


@given(
    st.lists(st.sampled_from("event: e|data: ä|data:|id: 1|:|\n|\r\n|\r|\n\n|retry: 5|data: b\n\n".split("|"))),
    st.data(),
)
def test_where_the_bytes_are_cut_does_not_matter(lines: list[str], data: st.DataObject) -> None:
    whole = "".join(lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert parse(*pieces) == parse(whole)


@given(st.lists(st.tuples(st.sampled_from(["a", "b.c"]), st.text().filter(lambda text: "\r" not in text)), max_size=5))
def test_what_is_sent_comes_back(sent: list[tuple[str, str]]) -> None:
    text = ""
    for number, (event, body) in enumerate(sent):
        lines = "".join(f"data: {line}\n" for line in body.split("\n"))
        text += f"event: {event}\nid: {number}\n{lines}\n"
    received = parse(text.encode())
    assert received == [(event, body, str(number)) for number, (event, body) in enumerate(sent)]


def test_the_server_may_say_how_long_to_wait() -> None:
    parser = EventParser()
    assert parser.retry is None
    list(parser.feed(b"retry: 1500\nretry: soon\nretry: -1\n\n"))
    assert parser.retry == 1.5


def test_another_connection_begins_anew() -> None:
    parser = EventParser()
    assert [event.data for event in parser.feed(b"data: a\n\ndata: lost\nid: 9\nda")] == ["a"]
    parser.restart("3")
    assert list(parser.feed(b"data: b\n\n")) == [("message", "b", "3")]


@pytest.mark.parametrize("unit", [b"data: 0123456789\n", b"01234567890"])
def test_an_event_has_a_limit(unit: bytes) -> None:
    parser = EventParser(limit=100)
    for _ in range(100 // len(unit.strip())):
        assert list(parser.feed(unit)) == []
    with pytest.raises(ValueError, match="exceeds 100 bytes"):
        list(parser.feed(unit))


def test_many_events_and_heartbeats_stay_below_the_limit() -> None:
    parser = EventParser(limit=100)
    for _ in range(100):
        assert list(parser.feed(b":\n")) == []
        assert len(list(parser.feed(b"data: 0123456789\n\n"))) == 1


def test_a_line_end_may_be_cut_with_nothing_in_between() -> None:
    assert parse(b"data: a\r", b"", b"\n", b"\r\n") == parse(b"data: a\r\n\r\n")
