"""Log files: what is written where, what happens when the disk is slow or full."""

import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer.loop import new_loop
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gaffer.streams import log_files
from gaffer.streams.log_files import LogWriter
from gaffer.streams.rotation import Rotation
from support.managers import running_manager
from support.needs import needs_linux
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
        os.close(reader)
        assert found == ring.end == total


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
