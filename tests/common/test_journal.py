"""Journals: what they make of a header, and that nothing is lost or written twice when the reader is killed."""

import asyncio
import contextlib
import json
import os
import random
import re
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.jobs.config import JobConfig
from gaffer.processes import launch
from gaffer.streams.journal import HEADER, Journal, LogWrite
from gaffer.streams.log_files import LogWriter
from gaffer.streams.log_progress import recover
from gaffer.streams.pipes import Input, Output
from gaffer.streams.process_streams import ProcessStreams
from gaffer.streams.recording import Recording
from gaffer.streams.rings import Ring
from gaffer.streams.rotation import Rotation
from support.kept_streams import KeptStreams
from support.needs import needs_linux
from support.poll import eventually_async

pytestmark = needs_linux

LINES = 30_000


def journal_of(header: bytes, data: bytes) -> Journal:
    fd = os.memfd_create("test")
    os.pwrite(fd, header, 0)
    os.pwrite(fd, data, HEADER)
    os.lseek(fd, HEADER + len(data), os.SEEK_SET)
    return Journal(fd)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_header_gives_offsets_that_make_sense(header: bytes, data: bytes) -> None:
    journal = journal_of(header, data)
    assert re.fullmatch("[0-9a-f]{16}", journal.epoch)
    assert 0 <= journal.start <= journal.end == len(data)
    assert 0 <= journal.logged <= journal.end
    assert journal.read(journal.start, 100) == data[journal.start :]
    again = Journal(os.dup(journal.fileno()))
    assert (again.epoch, again.start, again.logged) == (journal.epoch, journal.start, journal.logged)


@given(st.data())
def test_what_was_noted_is_found_again(data: st.DataObject) -> None:
    journal = Journal.create("test", "0123456789abcdef")
    content = data.draw(st.binary(max_size=200_000))
    journal.append(content)
    logged = data.draw(st.integers(0, len(content)))
    size, count = data.draw(st.integers(0, 1 << 40)), data.draw(st.integers(1, 1 << 20))
    write = LogWrite(7, 9, size, size + count, data.draw(st.integers(logged, len(content))))
    journal.intend(logged, write)
    journal.release(data.draw(st.integers(0, len(content))))
    again = Journal(os.dup(journal.fileno()))
    assert (again.epoch, again.end, again.logged) == ("0123456789abcdef", len(content), logged)
    assert (again.start, again.under_way) == (journal.start, write)
    assert again.read(again.start, len(content)) == content[again.start :]
    again.settle(write.after)
    assert Journal(os.dup(journal.fileno())).under_way is None


def test_memory_that_is_not_needed_is_given_back() -> None:
    journal = Journal.create("test", "0123456789abcdef")
    for _ in range(100):
        journal.append(os.urandom(64 * 1024))
        journal.release(journal.end - 10_000)
    assert os.fstat(journal.fileno()).st_blocks * 512 < 200_000
    assert len(journal.read(journal.end - 10_000, 10_000)) == 10_000


@pytest.mark.parametrize(
    ("written", "expected", "left"),
    [(b"", 3, b"old"), (b"on", 3, b"old"), (b"one\n", 7, b"oldone\n"), (b"one\nother", 7, b"oldone\nother")],
)
@pytest.mark.parametrize("name", ["out.log", "out.log.1"])
def test_a_write_is_known_by_the_size_of_the_file(
    tmp_path: Path, name: str, written: bytes, expected: int, left: bytes
) -> None:
    (tmp_path / "out.log").write_bytes(b"of others")
    file = tmp_path / name
    file.write_bytes(b"old")
    status = file.stat()
    journal = Journal.create("test", "0123456789abcdef")
    journal.append(b"oldone\n")
    journal.intend(3, LogWrite(status.st_dev, status.st_ino, 3, 7, 7))
    with file.open("ab") as appended:
        appended.write(written)
    again = Journal(os.dup(journal.fileno()))
    assert recover(again, tmp_path / "out.log") == expected
    assert file.read_bytes() == left


