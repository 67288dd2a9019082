"""The place of a log file in the log that it is part of, and when its parts were written.

Each log has one range of offsets, from its first byte ever, over all its files. A file carries its place in two
extended attributes, so that it keeps it wherever it is moved: `user.gaffer.log` is the epoch of the log, a random id,
and the offset of the first byte; `user.gaffer.marks` are the marks. A mark is the position in the file at which a
segment begins and the wall-clock time of its last write. Where a file system has no such attributes, they are kept in
memory.
"""

import errno
import os
import secrets
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_MARKS = 200  # in a file: they fit into one block of ext4
SEGMENT = 0.25  # seconds that the newest segments last at most
PRECISION = 0.1  # of the age of a segment: older segments are joined while they stay this short

_LABEL, _MARKS = "user.gaffer.log", "user.gaffer.marks"
_MAX_FILES = 4096  # whose attributes are kept in memory
_UNSUPPORTED = (errno.ENOTSUP, errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.EPERM, errno.EACCES)
_MARK = struct.Struct("<Qd")


class Label(NamedTuple):
    """The place of a file: it begins at `offset` of the log with the id `epoch`."""

    epoch: str
    offset: int


class Mark(NamedTuple):
    """A segment of a file: it begins at `start`, in bytes, and was last written at `last`, in wall-clock seconds."""

    start: int
    last: float


def new_label() -> Label:
    """Return the label of the first file of a log."""
    return Label(secrets.token_hex(8), 0)


def thin(marks: Sequence[Mark], now: float) -> list[Mark]:
    """Join segments, so that the older ones last longer; the oldest in pairs if more than 9 of 10 would be left."""
    kept: list[Mark] = []
    for mark in marks:
        if len(kept) > 1 and mark.last - kept[-2].last <= PRECISION * (now - mark.last):
            kept[-1] = Mark(kept[-1].start, mark.last)
        else:
            kept.append(mark)
    half = len(kept) // 2
    if len(kept) > MAX_MARKS * 9 // 10:
        pairs = [kept[at : at + 2] for at in range(0, half, 2)]
        kept = [Mark(pair[0].start, pair[-1].last) for pair in pairs] + kept[half + half % 2 :]
    return kept


def start_since(marks: Iterable[Mark], moment: float) -> int | None:
    """Return the start of the first segment that was written at or after `moment`; None if there is none."""
    return next((mark.start for mark in marks if mark.last >= moment), None)


class Attributes:
    """Reads and writes labels and marks of open files, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, str], bytes] = OrderedDict()

    def label(self, fd: int) -> Label | None:
        """Return the label of a file, or None if it has none or a damaged one."""
        epoch, _, offset = (self._get(fd, _LABEL) or b"").decode("ascii", "replace").partition(" ")
        valid = epoch.isalnum() and offset.isascii() and offset.isdecimal() and len(offset) < 19
        return Label(epoch, int(offset)) if valid else None

    def set_label(self, fd: int, label: Label) -> None:
        """Set the label of a file and remove its marks."""
        self._set(fd, _LABEL, f"{label.epoch} {label.offset}".encode())
        self._set(fd, _MARKS, b"")

    def marks(self, fd: int) -> list[Mark]:
        """Return the marks of a file, oldest first."""
        data = self._get(fd, _MARKS) or b""
        return [Mark(*found) for found in _MARK.iter_unpack(data[: len(data) // _MARK.size * _MARK.size])]

    def set_marks(self, fd: int, marks: Iterable[Mark]) -> None:
        """Set the marks of a file."""
        self._set(fd, _MARKS, b"".join(_MARK.pack(*mark) for mark in marks))

    def _get(self, fd: int, name: str) -> bytes | None:
        with self._lock:
            status = os.fstat(fd)
            kept = self._kept.get((status.st_dev, status.st_ino, name))
        if kept is not None or not hasattr(os, "getxattr"):
            return kept
        try:
            return os.getxattr(fd, name)
        except OSError:
            return None

    def _set(self, fd: int, name: str, value: bytes) -> None:
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino, name)
        try:
            if not hasattr(os, "setxattr"):
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            with self._lock:
                self._kept[key] = value
                self._kept.move_to_end(key)
                while len(self._kept) > _MAX_FILES:
                    self._kept.popitem(last=False)
        else:
            with self._lock:
                self._kept.pop(key, None)
