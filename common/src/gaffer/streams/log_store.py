"""Reading what log files hold, by offset, time and tail, while they grow and are rotated.

A log has one range of offsets over all its files. Each read opens the files it needs, returns a bounded piece, and is
made in a thread; nothing is kept open between reads.
"""

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from msgspec import Struct

from gaffer.errors import GafferError
from gaffer.runtime.log_lines import timestamp
from gaffer.runtime.trusted_files import UntrustedFile
from gaffer.runtime.workers import Workers
from gaffer.streams.log_files import LogWriter, Watcher
from gaffer.streams.log_index import Label, Mark, start_since
from gaffer.streams.log_names import STREAMS, LogName
from gaffer.streams.log_place import OpenFile, label_files, marks_until, opened
from gaffer.streams.rings import READ_SIZE

T = TypeVar("T")

SCAN_SIZE = 1024 * 1024  # maximum bytes that are searched in one read
_THREADS = 2
_CLOCK_LAG = 0.1  # seconds that the time of a file's last change may lag behind the clock
_STAMP = re.compile(rb'^(?:\{"time":")?([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z)', re.MULTILINE)


class LogUnreadable(GafferError):
    """A log file can't be read."""

    errno = 503
    reason = "log_unreadable"


class Extent(NamedTuple):
    """What is kept of a log: the offsets `start` to `end`. `epoch` is its id."""

    epoch: str
    start: int
    end: int


class LogPiece(NamedTuple):
    """A piece of a log: `data` begins at `offset`; the `gap` bytes before it are no longer kept.

    `time` is the wall-clock time at which the bytes after it were last written, as far as is known.
    """

    epoch: str
    offset: int
    data: bytes
    gap: int
    time: float

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


class _Part(Struct, frozen=True):
    """A file of a log, open as `fd`: it holds the offsets `start` to `end`, in segments by `marks`."""

    fd: int
    start: int
    end: int
    marks: Sequence[Mark]

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, max(0, min(size, self.end - offset)), offset - self.start)

    def segment(self, offset: int) -> tuple[int, float]:
        """Return the end of the segment at `offset`, and the time of its last write."""
        for mark, following in zip(self.marks, (*self.marks[1:], None), strict=True):
            end = self.end if following is None else self.start + following.start
            if offset < end:
                return min(end, self.end), mark.last
        return self.end, self.marks[-1].last


class LogStore:
    """The log files of a writer, for readers on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: LogWriter) -> None:
        self._writer = writer
        self._workers = Workers(loop, _THREADS, "log readers")

    def start(self) -> None:
        """Start a thread; raises GafferError (`no_thread`) if that fails."""
        self._workers.start()

    def close(self) -> None:
        """End the threads."""
        self._workers.close()

    def reopen(self) -> None:
        """Write what is queued. The writer keeps no file open, so that a file which was moved away is left at once."""
        self._writer.hurry()

    async def find(self, job: str) -> list[LogName]:
        """Return the logs of a job that have files, by slot, with `out` first; the job need not exist.

        Raises LogUnreadable.
        """
        return await self.run(lambda: self._find(job))

    def _find(self, job: str) -> list[LogName]:
        try:
            with os.scandir(self._writer.directory) as entries:
                found = {LogName.parse(entry.name) for entry in entries if entry.name.startswith(f"{job}.")}
        except FileNotFoundError:
            return []
        logs = [name for name in found if name is not None and name.job == job]
        return sorted(logs, key=lambda name: (name.slot, STREAMS.index(name.stream)))

    def log(self, name: LogName) -> "StoredLog":
        """Return a log, which need not have files yet."""
        return StoredLog(self, self._writer, name)

    def watch(self, job: str, callback: Watcher) -> None:
        """Call `callback(file)` on the loop when the log file of this name, of a job, has grown."""
        self._writer.watch(job, callback)

    def unwatch(self, job: str, callback: Watcher) -> None:
        """Undo `watch`; unknown callbacks are ignored."""
        self._writer.unwatch(job, callback)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call()`, made in a thread; raises LogUnreadable if the system or a check refuses."""
        try:
            return await self._workers.run(call)
        except OSError as error:
            message = f"can't read {error.filename or self._writer.directory}: {error.strerror}"
            raise LogUnreadable(message, hint="see the log of the node") from None
        except UntrustedFile as error:
            raise LogUnreadable(error.message, hint=error.hint) from None


