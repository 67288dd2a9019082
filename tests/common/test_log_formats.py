import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.runtime.log_lines import timestamp
from gaffer.streams.log_formats import MAX_LINE, make_formatter

pytestmark = pytest.mark.pure

STAMP = "2026-11-29T10:15:00.250Z"
NOW = 1795947300.25


def test_a_timestamp_is_utc_with_milliseconds() -> None:
    assert timestamp(NOW) == STAMP
    assert timestamp(NOW - 0.2425) == "2026-11-29T10:15:00.007Z"


def written(kind: str, *chunks: bytes, finish: bool = False) -> str:
    formatter = make_formatter(kind, "out", 7)
    parts = [part for chunk in chunks for part in formatter.format([chunk], [NOW])]
    return b"".join([*parts, *(formatter.finish(NOW) if finish else ())]).decode()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\nb\n"], [f"{STAMP} a", f"{STAMP} b", ""]),
        ([b"a", b"b\nc", b"\n\n"], [f"{STAMP} ab", f"{STAMP} c", f"{STAMP} ", ""]),
        ([b"prompt: "], [f"{STAMP} prompt: "]),
    ],
)
def test_each_line_begins_with_a_timestamp(chunks: list[bytes], lines: list[str]) -> None:
    assert written("timestamps", *chunks) == "\n".join(lines)


def test_a_line_is_a_json_object_once_it_is_complete() -> None:
    head = f'{{"time":"{STAMP}","stream":"out","pid":7,"message":'
    assert written("json", b"a", b"b\nc\xff\n", b"rest") == f'{head}"ab"}}\n{head}"c\\\\xff"}}\n'
    assert written("json", b"rest", finish=True) == f'{head}"rest"}}\n'
    assert written("json", b"done\n", finish=True) == f'{head}"done"}}\n'


def test_a_long_line_is_several_objects() -> None:
    text = written("json", b"x" * (MAX_LINE - 1), b"yy", b"zz\n", b"w" * (2 * MAX_LINE) + b"\n")
    found = [(len(line["message"]), line.get("partial", False)) for line in map(json.loads, text.splitlines())]
    assert found == [(MAX_LINE, True), (1, True), (2, False), (MAX_LINE, True), (MAX_LINE, False)]


def test_a_loss_is_a_line_of_the_format() -> None:
    assert make_formatter("raw", "out", 7).loss(5, "full", NOW) == b"[gaffer: 5 bytes lost: full]\n"
    stamped = make_formatter("timestamps", "out", 7)
    stamped.format([b"cut"], [NOW])
    assert stamped.loss(5, "full", NOW) == f"{STAMP} [gaffer: 5 bytes lost: full]\n".encode()
    assert stamped.format([b"x\n"], [NOW]) == [f"{STAMP} x\n".encode()]
    lost = json.loads(make_formatter("json", "err", 7).loss(5, "full", NOW))
    assert lost == {"time": STAMP, "stream": "err", "pid": 7, "lost": 5, "reason": "full"}


CHUNKS = st.lists(st.text(alphabet='ab\n\r\x00é",\\{}', min_size=1, max_size=12).map(str.encode), max_size=12)


@given(CHUNKS)
def test_without_its_timestamps_it_is_the_output(chunks: list[bytes]) -> None:
    text = written("timestamps", *chunks)
    assert re.sub(rf"(^|\n){STAMP} ", r"\1", text).encode() == b"".join(chunks)
    assert all(line.startswith(STAMP) for line in text.split("\n")[:-1])


@given(CHUNKS)
def test_the_messages_are_the_output(chunks: list[bytes]) -> None:
    lines = [json.loads(line)["message"] for line in written("json", *chunks, finish=True).splitlines()]
    output = b"".join(chunks).decode()
    assert lines == (output.removesuffix("\n").split("\n") if output else [])


def test_raw_output_is_not_touched() -> None:
    chunks = [b"a", b"b\n"]
    assert make_formatter("raw", "out", 7).format(chunks, []) is chunks
