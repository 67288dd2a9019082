"""Log files: what is written where, what happens when the disk is slow or full."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock

import pytest

from gaffer.loop import new_loop
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gaffer.streams import log_files
from gaffer.streams.journal import Journal
from gaffer.streams.log_files import LogFile, LogWriter
from gaffer.streams.rotation import Rotation
from support.managers import running_manager
from support.needs import needs_linux, needs_mount
from support.poll import eventually


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    loop = new_loop()
    writer = LogWriter(loop, tmp_path / "logs")
    writer.start()
    yield writer
    writer.close()
    loop.close()


def test_what_is_put_is_in_the_file_once_the_writer_is_closed(writer: LogWriter) -> None:
    file = writer.file("j.log", Rotation(0, 0))
    parts = [b"%d\n" % number for number in range(5000)]
    for part in parts:
        file.put(part)
    writer.close()
    assert file.path.read_bytes() == b"".join(parts)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_an_end_while_data_is_being_written_is_not_missed(tmp_path: Path) -> None:
    loop, due = new_loop(), SimpleQueue[LogFile | None]()
    made = LogWriter(loop, tmp_path).file("f", Rotation(0, 0))
    file = LogFile(loop, Lock(), due, Event(), made.place, made.rotation, made.formatter, "job")
    file.put(b"data\n")
    assert due.get_nowait() is file
    data, _, finished = file.take()
    file.finish()
    assert due.empty()
    file.written(len(data[0]), finished=finished)
    assert due.get_nowait() is file
    assert file.take() == ([], [], True)
    file.written(0, finished=True)
    assert due.empty()
    loop.close()


def test_a_full_file_is_rotated_and_the_oldest_is_dropped(writer: LogWriter) -> None:
    file = writer.file("j.log", Rotation(30, 2))
    for number in range(100):
        file.put(b"line %03d\n" % number)  # three lines a file
    writer.close()
    assert [file.path.with_suffix(f".log{end}").read_text().split("\n")[0] for end in ("", ".1", ".2")] == [
        "line 099",
        "line 096",
        "line 093",
    ]
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["j.log", "j.log.1", "j.log.2"]


def test_without_backups_a_full_file_begins_anew(writer: LogWriter) -> None:
    file = writer.file("j.log", Rotation(10, 0))
    file.put(b"12345678\n")
    file.put(b"next\n")
    writer.close()
    assert file.path.read_bytes() == b"next\n"
    assert len(list(file.path.parent.iterdir())) == 1


def test_a_file_that_was_moved_away_is_made_anew(writer: LogWriter) -> None:
    file = writer.file("j.log", Rotation(0, 0))
    file.put(b"before\n")
    eventually(lambda: file.path.exists() and file.path.stat().st_size)
    file.path.rename(file.path.with_name("moved"))
    file.put(b"after\n")
    writer.close()
    assert file.path.read_bytes() == b"after\n"


@needs_linux
@pytest.mark.expects_errors("can't write .*: No space left on device; 6 bytes of logs lost so far")
def test_a_full_disk_is_told_once_and_the_producer_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    loop = new_loop()
    writer = LogWriter(loop, Path("/dev"))
    writer.start()
    file = writer.file("full", Rotation(0, 0))
    assert file.put(b"first\n")
    eventually(lambda: writer.lost == 6)
    for _ in range(100):
        assert file.put(b"second\n")
    writer.close()
    loop.close()
    assert writer.lost == 6 + 700
    assert len(caplog.records) == 1


@needs_linux
@pytest.mark.expects_errors("bytes of logs lost so far")
@pytest.mark.parametrize("released", [0, 70_000])
def test_the_next_writer_has_what_this_one_could_not_write(tmp_path: Path, released: int) -> None:
    first, second = b"x" * 69_999 + b"\n", b"second\n"
    loop = new_loop()
    journal = Journal.create("journal", "0" * 16)
    descriptor = os.dup(journal.fileno())
    path = tmp_path / "f"
    path.mkdir()  # it can't be opened
    writer = LogWriter(loop, tmp_path)
    writer.start()
    file = writer.file("f", Rotation(0, 0))
    file.record_in(journal)
    for lost, data in ((len(first), first), (len(first + second), second)):
        journal.append(data)
        file.put(data)
        eventually(lambda lost=lost: writer.lost == lost and file.done == lost)  # type: ignore[misc]
    journal.release(released)
    writer.close()
    path.rmdir()
    other = LogWriter(loop, tmp_path)
    other.start()
    other.file("f", Rotation(0, 0)).resume(Journal(descriptor))
    other.close()
    marker = b"[gaffer: 70000 bytes lost: they could not be written in time]\n"
    assert path.read_bytes() == (marker + second if released else first + second)
    assert other.lost == released
    loop.close()


@pytest.fixture
def stalled_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a FIFO that nothing reads stand for the disk: the writer blocks in opening it, as in a stalled write."""
    monkeypatch.setattr(log_files, "open_log", lambda path: os.open(path, os.O_WRONLY))


