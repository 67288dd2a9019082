"""Our ends of pipes: which streams count as fast, and that those lose nothing."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import time

import pytest

from gaffer.errors import ProcessError
from gaffer.streams import pipes
from gaffer.streams.pipes import INPUT_LIMIT, Input, Output, Pace, Retention
from gaffer.streams.rings import LARGEST_LIMIT, Ring
from support.needs import needs_linux
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


@pytest.mark.parametrize(
    ("rate", "followed", "least", "most"),
    [
        (1e6, True, 500_000, 800_000),  # what comes in a half second at most, and the next reads
        (50e6, True, 12_500_000, 16 * KIB * KIB),
        (500e6, True, 16 * KIB * KIB, 16 * KIB * KIB),
        (50e6, False, 256 * KIB, 256 * KIB),
    ],
)
def test_of_a_fast_stream_that_is_followed_more_is_kept(rate: float, followed: bool, least: int, most: int) -> None:
    retention = Retention(256 * KIB)
    limits = [retention.limit(int(rate * t / 1000), 100 + t / 1000, followed=followed) for t in range(2000)]
    assert all(256 * KIB <= limit <= most for limit in limits)
    assert all(limit >= least for limit in limits[500:])


def test_a_reader_who_is_behind_has_some_seconds() -> None:
    retention = Retention(256 * KIB)
    limits = [retention.limit(50_000 * t, 100 + t / 1000, followed=t < 500) for t in range(6000)]
    assert all(limit > 12_000_000 for limit in limits[500:5490])
    assert limits[-1] == 256 * KIB


def test_nothing_is_kept_for_long_when_a_burst_is_over() -> None:
    retention = Retention(256 * KIB)
    assert [retention.limit(end, 100, followed=True) for end in (0, 5_000_000)][1] > 5_000_000
    limits = [retention.limit(5_000_000, 100 + t / 3, followed=True) for t in range(4)]
    assert limits[-1] == 256 * KIB


async def test_a_pipe_is_larger_while_its_stream_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_CALM", 0.1)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    output = Output(asyncio.get_running_loop(), reading, Ring())

    def size() -> int:
        return fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)

    def write() -> None:
        deadline = time.monotonic() + 10
        while size() == 64 * KIB and time.monotonic() < deadline:
            os.write(writing, bytes(64 * KIB))

    await asyncio.to_thread(write)
    assert size() == 256 * KIB
    await eventually_async(lambda: size() == 64 * KIB)
    output.close()
    os.close(writing)


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


async def test_an_input_has_room_when_most_was_read_and_none_when_nobody_reads_any_more() -> None:
    reading, writing = os.pipe()
    for fd in (reading, writing):
        os.set_blocking(fd, False)
    pipe = Input(asyncio.get_running_loop(), writing)
    await pipe.room()
    pipe.write(b"x" * 1024 * KIB)
    room = asyncio.create_task(pipe.room())
    read = 0
    while not room.done():
        with contextlib.suppress(BlockingIOError):
            read += len(os.read(reading, 64 * KIB))
        await asyncio.sleep(0)
    await room
    assert 700 * KIB <= read <= 1024 * KIB
    os.close(reading)
    pipe.write(b"x" * 1024 * KIB)
    with pytest.raises(ProcessError, match="closed its input"):
        await pipe.room()
    assert pipe.life.closed


async def test_an_input_that_nobody_reads_takes_so_much_and_then_refuses() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stream = Input(asyncio.get_running_loop(), writing)
    stream.write(bytes(INPUT_LIMIT))
    with pytest.raises(ProcessError) as caught:
        stream.write(bytes(INPUT_LIMIT // 2))
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


WITHOUT_MEMORY = """
import asyncio, os, re, resource
from pathlib import Path
from gaffer.streams.pipes import Output
from gaffer.streams.rings import READ_SIZE, Ring

async def main():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    ring = Ring()
    output = Output(asyncio.get_running_loop(), reader, ring)
    os.write(writer, b"x" * 1000)
    os.close(writer)
    size = int(re.search(r"VmSize:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    used = []
    try:
        while True:
            used.append(bytes(READ_SIZE))
    except MemoryError:
        output.read_available()
        output.read_available()  # its end
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(ring.end, ring.closed)

asyncio.run(main())
"""


@needs_linux
def test_a_pipe_is_read_to_its_end_without_memory() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("1000 True\n", "")


def test_what_an_earlier_gafferd_kept_stays_for_readers_that_come_back() -> None:
    retention = Retention(256 * KIB, 3000 * KIB, 1000 * KIB)
    assert retention.limit(3000 * KIB, 100.0, followed=False) == 2256 * KIB
    assert retention.limit(9000 * KIB, 104.9, followed=False) == 2256 * KIB
    assert not retention.is_followed(104.9)
    assert retention.limit(9000 * KIB, 105.0, followed=False) == 256 * KIB


def test_what_comes_until_readers_are_back_stays_if_there_were_some() -> None:
    retention = Retention(256 * KIB, 3000 * KIB, 1000 * KIB, awaits=True)
    assert retention.limit(3000 * KIB, 100.0, followed=False) == LARGEST_LIMIT
    assert retention.limit(9000 * KIB, 114.9, followed=False) == LARGEST_LIMIT
    assert retention.is_followed(114.9)  # should this gafferd be killed too
    assert retention.limit(9000 * KIB, 115.0, followed=False) == 256 * KIB
    assert not retention.is_followed(115.0)


def test_a_reader_that_is_back_may_be_behind_again() -> None:
    retention = Retention(256 * KIB, 3000 * KIB, 1000 * KIB, awaits=True)
    assert retention.limit(3000 * KIB, 100.0, followed=True) == 2256 * KIB
    assert retention.limit(13_000 * KIB, 100.1, followed=False) == (10_000 + 256) * KIB