class StoredLog:
    """One log. Every method raises LogUnreadable."""

    def __init__(self, store: LogStore, writer: LogWriter, name: LogName) -> None:
        self.name = name
        self._store = store
        self._writer = writer
        self._path = writer.directory / str(name)

    async def extent(self) -> Extent:
        """Return what is kept of it; an empty epoch if there are no files."""
        return await self._store.run(self._extent)

    async def read(self, offset: int, size: int = READ_SIZE, *, segment: bool = False) -> LogPiece:
        """Return up to `size` bytes from `offset`; without data at the end.

        With `segment` they were written within one interval.
        """
        return await self._store.run(lambda: self._read(offset, size, segment=segment))

    async def offset_of_tail_lines(self, count: int, is_over: Callable[[], bool] = lambda: False) -> int:
        """Return the offset of the last `count` lines, or of the oldest byte; an unfinished line counts.

        The search, which can take long, stops anywhere once `is_over()`.
        """
        extent = await self.extent()
        at, left = extent.end, count + 1
        while count and at > extent.start and not is_over():
            data = await self._store.run(lambda before=at: self._read_before(before))  # type: ignore[misc]
            if not data:
                break
            position = len(data) - (at == extent.end and data.endswith(b"\n"))
            while (position := data.rfind(b"\n", 0, position)) != -1:
                left -= 1
                if left == 1:
                    return int(at - len(data) + position + 1)
            at -= len(data)
        return at

    async def offset_since(self, moment: float, is_over: Callable[[], bool] = lambda: False) -> int:
        """Return the offset of the first byte that may have been written at or after `moment`, wall-clock time.

        In a log with timestamps this is the first line that has no earlier one. The search stops once `is_over()`.
        """
        at, end = await self._store.run(lambda: self._since(moment))
        begin, stamp, stamped = at, timestamp(moment).encode(), False
        while at < end and not is_over():
            data = (await self.read(at, min(SCAN_SIZE, end - at))).data
            for found in _STAMP.finditer(data):
                stamped = True
                if found[1] >= stamp:
                    return at + found.start()
            if not stamped or not data:
                return begin
            at += (data.rfind(b"\n") + 1) or len(data)  # the last line may be cut: look at it again
        return at

    def _extent(self) -> Extent:
        with self._parts() as (epoch, parts):
            return Extent(epoch, parts[-1].start, parts[0].end) if parts else Extent("", 0, 0)

    def _read(self, offset: int, size: int, *, segment: bool) -> LogPiece:
        with self._parts(offset) as (epoch, parts):
            gap = 0
            for part in reversed(parts):
                if offset >= part.end:
                    continue
                if offset < part.start:
                    gap += part.start - offset
                    offset = part.start
                if segment:
                    size = min(size, part.segment(offset)[0] - offset)
                data = part.read(offset, size)
                end = offset + len(data)
                after = next((each for each in reversed(parts) if end < each.end), parts[0])
                return LogPiece(epoch, offset, data, gap, after.segment(max(end, after.start))[1])
            return LogPiece(epoch, offset, b"", 0, 0.0)

    def _read_before(self, end: int) -> bytes:
        with self._parts(end - 1) as (_, parts):
            for part in parts:
                if part.start < end <= part.end:
                    start = max(part.start, end - SCAN_SIZE)
                    return part.read(start, end - start)
        return b""

    def _since(self, moment: float) -> tuple[int, int]:
        """Return where the segment begins that was written at `moment`, and where it ends."""
        with self._parts() as (_, parts):
            for part in reversed(parts):
                start = start_since(part.marks, moment - _CLOCK_LAG)
                if start is not None and part.start + start < part.end:
                    return part.start + start, part.segment(part.start + start)[0]
            return (parts[0].end, parts[0].end) if parts else (0, 0)

    @contextmanager
    def _parts(self, offset: int = 0) -> Iterator[tuple[str, list[_Part]]]:
        """Yield the epoch and the files, newest first, down to the one that holds `offset`."""
        with opened(self._path) as files:
            found: list[_Part] = []
            epoch = ""
            for file, label in self._labelled(files):
                if found and (label.epoch != epoch or label.offset >= found[-1].start):
                    break  # from another log
                epoch = label.epoch
                end = label.offset + file.status.st_size  # a failed rotation may leave a line in two files
                found.append(_Part(file.fd, label.offset, end, self._marks(file)))
                if label.offset <= offset:
                    break
            yield epoch, found

    def _labelled(self, files: Iterator[OpenFile]) -> Iterator[tuple[OpenFile, Label]]:
        attributes = self._writer.attributes
        seen: list[OpenFile] = []
        for file in files:
            seen.append(file)
            label = attributes.label(file.fd)
            if label is None:
                with self._writer.labelling:
                    seen += files
                    label_files(seen, attributes)
                for each in seen[seen.index(file) :]:
                    yield each, attributes.label(each.fd) or Label("", 0)
                return
            yield file, label

    def _marks(self, file: OpenFile) -> list[Mark]:
        place = self._writer.place(self._path, file.identity)
        if place is not None and place.marks:
            return list(place.marks)
        return marks_until(self._writer.attributes.marks(file.fd), file.status.st_mtime)