@pytest.mark.usefixtures("stalled_disk")
def test_a_producer_is_held_back_when_the_disk_is_slow_and_goes_on_after_it(tmp_path: Path) -> None:
    fifo = tmp_path / "default.j.1.out.log"
    os.mkfifo(fifo)
    total = 8 * log_files.HIGH
    code = f"import os\nfor _ in range({total // 4096}): os.write(1, b'x' * 4096)\n"
    with running_manager(capture_all=True, log_dir=tmp_path) as manager:
        manager.load(ProcessConfig("j", sys.executable, args=["-I", "-c", code], redirect_output=["out"], backoff=100))
        ring = eventually(lambda: manager.running[1], retry_on=(KeyError,)).ring("out")
        eventually(lambda: ring.end >= log_files.HIGH)
        began = time.monotonic()
        manager.info("j")
        _round_trip(manager)
        assert time.monotonic() - began < 2  # the loop is not the one who waits
        assert ring.end < total
        reader = os.open(fifo, os.O_RDWR)
        found = 0
        while found < total:
            found += len(os.read(reader, 65536))
        assert found == ring.end == total
    os.close(reader)


@pytest.mark.usefixtures("stalled_disk")
def test_nothing_is_lost_when_a_held_back_process_ends(tmp_path: Path) -> None:
    """What is in its pipe then is in the file in the end."""
    fifo = tmp_path / "default.j.1.out.log"
    os.mkfifo(fifo)
    total = log_files.HIGH + 1500 * 1024
    code = f"import os\nrest = b'x' * {total}\nwhile rest: rest = rest[os.write(1, rest[:65536]):]"
    with running_manager(capture_all=True, log_dir=tmp_path) as manager:
        manager.load(ProcessConfig("j", sys.executable, args=["-I", "-c", code], redirect_output=["out"], backoff=100))
        ring = eventually(lambda: manager.running[1], retry_on=(KeyError,)).ring("out")
        eventually(lambda: ring.end >= log_files.HIGH)
        manager.stop_job("j")
        eventually(lambda: ring.closed)
        reader = os.open(fifo, os.O_RDWR)
        found = 0
        while found < ring.end:
            found += len(os.read(reader, 65536))
    os.close(reader)
    assert found == ring.end > log_files.HIGH


def _round_trip(manager: Manager) -> None:
    """Wait until the loop has had its turn."""
    turned: list[bool] = []
    manager.loop.call_soon_threadsafe(turned.append, True)
    eventually(lambda: turned)


