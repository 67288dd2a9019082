"""Journals: what they make of a header, and that nothing is lost or written twice when the reader is killed."""

import contextlib
import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.streams.journal import HEADER, Journal, LogWrite
from support.kept_streams import KeptStreams
from support.needs import needs_linux

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
        for _ in range(40):
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
        for _ in range(30):
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
