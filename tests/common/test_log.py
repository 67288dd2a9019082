import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

from gaffer.jobs.names import JobName
from gaffer.runtime.background_writer import BackgroundWriter, write_fully
from gaffer.runtime.log import _LogFile
from gaffer.runtime.log_lines import JsonFormatter, TextFormatter
from support.daemons import Daemon, clean_env, command_path, gafferd
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
    shown = TextFormatter().format(record).partition(" n: ")[2]
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


def record(message: str, **about: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": message, "created": 1795947300.25, **about})


@pytest.mark.parametrize(
    ("message", "about", "shown"),
    [
        ("shop.web: gone", {"job": "shop.web"}, "shop.web: gone"),
        ("process 7 of web", {"job": "default.web", "pid": 7}, "process 7 of web"),
        ("process 77 of webs", {"job": "default.web", "pid": 7}, "process 77 of webs [job default.web, pid 7]"),
        ("gone\nmore", {"job": JobName("shop", "web"), "pid": None}, "gone [job shop.web]\n  more"),
        ("failed", {"connection": 5, "job": ""}, "failed [connection 5]"),
        ("plain", {}, "plain"),
    ],
)
def test_a_line_says_what_it_concerns_once(message: str, about: dict[str, object], shown: str) -> None:
    assert TextFormatter().format(record(message, **about)).partition(" n: ")[2] == shown


def test_a_json_line_has_what_it_concerns_as_fields() -> None:
    line = JsonFormatter().format(record('a "b"\n\x1b', job=JobName("shop", "web"), pid=7, connection=5))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-29T10:15:00.250Z",
        "level": "info",
        "logger": "n",
        "message": 'a "b"\n\x1b',
        "job": "shop.web",
        "pid": 7,
        "connection": 5,
    }
    try:
        raise ValueError("wrong")
    except ValueError:
        failed = record("failed", exc_info=sys.exc_info())
    assert json.loads(JsonFormatter().format(failed))["exception"].endswith("ValueError: wrong")


@pytest.mark.parametrize("name", ["gafferd", "gaffer_lookupd"])
def test_a_daemon_logs_json_and_reopens_its_file_on_a_signal(tmp_path: Path, name: str) -> None:
    path, old = tmp_path / "log", tmp_path / "old"
    options = ["--bind=127.0.0.1:0", "--log-format=json", "--log-level=debug", f"--error-log={path}"]
    node = Daemon(name, *options, *([f"--state-dir={tmp_path}/state"] if name == "gafferd" else []))
    try:
        node.wait_for_line("listening on ")
        for url in ("/ping", "/ping?again"):
            with urllib.request.urlopen(node.url + url) as response:
                assert response.status == 200

        def requested() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            return [line for line in lines if "/ping" in line["message"]]

        first, second = eventually(lambda: len(requested()) == 2 and requested())
        assert first["level"] == "debug"
        assert first["connection"] != second["connection"]
        path.rename(old)
        node.signal(signal.SIGUSR1)
        eventually(lambda: "reopened the log files" in path.read_text(), retry_on=(OSError,))
        assert "reopened" not in old.read_text()
    finally:
        node.stop()


def test_a_line_about_a_job_does_not_carry_the_connection_that_once_loaded_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with gafferd("--log-format=json", "--log-level=debug", f"--error-log={path}") as node:
        requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sh -c 'exit 3'", "backoff": 100})

        def logged(text: str) -> dict[str, Any]:
            return next(line for line in map(json.loads, path.read_text().splitlines()) if text in line["message"])

        line = eventually(lambda: logged("exited with 3"), retry_on=(StopIteration,))
        assert (line["job"], line["logger"], line["level"]) == ("shop.web", "gafferd.exits", "warning")
        assert line["pid"] == 1
        assert "connection" not in line
        assert "connection" in logged("StartRequested")
        assert "connection" not in logged("Spawned(")


def test_a_signal_to_reopen_logs_does_not_end_a_starting_daemon(tmp_path: Path) -> None:
    node = Daemon("gafferd", "--bind=127.0.0.1:0", f"--state-dir={tmp_path}/state")
    try:
        eventually(lambda: _catches(node.pid, signal.SIGHUP), retry_on=(OSError,))
        node.signal(signal.SIGUSR1)
        node.wait_for_line("reopened the log files")
        with urllib.request.urlopen(f"{node.url}/ping") as response:
            assert response.status == 200
    finally:
        node.stop()


def _catches(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) & 1 << (signum - 1))