def test_input_is_in_the_pipe_when_its_memory_is_given_back() -> None:
    journal = Journal.create("test", "0123456789abcdef")
    reading, writing = os.pipe()
    content = random.Random(1).randbytes(300_000)
    journal.accept(content)
    found = b""
    while journal.end < len(content):
        journal.deliver(writing)
        journal.release(journal.end)  # more than an Input does: what is in the pipe was not read
        found += os.read(reading, 1 << 20)
    assert found == content
    os.close(reading)
    os.close(writing)


class Holder:
    """A keeper within the test."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.dropped: list[str] = []

    def keep(self, name: str, fd: int) -> None:
        self.held[name] = os.dup(fd)

    def drop(self, name: str) -> None:
        self.dropped.append(name)


@pytest.mark.expects_errors("won't outlive gafferd")
async def test_output_for_which_a_journal_has_no_room_passes_it_by(caplog: pytest.LogCaptureFixture) -> None:
    holder, ring = Holder(), Ring()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = Output(asyncio.get_running_loop(), reading, ring, recording=Recording("job", "stdout", holder, ring))
    content = random.Random(1).randbytes(60_000)
    os.write(writing, content)
    output.read_available()
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))  # as when there is no memory
    try:
        os.write(writing, content)
        os.close(writing)
        while not ring.closed:
            output.read_available()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ring.read(0, 200_000).data == content * 2
    assert "stdout of job won't outlive gafferd: File too large" in caplog.text
    journal = Journal(holder.held["stdout.journal"])
    assert journal.start == journal.end == 120_000
    assert os.fstat(journal.fileno()).st_blocks * 512 <= 2 * 4096
    assert holder.dropped == ["stdout"]


@pytest.mark.expects_errors("can't be read: Illegal seek")
async def test_a_journal_that_can_not_be_used_is_left() -> None:
    ring = Ring()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    recording = Recording("job", "stdout", Holder(), ring, adopted=os.dup(writing))
    output = Output(asyncio.get_running_loop(), reading, ring, recording=recording)
    os.write(writing, b"data")
    os.close(writing)
    output.read_available()
    output.read_available()
    assert (ring.read(0).data, ring.closed) == (b"data", True)


def socket_pair() -> tuple[int, int]:
    """A socket to read and one to write."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize(("pair", "dropped"), [(os.pipe, ["name"]), (socket_pair, [])], ids=["pipe", "socket"])
async def test_an_adopted_input_goes_on_with_what_was_accepted(
    pair: Callable[[], tuple[int, int]], dropped: list[str]
) -> None:
    loop, holder = asyncio.get_running_loop(), Holder()
    reading, writing = pair()
    os.set_blocking(writing, False)
    first = Input(loop, os.dup(writing), holder, name="name")
    sent = random.Random(1).randbytes(900_000)
    first.write(sent[:-10])
    assert first.accepted == 899_990
    assert 0 < first.delivered < 899_990
    delivered = first.delivered
    first.release()
    assert holder.dropped == []
    second = Input(loop, writing, holder, name="name", adopted=holder.held["name.journal"])
    assert (second.accepted, second.delivered) == (899_990, delivered)
    second.write(sent[-10:])
    found = b""
    while len(found) < 900_000:
        found += await asyncio.to_thread(os.read, reading, 65536)
    assert found == sent
    await eventually_async(lambda: second.delivered == 900_000)
    second.close()
    assert holder.dropped == dropped
    os.close(reading)


