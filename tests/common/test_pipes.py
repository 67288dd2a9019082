"""Our ends of pipes: which streams count as fast, and that those lose nothing."""

import asyncio
import os

import pytest

from gaffer.errors import ProcessError
from gaffer.pipes import INPUT_LIMIT, Input, Output, Pace
from gaffer.streams import Ring
from support.poll import eventually_async

KIB = 1024


@pytest.mark.parametrize(
    ("size", "interval", "expected"),
    [
        (64 * KIB, 0.001, True),
        (4 * KIB, 0.0001, True),
        (64 * KIB, 0.003, False),
        (100, 0.0001, False),
        (300 * KIB, 0.005, True),
    ],
)
def test_a_stream_is_fast_after_megabytes_at_a_high_rate(size: int, interval: float, expected: bool) -> None:
    pace = Pace()
    seen = [pace.is_fast(size, 100 + number * interval) for number in range(2000)]
    assert seen[-1] is expected
    assert not any(seen[:63])


def test_a_fast_stream_that_slows_down_has_to_prove_itself_again() -> None:
    pace = Pace()
    assert [pace.is_fast(64 * KIB, number * 0.001) for number in range(100)][-1]
    assert not pace.is_fast(64 * KIB, 1.0)
    assert not pace.is_fast(64 * KIB, 1.001)


async def test_a_fast_stream_of_small_pieces_comes_whole_and_in_order() -> None:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    ring = Ring()
    Output(loop, reading, ring)
    total = 0
    newest = b""

    def write() -> None:
        for number in range(0, 16_000_000, 16):
            os.write(writing, b"%015d\n" % number)
        os.close(writing)

    def note() -> None:
        nonlocal total, newest
        data = ring.read(total, 1 << 20).data
        total += len(data)
        newest = data or newest

    ring.watch(note)
    await asyncio.to_thread(write)
    await eventually_async(lambda: ring.closed)
    assert total == ring.end == 16_000_000
    assert newest.endswith(b"%015d\n" % (16_000_000 - 16))


async def test_an_input_that_nobody_reads_takes_so_much_and_then_refuses() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stream = Input(asyncio.get_running_loop(), writing)
    stream.write(bytes(INPUT_LIMIT))
    with pytest.raises(ProcessError) as caught:
        stream.write(b"x")
    assert (caught.value.errno, caught.value.reason) == (503, "stream_full")
    await asyncio.sleep(0)
    os.close(reading)
    await eventually_async(lambda: _refuses(stream, "stream_closed"))


def _refuses(stream: Input, reason: str) -> bool:
    try:
        stream.write(b"x")
    except ProcessError as error:
        return error.reason == reason
    return False
