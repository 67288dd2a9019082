"""Probes of output: each line is searched once and whole, however it arrives."""

import asyncio
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.streams.rings import Ring
from gaffer.supervision.probes.log_lines import MAX_LINE, Lines
from support.poll import eventually_async
from support.probed import probed, probing

NOT_YET = "no line of output has matched yet"


def split(*pieces: bytes) -> list[bytes]:
    lines = Lines()
    return [line for piece in pieces for line in lines.feed(piece)] + lines.finish()


def test_lines() -> None:
    assert split(b"one\ntw", b"o\r\n", b"\nthr", b"ee") == [b"one", b"two", b"", b"three"]


@given(text=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
def test_where_the_pieces_are_cut_does_not_matter(text: bytes, cuts: list[int]) -> None:
    text = text.replace(b"\r", b".").replace(b"a", b"\n")
    places = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    assert split(*(text[a:b] for a, b in itertools.pairwise(places))) == split(text)
    assert split(text) == text.removesuffix(b"\n").split(b"\n") if text else not split(text)


@pytest.mark.parametrize("size", [1000, MAX_LINE - 1, MAX_LINE, 3 * MAX_LINE])
def test_of_a_long_line_the_start_is_left(size: int) -> None:
    text = b"x" * (MAX_LINE - 2) + b"yz" + b"w" * MAX_LINE + b"\nshort\n"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert split(*pieces) == [b"x" * (MAX_LINE - 2) + b"yz", b"short"]


def test_a_long_line_is_not_kept_until_it_ends() -> None:
    lines = Lines()
    assert lines.feed(b"x" * (MAX_LINE - 1)) == []
    assert lines.feed(b"yz") == [b"x" * (MAX_LINE - 1) + b"y"]
    assert lines.feed(b"w" * MAX_LINE) == []
    assert lines.feed(b"\nshort\n") == [b"short"]


def test_a_line_with_a_gap_is_left_out() -> None:
    lines = Lines()
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"ree\nfour\n", gap=5) == [b"four"]


async def test_a_line_makes_the_process_ready() -> None:
    process = probed(ready=r"log:listening on \S+$")
    out, err = process.captured
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last(NOT_YET)
        out.append(b"listening on \nlisten")
        err.append(b"ing on port:1\n")
        out.append(b"ing on port:2\r")
        await asyncio.sleep(0)
        assert verdicts.of() == [NOT_YET]
        out.append(b"\n")
        await verdicts.last("good")
        assert (out.watchers, err.watchers) == (0, 0)


async def test_output_from_before_the_probe_counts() -> None:
    process = probed(ready="log:^ready$")
    process.captured[1].append(b"ready\n")
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last("good")


async def test_after_a_reload_only_new_lines_count() -> None:
    process = probed(ready="log:^ready")
    out, err = process.captured
    out.append(b"ready\n")
    err.append(b"alr")
    async with probing() as verdicts:
        verdicts.prober.start(process, again=True)
        await verdicts.last(NOT_YET)
        err.append(b"eady\n")
        await asyncio.sleep(0)
        assert verdicts.of() == [NOT_YET]
        out.append(b"ready\n")
        await verdicts.last("good")


async def test_a_line_without_an_end_counts_when_the_output_ends() -> None:
    process = probed(ready="log:ready")
    async with probing() as verdicts:
        verdicts.prober.start(process)
        process.captured[0].append(b"ready")
        await verdicts.last(NOT_YET)
        process.captured[0].close()
        await verdicts.last("good")


async def test_output_that_is_not_captured() -> None:
    process = probed(ready="log:ready")
    process.captured.clear()
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last("the output of the process is not captured")


async def test_a_stopped_probe_reads_no_more() -> None:
    process = probed(ready="log:ready")
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last(NOT_YET)
        verdicts.prober.stop(1)
        process.captured[0].append(b"ready\n")
        assert verdicts.of() == [NOT_YET]
        assert not any(ring.watchers for ring in process.captured)


async def test_a_probe_that_is_stopped_before_it_began() -> None:
    process = probed(ready="log:ready")
    process.captured[0].append(b"ready\n")
    async with probing() as verdicts:
        verdicts.prober.start(process)
        verdicts.prober.stop(1)
        await asyncio.sleep(0)
        assert verdicts.seen == []


async def test_megabytes_of_lines_are_all_searched() -> None:
    process = probed(ready=r"log:^number 99999$")
    process.captured[0] = Ring(64 * 1024)
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last(NOT_YET)
        text = b"".join(b"number %d\n" % number for number in range(100_000))
        for at in range(0, len(text), 50_000):
            process.captured[0].append(text[at : at + 50_000])
        await verdicts.last("good")


@pytest.mark.expects_errors("log probe given up: the regular expression took")
async def test_a_regular_expression_that_takes_too_long_is_given_up() -> None:
    process = probed(ready="log:^(a+)+$")
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last(NOT_YET)
        process.captured[0].append(b"a" * 24 + b"b\n")
        assert process.captured[0].watchers == 0
        await eventually_async(lambda: len(verdicts.of()) == 2)
        assert re.fullmatch(r"the regular expression took \d\.\d s for 1 lines .*, simplify it", verdicts.of()[1])