@pytest.mark.expects_errors("is not trusted", "can't be written")
@pytest.mark.parametrize("kind", ["fifo", "read fifo", "directory", "link"])
def test_what_stands_in_the_place_of_a_log_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "default.j.1.out.log"
    reader = None
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "read fifo" else None
    try:
        with running_manager(capture_all=True, log_dir=tmp_path) as manager:
            manager.load(ProcessConfig("j", "sh -c 'echo lost; echo kept >&2; sleep 1000'"))
            eventually(lambda: (tmp_path / "default.j.1.err.log").read_text() == "kept\n", retry_on=(OSError,))
            eventually(lambda: manager.lost_log_bytes == len("lost\n"))
        assert reader is None or os.read(reader, 10) == b""
    finally:
        if reader is not None:
            os.close(reader)
    assert not (tmp_path / "elsewhere").exists()


def test_a_removed_directory_is_made_anew_and_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_manager(capture_all=True, log_dir=state / "logs") as manager:
        manager.load(ProcessConfig("j", "sh -c 'while echo line; do sleep 0.02; done'"))
        log = state / "logs" / "default.j.1.out.log"
        eventually(log.exists)
        state.rename(tmp_path / "moved")
        eventually(log.exists)
        assert manager.lost_log_bytes == 0
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (state, state / "logs")} == {0o700}


