"""What the writer knows of the file that it appends to: its place in the log, its size, its marks."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from gaffer.runtime.trusted_files import UntrustedFile, open_log_to_read
from gaffer.streams.log_index import MAX_MARKS, SEGMENT, Attributes, Label, Mark, new_label, thin

MAX_BACKUPS = 100  # rules.backups allows no more
_SAVE_INTERVAL = 5.0  # seconds between two writes of the marks of a file

Identity = tuple[int, int]


class OpenFile(NamedTuple):
    """An open file of a log, and its status when it was opened."""

    fd: int
    status: os.stat_result

    @property
    def identity(self) -> Identity:
        """What distinguishes it from other files."""
        return identity_of(self.status)


def identity_of(status: os.stat_result) -> Identity:
    """Return what distinguishes a file from others."""
    return status.st_dev, status.st_ino


@contextmanager
def opened(path: Path) -> Iterator[Iterator[OpenFile]]:
    """Open the files of the log at `path` for reading, one by one as the iterator advances, newest first.

    A rotation during that time repeats a file or omits the new one, but misses none. Raises OSError, UntrustedFile.
    """
    with ExitStack() as stack:
        yield _open_each(path, stack)


def _open_each(path: Path, stack: ExitStack) -> Iterator[OpenFile]:
    seen: set[Identity] = set()
    for number in range(MAX_BACKUPS + 1):
        try:
            fd = open_log_to_read(f"{path}.{number}" if number else path)
        except FileNotFoundError:
            if number:
                return
            continue  # it was moved away
        stack.callback(os.close, fd)
        file = OpenFile(fd, os.fstat(fd))
        if file.identity not in seen:
            seen.add(file.identity)
            yield file


def label_files(files: Sequence[OpenFile], attributes: Attributes) -> None:
    """Give a label to each file without one. `files` are all files of a log, newest first."""
    labels = [attributes.label(file.fd) for file in files]
    sizes = [file.status.st_size for file in files]
    for index in reversed(range(len(files))):
        if labels[index] is None:
            labels[index] = label = _missing_label(index, labels, sizes)
            attributes.set_label(files[index].fd, label)


def _missing_label(index: int, labels: Sequence[Label | None], sizes: Sequence[int]) -> Label:
    older = labels[index + 1] if index + 1 < len(labels) else None
    if older is not None:
        return Label(older.epoch, older.offset + sizes[index + 1])
    newer = next(((at, label) for at in reversed(range(index)) if (label := labels[at]) is not None), None)
    if newer is not None:
        at, label = newer
        offset = label.offset - sum(sizes[at + 1 : index + 1])
        if offset >= 0:
            return Label(label.epoch, offset)
    return new_label()


def marks_until(marks: Sequence[Mark], changed: float) -> list[Mark]:
    """Return marks of a file that was last changed at `changed`, which later segments may have been lost of."""
    if not marks:
        return [Mark(0, changed)]
    return [*marks[:-1], Mark(marks[-1].start, max(marks[-1].last, changed))]


class Place:
    """The current file of a log. Used by the writer's thread; `identity` and `marks` may be read in any thread."""

    def __init__(self, path: Path, attributes: Attributes, labelling: threading.Lock) -> None:
        self.path = path
        self.identity: Identity | None = None
        self.marks: list[Mark] = []
        self.unsaved = False
        self._attributes = attributes
        self._labelling = labelling
        self._label = new_label()
        self._size = 0
        self._segment_began = 0.0
        self._saved_at = 0.0

    def enter(self, fd: int) -> int:
        """Find out the place of the file opened for writing as `fd`; return its size."""
        status = os.fstat(fd)
        identity, size = identity_of(status), status.st_size
        if identity == self.identity and size >= self._size:
            self._size = size
            return size
        end = self._end
        known = self.identity is not None
        marks = self._attributes.marks(fd)
        found = self._attributes.label(fd) if size and identity != self.identity else None
        if found is None and known:  # moved away, removed or truncated
            self.begin(fd, end)
        elif marks and (marks[-1].start > size or not size):
            self.begin(fd, new_label())  # truncated while nothing wrote it: where it ended is not known
        else:
            self._label = found if found is not None else self._settle(fd)
            self.marks = marks_until(marks, status.st_mtime) if size else []
        self.identity = identity
        self._size = size
        self._segment_began = 0.0
        return size

    def begin(self, fd: int, label: Label | None = None) -> None:
        """Label a new file; by default it follows the current one."""
        self._label = label or self._end
        with self._labelling:
            self._attributes.set_label(fd, self._label)
        self.identity = identity_of(os.fstat(fd))
        self.marks = []
        self.unsaved = False
        self._size = 0
        self._segment_began = 0.0

    @property
    def _end(self) -> Label:
        return Label(self._label.epoch, self._label.offset + self._size)

    def _settle(self, fd: int) -> Label:
        """Label the files of the log; return the label of the current one."""
        with self._labelling, suppress(OSError, UntrustedFile), opened(self.path) as files:
            label_files(list(files), self._attributes)
        label = self._attributes.label(fd)
        if label is None:  # it was moved away meanwhile
            label = new_label()
            self._attributes.set_label(fd, label)
        return label

    def wrote(self, fd: int, size: int, now: float) -> None:
        """Record that the file has grown to `size` bytes; `now` in wall-clock seconds."""
        if self.marks and 0 <= now - self._segment_began < SEGMENT:
            self.marks[-1] = Mark(self.marks[-1].start, now)
        else:
            self.marks.append(Mark(self._size, now))
            self._segment_began = now
            if len(self.marks) > MAX_MARKS:
                self.marks = thin(self.marks, now)
        self._size = size
        self.unsaved = True
        if not 0 <= now - self._saved_at < _SAVE_INTERVAL:
            self.save(fd, now)

    def shorten(self, size: int) -> None:
        """Record that the file is to end at `size` bytes, because the next one takes over the rest."""
        self._size = size

    def save(self, fd: int, now: float) -> None:
        """Write the marks into the attributes of the file."""
        self._attributes.set_marks(fd, self.marks)
        self.unsaved = False
        self._saved_at = now


def ends_with(path: Path, identity: Identity, size: int, limit: int) -> bytes:
    """Return the last bytes, at most `limit`, of the file at `path`; empty unless it has this identity and size."""
    try:
        fd = open_log_to_read(path)
    except (OSError, UntrustedFile):
        return b""
    try:
        status = os.fstat(fd)
        if identity_of(status) != identity or status.st_size != size:
            return b""
        return os.pread(fd, limit, max(0, size - limit))
    finally:
        os.close(fd)
