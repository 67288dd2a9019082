import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from gaffer.runtime.background_writer import BackgroundWriter, write_fully
from gaffer.runtime.log import _FORMATTER, _LogFile
from support.daemons import clean_env, command_path
from support.poll import eventually


class Reader:
    """Takes what is written to it once it is let go; `refuse` makes it fail."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go = threading.Event()
        self.refuse = False

    def __call__(self, data: bytes) -> None:
        assert self.go.wait(10)
        if self.refuse:
            raise OSError("no space")
        self.seen.append(data)


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.go.set()


def report(lines: int) -> str:
    return f"{lines} lost\n"


def test_a_writer_never_waits_and_counts_what_it_drops(reader: Reader) -> None:
    writer = BackgroundWriter(reader, report, limit=100)
    for number in range(100):
        writer.write(f"line {number}\n")
    lost = writer.lost_lines
    assert 80 < lost < 100
    reader.go.set()
    writer.flush()
    writer.write("after\n")
    writer.flush()
    text = b"".join(reader.seen).decode()
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("after\n")
    assert text.count(f"{lost} lost\n") == 1
    assert len(text.splitlines()) == 100 - lost + 2


def test_without_a_thread_it_writes_at_once(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    reader.go.set()
    writer = BackgroundWriter(reader, report)
    writer.write("a\n")
    writer.write("b\n")
    assert reader.seen == [b"a\n", b"b\n"]


def test_what_can_not_be_written_is_lost(reader: Reader) -> None:
    reader.refuse = True
    reader.go.set()
    writer = BackgroundWriter(reader, report)
    writer.write("a\nb\n")
    writer.flush()
    reader.refuse = False
    writer.write("c\n")
    writer.flush()
    assert (writer.lost_lines, b"".join(reader.seen)) == (2, b"2 lost\nc\n")


def test_a_flush_gives_up_once_and_then_waits_no_more(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.runtime.background_writer.FLUSH_TIMEOUT", 0.05)
    writer = BackgroundWriter(reader, report)
    writer.write("a\n")
    writer.flush()
    monkeypatch.setattr("gaffer.runtime.background_writer.FLUSH_TIMEOUT", 1000)
    writer.flush()
    reader.go.set()
    eventually(lambda: reader.seen)
    writer.flush()


def test_a_descriptor_that_another_process_made_non_blocking_gets_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * 300_000
    thread = threading.Thread(target=write_fully, args=(writer, data))
    thread.start()
    with open(reader, "rb") as stream:
        assert stream.read(len(data)) == data
    thread.join()
    os.close(writer)


def test_a_log_file_is_opened_anew_when_it_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = _LogFile(str(path))
    file.write(b"1\n")
    path.rename(tmp_path / "old")
    file.write(b"2\n")
    path.unlink()
    file.write(b"3\n")
    assert ((tmp_path / "old").read_bytes(), path.read_bytes()) == (b"1\n", b"3\n")
    file.close()


def test_what_others_sent_can_not_look_like_a_line_of_its_own() -> None:
    text = "refused: \x1b[31m\r\n2026-11-29 ERROR gafferd: fake\u2028\u202e\ud800\ttab é"
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": text})
    shown = _FORMATTER.format(record).partition(" n: ")[2]
    assert shown == "refused: \\x1b[31m\\r\n  2026-11-29 ERROR gafferd: fake\\u2028\\u202e\\ud800\ttab é"


@pytest.mark.parametrize("name", ["gafferd", "gaffer_lookupd"])
def test_a_daemon_answers_and_ends_while_nothing_reads_its_stderr(tmp_path: Path, name: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    path = tmp_path / "s"
    state = [f"--state-dir={tmp_path}/state"] if name == "gafferd" else []
    node = subprocess.Popen(
        [command_path(name), f"--bind=unix:{path}", "--log-level=debug", *state], env=clean_env(), stderr=writer
    )
    os.close(writer)

    def ping() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(path))
            client.sendall(b"GET /ping HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200 ")

    try:
        for _ in range(5):
            assert eventually(ping, 20, retry_on=(OSError,))
        node.send_signal(signal.SIGTERM)
        assert node.wait(20) == 0
    finally:
        node.kill()
        node.wait()
        os.close(reader)