def test_each_captured_output_has_its_file_and_detached_and_unlogged_jobs_have_none(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    code = "sh -c 'echo out; echo err >&2; sleep 1000'"
    with running_manager(capture_all=True, log_dir=logs) as manager:
        manager.load(ProcessConfig("two", code, numprocesses=2))
        manager.load(ProcessConfig("merged", code, redirect_output=["a", "a"]), sessionid="s")
        manager.load(ProcessConfig("off", code, logs=False))
        expected = {
            "default.two.1.out.log": "out\n",
            "default.two.1.err.log": "err\n",
            "default.two.2.out.log": "out\n",
            "default.two.2.err.log": "err\n",
            "s.merged.1.out.log": "out\nerr\n",
        }
        eventually(lambda: {path.name: path.read_text() for path in logs.glob("*")} == expected)


def test_a_log_goes_on_over_restarts_and_keeps_its_limit(tmp_path: Path) -> None:
    with running_manager(capture_all=True, log_dir=tmp_path) as manager:
        manager.load(ProcessConfig("j", "echo 0123456789", backoff=0, log_max_bytes=33, log_backups=1))
        eventually(lambda: manager.info("j")["restarts"] >= 12)
    assert {path.name for path in tmp_path.iterdir()} == {"default.j.1.out.log", "default.j.1.out.log.1"}
    assert (tmp_path / "default.j.1.out.log.1").read_text() == 3 * "0123456789\n"


def _numbers(path: Path) -> list[int]:
    """The whole numbered lines of a log, over its files."""
    files = sorted(path.parent.glob(f"{path.name}*"), key=lambda file: int(file.suffix[1:]) if file != path else 0)
    assert all(file.read_bytes().endswith(b"\n") for file in files), "a line was cut"
    lines = b"".join(file.read_bytes() for file in reversed(files)).decode().splitlines()
    assert all(line.endswith(".") for line in lines)
    return [int(line.split()[0]) for line in lines]


@pytest.mark.parametrize("log_format", ["raw", "timestamps", "json"])
def test_rotation_loses_and_cuts_no_line_of_a_process_that_never_stops(tmp_path: Path, log_format: str) -> None:
    """It writes pieces that end within lines, as a program whose output is buffered does."""
    code = (
        "import os\n"
        "lines = b''.join(b'%d %s.\\n' % (n, b'x' * (n % 90)) for n in range(60_000))\n"
        "at = 0\n"
        "while at < len(lines): at += os.write(1, lines[at:at + 1 + (at * 7919) % 5000])\n"
        "while True: os.write(2, b'more\\n' * 1000)\n"
    )
    with running_manager(capture_all=True, log_dir=tmp_path) as manager:
        settings = {"log_max_bytes": 200_000, "log_backups": 100, "log_format": log_format}
        manager.load(ProcessConfig("j", sys.executable, args=["-I", "-c", code], **settings))  # type: ignore[arg-type]
        eventually(lambda: (tmp_path / "default.j.1.err.log.2").exists(), 30)
        assert manager.lost_log_bytes == 0
    path = tmp_path / "default.j.1.out.log"
    if log_format != "raw":
        for file in tmp_path.glob("default.j.1.out.log*"):
            lines = file.read_text().splitlines()
            texts = [json.loads(line)["message"] if log_format == "json" else line[25:] for line in lines]
            file.write_text("".join(f"{text}\n" for text in texts))
    assert len(list(tmp_path.glob("default.j.1.out.log*"))) > 10
    assert _numbers(path) == list(range(60_000))


def test_the_unfinished_line_of_a_full_file_goes_into_the_next(writer: LogWriter) -> None:
    file = writer.file("j.log", Rotation(20, 3))
    file.put(b"0123456789\nabcdef")
    eventually(lambda: file.path.exists() and file.path.stat().st_size == 17)
    file.put(b"ghi\nj\n")
    writer.close()
    assert file.path.read_bytes() == b"abcdefghi\nj\n"
    assert file.path.with_name("j.log.1").read_bytes() == b"0123456789\n"


def test_a_line_longer_than_a_file_is_cut(writer: LogWriter) -> None:
    file = writer.file("j.log", Rotation(10, 3))
    file.put(b"01234567")
    eventually(lambda: file.path.exists() and file.path.stat().st_size == 8)
    file.put(b"89abcdef\n")
    writer.close()
    assert file.path.with_name("j.log.1").read_bytes() + file.path.read_bytes() == b"0123456789abcdef\n"


def test_the_last_line_is_written_when_a_process_ends_without_a_newline(tmp_path: Path) -> None:
    with running_manager(capture_all=True, log_dir=tmp_path) as manager:
        manager.load(ProcessConfig("j", "printf last", log_format="json", kind="once"))
        log = tmp_path / "default.j.1.out.log"
        assert json.loads(eventually(lambda: log.read_text(), retry_on=(OSError,)))["message"] == "last"


def test_a_line_with_a_timestamp_never_follows_an_unfinished_one(tmp_path: Path) -> None:
    with running_manager(capture_all=True, log_dir=tmp_path) as manager:
        manager.load(ProcessConfig("j", "printf first", log_format="timestamps", backoff=0, startsecs=0))
        log = tmp_path / "default.j.1.out.log"
        eventually(lambda: log.read_text().count("\n") >= 2, retry_on=(OSError,))
    assert all(line.endswith("Z first") for line in log.read_text().splitlines())


@needs_mount
@pytest.mark.expects_errors("No space left on device; [0-9]+ bytes of logs lost so far")
@pytest.mark.parametrize("log_format", ["raw", "timestamps", "json"])
def test_what_a_full_disk_lost_is_counted_and_marked_once_there_is_room(tmp_path: Path, log_format: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], check=True)
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (16 * 1024 - 8) * 1024)  # more than what is on its way when it goes
        code = "sh -c 'while [ -e go ]; do echo 0123456789012345678901234567890123456789; done; cat'"
        (tmp_path / "go").touch()
        with running_manager(capture_all=True, log_dir=disk / "logs") as manager:
            manager.load(ProcessConfig("j", code, cwd=str(tmp_path), log_format=log_format, log_max_bytes=0))
            eventually(lambda: manager.info("j")["log_lost_bytes"] > 100_000, 20)
            (tmp_path / "go").unlink()
            ballast.unlink()
            manager.load(ProcessConfig("other", "sleep 1000"))
            assert manager.info("other")["log_lost_bytes"] == 0
        text = (disk / "logs" / "default.j.1.out.log").read_text()
    finally:
        subprocess.run(["umount", disk], check=True)
    marker = r'"lost":([0-9]+),"reason":"No space' if log_format == "json" else "gaffer: ([0-9]+) bytes lost: No space"
    marked = [int(number) for number in re.findall(marker, text)]
    assert sum(marked) == manager.lost_log_bytes > 100_000
    assert text.count("lost") == len(marked)
