"""Reading log files by offset, tail and time while they are written, rotated and moved."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gaffer.streams.log_files import LogFile, LogWriter
from gaffer.streams.log_formats import make_formatter
from gaffer.streams.log_names import LogName
from gaffer.streams.log_store import LogStore, LogUnreadable, StoredLog
from gaffer.streams.rotation import Rotation
from support.poll import eventually_async

NAME = LogName("default.j", 1, "out")
UNLIMITED = Rotation(0, 0)


class Logs:
    """A log with its writer and reader."""

    def __init__(self, directory: Path) -> None:
        loop = asyncio.get_running_loop()
        self.writer = LogWriter(loop, directory)
        self.writer.start()
        self.store = LogStore(loop, self.writer)
        self.path = directory / str(NAME)

    @property
    def log(self) -> StoredLog:
        return self.store.log(NAME)

    def file(self, rotation: Rotation = UNLIMITED, kind: str = "raw") -> LogFile:
        return self.writer.file(str(NAME), rotation, make_formatter(kind, "out", 7), NAME.job)

    async def write(self, file: LogFile, *parts: bytes) -> None:
        """Write the parts one by one."""
        for part in parts:
            end = (await self.log.extent()).end + len(part)
            file.put(part)
            await eventually_async(lambda end=end: self._reached(end))  # type: ignore[misc]

    async def _reached(self, end: int) -> bool:
        return (await self.log.extent()).end >= end

    def close(self) -> None:
        self.writer.close()
        self.store.close()


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    logs = Logs(tmp_path / "logs")
    yield logs
    logs.close()


@pytest.fixture(params=["attributes", "memory"])
def kept_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where labels and marks are kept: some systems and file systems have no extended attributes."""
    if request.param == "memory":
        monkeypatch.delattr(os, "setxattr")
    return str(request.param)


async def read_all(log: StoredLog, offset: int = 0, size: int = 1000) -> tuple[int, bytes]:
    """The offset of the first byte, and all bytes."""
    first, data = None, b""
    while (piece := await log.read(offset, size)).data:
        first = piece.offset if first is None else first
        assert piece.gap == max(0, piece.offset - offset)
        data += piece.data
        offset = piece.end
    return first or 0, data


@pytest.mark.usefixtures("kept_in")
async def test_offsets_run_on_over_rotations_and_lost_files_are_a_gap(logs: Logs) -> None:
    file = logs.file(Rotation(100, 2))
    parts = [b"line %04d\n" % number for number in range(50)]
    await logs.write(file, *parts)
    whole = b"".join(parts)
    extent = await logs.log.extent()
    assert (extent.start, extent.end) == (200, 500)
    assert await read_all(logs.log) == (200, whole[200:])
    assert await read_all(logs.log, 333) == (333, whole[333:])
    assert await logs.log.offset_of_tail_lines(3) == 470
    assert await logs.log.offset_of_tail_lines(25) == 250
    assert await logs.log.offset_of_tail_lines(1000) == 200
    assert await logs.log.offset_of_tail_lines(0) == 500


@pytest.mark.usefixtures("kept_in")
async def test_whatever_is_read_is_what_was_written_there(logs: Logs) -> None:
    """Any offset, while files are rotated between lines and within them."""
    chance = random.Random(7)
    file = logs.file(Rotation(300, 3))
    whole = b""
    for _ in range(40):
        part = bytes(chance.choice(b"abcdefghijklmnopqrs\n") for _ in range(chance.randint(1, 150)))
        whole += part
        await logs.write(file, part)
        offset, size = chance.randint(0, len(whole)), chance.randint(1, 200)
        piece = await logs.log.read(offset, size)
        extent = await logs.log.extent()
        assert extent.end == len(whole)
        start = max(offset, extent.start)
        if start < extent.end:
            assert piece.gap == start - offset
            assert piece.data
            assert piece.data == whole[piece.offset : piece.offset + len(piece.data)]
        back = chance.randint(1, 30)
        tail = b"".join(whole.splitlines(keepends=True)[-back:])
        assert await logs.log.offset_of_tail_lines(back) == max(extent.end - len(tail), extent.start)
    assert extent.start > 0


async def test_a_later_run_goes_on_with_offsets_and_times(tmp_path: Path) -> None:
    first = Logs(tmp_path)
    await first.write(first.file(Rotation(50, 3)), *(b"line %03d\n" % number for number in range(12)))
    before = await first.log.extent()
    first.close()
    second = Logs(tmp_path)
    assert await second.log.extent() == before
    await second.write(second.file(Rotation(50, 3)), b"more\n")
    assert (await second.log.extent()).epoch == before.epoch
    assert await read_all(second.log, before.end) == (before.end, b"more\n")
    second.close()


@pytest.mark.usefixtures("kept_in")
async def test_files_of_an_earlier_version_get_offsets_from_the_oldest_on(logs: Logs) -> None:
    logs.path.parent.mkdir()
    for suffix, text in (("", "c\n"), (".1", "bb\n"), (".2", "aaa\n")):
        logs.path.with_name(logs.path.name + suffix).write_text(text)
    assert await read_all(logs.log) == (0, b"aaa\nbb\nc\n")
    await logs.write(logs.file(), b"d\n")
    assert await read_all(logs.log, 4) == (4, b"bb\nc\nd\n")


