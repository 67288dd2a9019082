"""Appending to a log file that may have to be rotated meanwhile."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from gaffer.streams.log_place import Place, ends_with
from gaffer.streams.log_progress import Progress
from gaffer.streams.rotation import Rotation

_MAX_CARRIED = 64 * 1024  # bytes of an unfinished line that goes into the next file as a whole


class Appender:
    """The open file of a `place`. `written` counts the bytes of `write`; closing it records them in the marks.

    With `ends_line`, an unfinished line in the file is ended first. `progress` notes each write. Every method raises
    OSError and UntrustedFile.
    """

    def __init__(
        self,
        open_file: Callable[[Path], int],
        place: Place,
        rotation: Rotation,
        *,
        ends_line: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.written = 0
        self._open = open_file
        self._place = place
        self._rotation = rotation
        self._ends_line = ends_line
        self._progress = progress
        self._fd = -1
        self._size = self._recorded = 0

    def __enter__(self) -> Self:
        self._fd = self._open(self._place.path)
        try:
            self._size = self._recorded = self._place.enter(self._fd)
            if self._ends_line:
                self._end_line()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            if self._progress is not None:
                self._progress.settle(self.written)
            self._record()
        finally:
            os.close(self._fd)

    def write(self, parts: Sequence[bytes], length: int) -> None:
        """Append `parts`, `length` bytes in all; the file is rotated where it is full."""
        # Usually all at once; piece by piece if the file must be rotated.
        rest = b""
        if self._rotation.fits(self._size, length):
            self._intend(length)
            written = os.writev(self._fd, parts)
            self._count(written)
            if written == length:
                return
            rest = b"".join(parts)[written:]
        else:
            rest = b"".join(parts)
        while rest:
            count = self._rotation.room(self._size, rest)
            if count:
                self._intend(count)
                written = os.write(self._fd, rest[:count])
                self._count(written)
                rest = rest[written:]
            else:
                self._rotate()

    def write_line(self, line: bytes) -> None:
        """Append a line of our own as a whole or not at all, after the end of an unfinished one."""
        if not self._rotation.fits(self._size, len(line) + 1):
            self._rotate()
        self._end_line()
        self._write_whole(line)

    def save(self) -> None:
        """Save the marks of the file."""
        self._record()
        self._place.save(self._fd, time.time())

    def _intend(self, count: int) -> None:
        identity = self._place.identity
        if self._progress is not None and identity is not None:
            self._progress.intend(identity, self._size, self.written, count)

    def _count(self, written: int) -> None:
        self._size += written
        self.written += written

    def _record(self) -> None:
        if self._size != self._recorded:
            self._place.wrote(self._fd, self._size, time.time())
            self._recorded = self._size

    def _end_line(self) -> None:
        if self._last_bytes(1) not in (b"", b"\n"):
            self._write_whole(b"\n")

    def _write_whole(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        if written < len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def _last_bytes(self, limit: int) -> bytes:
        identity = self._place.identity
        return b"" if identity is None else ends_with(self._place.path, identity, self._size, limit)

    def _rotate(self) -> None:
        """Begin the next file, with the unfinished line at the end of this one."""
        if self._progress is not None:
            self._progress.settle(self.written)
        self._record()
        line = self._last_bytes(_MAX_CARRIED + 1).rpartition(b"\n")[2]
        carried = line if len(line) <= _MAX_CARRIED and len(line) < self._size else b""
        self._place.save(self._fd, time.time())
        _shift_files(self._place.path, self._rotation)
        full, end = self._fd, self._size
        self._fd = self._open(self._place.path)
        try:
            self._place.shorten(end - len(carried))
            self._place.begin(self._fd)
            self._size = self._recorded = 0
            if carried:
                self._carry(carried, full, end)
        finally:
            os.close(full)

    def _carry(self, line: bytes, full: int, end: int) -> None:
        try:
            self._write_whole(line)
        except OSError:
            self._place.shorten(len(line))
            self._place.begin(self._fd)
            raise
        with contextlib.suppress(OSError):  # readers skip what the next file repeats
            os.ftruncate(full, end - len(line))
        self._record()


def _shift_files(path: Path, rotation: Rotation) -> None:
    # Removed, not replaced: ext4 flushes a file to disk when it replaces another.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(rotation.oldest(str(path)))
    for source, target in rotation.renames(str(path)):
        with contextlib.suppress(FileNotFoundError):  # fewer backups exist
            os.rename(source, target)