async def test_the_output_of_a_process_without_a_pipe_comes_from_its_journal(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    writer = LogWriter(loop, tmp_path)
    writer.start()
    journal = Journal.create("test", "0123456789abcdef")
    journal.append(b"one\ntwo\n")
    journal.settle(4)
    custom = Journal.create("test", "fedcba9876543210")
    custom.append(b"three")
    config = JobConfig("job", "true", redirect_output=["out"], custom_streams=["more"])
    streams = ProcessStreams(loop, config, {"name": "job", "pid": 1}, capture_all=False)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    child = launch.Child(streams=[os.dup(ours.fileno())], stream_inputs=[ours.detach()])
    theirs.close()
    child.journals = {"stdout.journal": os.dup(journal.fileno()), "stream:more.journal": os.dup(custom.fileno())}
    streams.connect(child, lambda kind: writer.file(f"{kind}.log", Rotation(0, 0)), Holder())
    ring = streams.ring("out")
    assert (ring.epoch, ring.read(0).data, ring.closed) == ("0123456789abcdef", b"one\ntwo\n", True)
    assert (streams.ring("more").epoch, streams.ring("more").read(0).data) == ("fedcba9876543210", b"three")
    logged = asyncio.Event()
    streams.close()
    streams.when_logged(logged.set)
    await asyncio.wait_for(logged.wait(), 10)
    assert (tmp_path / "out.log").read_bytes() == b"two\n"
    writer.close()


def lines_of(rng: random.Random) -> list[bytes]:
    return [b"%d %s\n" % (number, b"x" * rng.choice((0, 5, 5, 5, 70, 3000))) for number in range(LINES // 10)]


def produce(fd: int, content: bytes, rng: random.Random) -> None:
    """Write `content` in pieces of any size, not too fast."""
    at = 0
    with open(fd, "wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
        while at < len(content):
            size = rng.choice((1, 20, 500, 500, 70_000))
            at += pipe.write(content[at : at + size])
            if rng.random() < 0.05:
                time.sleep(0.003)


def log_parts(directory: Path) -> list[bytes]:
    """Return the contents of the files of the log, oldest first."""
    paths = sorted(directory.glob("out.log*"), key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 1)
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize(
    ("form", "max_bytes", "message"),
    [
        ("raw", 0, lambda line: line),
        ("raw", 100_000, lambda line: line),
        ("timestamps", 100_000, lambda line: line.partition(b" ")[2]),
        ("json", 100_000, lambda line: json.loads(line)["message"].encode()),
    ],
)
def test_a_reader_that_is_killed_loses_and_repeats_nothing(
    tmp_path: Path, form: str, max_bytes: int, message: Callable[[bytes], bytes]
) -> None:
    rng = random.Random(5)
    lines = lines_of(rng)
    content = b"".join(lines)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    producer = threading.Thread(target=produce, args=(writing, content, random.Random(6)))
    with KeptStreams(tmp_path, {"stdout": reading}, format=form, max_bytes=max_bytes) as streams:
        producer.start()
        epochs = set()
        for _ in range(25):
            streams.start()
            time.sleep(rng.uniform(0, 0.06))
            streams.kill()
            if "stdout.journal" in streams.descriptors:
                epochs.add(Journal(os.dup(streams.descriptors["stdout.journal"])).epoch)
        streams.start()
        epoch, start, end = streams.finish()
        journal = Journal(os.dup(streams.descriptors["stdout.journal"]))
    producer.join()
    parts = log_parts(tmp_path)
    found = b"".join(parts)
    assert (epochs, end) == ({epoch}, len(content))
    assert journal.read(start, len(content)) == content[start:]
    assert journal.logged == end
    assert [message(line) for line in found.splitlines()] == [line[:-1] for line in lines]
    assert len(parts) > 1 or not max_bytes


def test_input_that_was_accepted_is_delivered_once_and_in_order(tmp_path: Path) -> None:
    rng = random.Random(7)
    content = b"".join(b"%d\n" % number for number in range(3_000_000))
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    assert reader.stdout is not None
    descriptors = {"stdin": os.dup(reader.stdin.fileno()), "stdout": os.dup(reader.stdout.fileno())}
    reader.stdin.close()
    reader.stdout.close()
    for fd in descriptors.values():
        os.set_blocking(fd, False)
    with KeptStreams(tmp_path, descriptors, format="raw", max_bytes=0) as streams:
        accepted = 0
        for _ in range(20):
            streams.start()
            streams.kill_after(rng.uniform(0, 0.05))
            found = streams.accepted()
            while found is not None:
                assert found >= accepted
                accepted = found
                size = rng.choice((1, 10, 100, 1000, 10_000))
                found = streams.write(accepted, content[accepted : accepted + size] or b"?")
        streams.start()
        accepted = streams.accepted() or 0
        streams.write(accepted, b"")
        _, _, end = streams.finish()
    assert reader.wait() == 0
    assert accepted <= end <= accepted + 10_000  # with the last message to one that was killed
    assert b"".join(log_parts(tmp_path)) == content[:end]