@pytest.mark.usefixtures("kept_in")
@pytest.mark.parametrize("how", ["renamed", "removed", "truncated"])
async def test_offsets_run_on_when_another_program_rotates(logs: Logs, how: str) -> None:
    file = logs.file()
    await logs.write(file, b"before\n")
    epoch = (await logs.log.extent()).epoch
    if how == "renamed":
        logs.path.rename(logs.path.with_name("moved"))
    elif how == "removed":
        logs.path.unlink()
    else:
        os.truncate(logs.path, 0)
    file.put(b"after\n")
    await eventually_async(lambda: logs.path.exists() and logs.path.stat().st_size == 6)
    assert (await logs.log.extent()) == (epoch, 7, 13)
    assert await read_all(logs.log) == (7, b"after\n")


@pytest.mark.usefixtures("kept_in")
async def test_a_file_truncated_between_two_runs_begins_another_log(tmp_path: Path) -> None:
    first = Logs(tmp_path)
    await first.write(first.file(), b"before\n")
    epoch = (await first.log.extent()).epoch
    first.close()
    os.truncate(first.path, 0)
    second = Logs(tmp_path)
    await second.write(second.file(), b"after\n")
    assert (await second.log.extent()).epoch != epoch
    assert await read_all(second.log) == (0, b"after\n")
    second.close()


@pytest.mark.parametrize("kind", ["raw", "timestamps", "json"])
@pytest.mark.usefixtures("kept_in")
async def test_a_time_finds_what_was_written_since(logs: Logs, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time()  # the system sets the times of files by its own clock
    now = [began]
    monkeypatch.setattr(time, "time", lambda: now[0])
    file = logs.file(Rotation(300, 3), kind)
    starts = []
    for number in range(12):
        now[0] = began + 60 * number
        starts.append((await logs.log.extent()).end)
        await logs.write(file, b"line %d\n" % number)
    kept = (await logs.log.extent()).start
    for number in (3, 7, 11):
        assert await logs.log.offset_since(began + 60 * number) == max(starts[number], kept)
        assert await logs.log.offset_since(began + 60 * number - 30) == max(starts[number], kept)
    assert await logs.log.offset_since(0) == kept
    assert await logs.log.offset_since(began + 1e6) == (await logs.log.extent()).end


@pytest.mark.parametrize(("step", "finished"), [(6, False), (1, True)])
async def test_a_later_run_knows_when_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, finished: bool
) -> None:
    """Also after a crash, but for the last seconds."""
    began = time.time()
    now = [began]
    monkeypatch.setattr(time, "time", lambda: now[0])
    first = Logs(tmp_path)
    file = first.file()
    for number in range(4):
        now[0] = began + step * number
        await first.write(file, b"line %d\n" % number)
    if finished:
        file.finish()
    first.close()
    del file
    second = Logs(tmp_path)
    assert await second.log.offset_since(began + step * 2) == 14
    second.close()


async def test_what_a_failed_rotation_left_twice_is_read_once(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, size: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "ftruncate", refuse)
    file = logs.file(Rotation(20, 3))
    await logs.write(file, b"0123456789\nabcdef", b"ghi\nj\n")
    assert logs.path.with_name(logs.path.name + ".1").read_bytes() == b"0123456789\nabcdef"
    assert await read_all(logs.log) == (0, b"0123456789\nabcdefghi\nj\n")


@pytest.mark.parametrize("kind", ["timestamps", "json"])
async def test_timestamps_are_more_exact_than_segments(logs: Logs, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time()
    now = [began]
    monkeypatch.setattr(time, "time", lambda: now[0])
    file = logs.file(kind=kind)
    for number in range(5):
        now[0] += 0.01
        start = (await logs.log.extent()).end
        await logs.write(file, b"line %d\n" % number)
    assert await logs.log.offset_since(began + 0.05) == start > 0


async def test_watchers_learn_of_growth_until_they_stop(logs: Logs) -> None:
    seen: list[str] = []
    logs.store.watch(NAME.job, seen.append)
    file = logs.file()
    await logs.write(file, b"a\n")
    await eventually_async(lambda: seen == [str(NAME)])
    logs.store.unwatch(NAME.job, seen.append)
    await logs.write(file, b"b\n")
    assert seen == [str(NAME)]


async def test_the_logs_of_a_job_are_found_by_slot_also_when_only_a_backup_is_left(logs: Logs) -> None:
    logs.path.parent.mkdir()
    for name in ("default.j.10.out.log", "default.j.2.err.log.1", "default.j.2.out.log", "default.jj.1.out.log", "x"):
        (logs.path.parent / name).touch()
    (logs.path.parent / "default.j.2.out.logs").touch()
    assert [name.label for name in await logs.store.find("default.j")] == ["2.out", "2.err", "10.out"]
    assert await logs.store.find("default.none") == []


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "backup link"])
async def test_nothing_but_files_is_read(logs: Logs, tmp_path: Path, kind: str) -> None:
    logs.path.parent.mkdir()
    (tmp_path / "secret").write_text("secret")
    if kind == "fifo":
        os.mkfifo(logs.path)
    elif kind == "directory":
        logs.path.mkdir()
    else:
        path = logs.path if kind == "link" else logs.path.with_name(logs.path.name + ".1")
        path.symlink_to(tmp_path / "secret")
    with pytest.raises(LogUnreadable):
        await logs.log.read(0)


async def test_no_log_is_empty(logs: Logs) -> None:
    assert await logs.log.extent() == ("", 0, 0)
    assert (await logs.log.read(5)).data == b""
    assert await logs.log.offset_of_tail_lines(5) == 0
    assert await logs.log.offset_since(0) == 0
