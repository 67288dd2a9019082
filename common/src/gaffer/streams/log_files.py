"""Log files: a thread appends the output of processes to files in a directory, and rotates them.

A file is opened for each batch of data and closed after it, so that logs of hundreds of processes need no descriptors
and a file may be moved or removed at any time. The thread pauses before each round, so that batches are few: otherwise
it would interrupt the loop for every line. A producer that is faster than the disk is held back, so nothing is dropped.
If the system can't write (for instance, no space is left), holding the producer back would stop a service because of
its log: the data is dropped then, and reported in our own log at most once a minute.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue

from gaffer.errors import GafferError
from gaffer.runtime.trusted_files import UntrustedFile, open_log
from gaffer.streams.rotation import Rotation

log = logging.getLogger("gaffer.logs")

HIGH, LOW = 1024 * 1024, 256 * 1024  # queued bytes: the producer is held at HIGH and resumes at LOW
_PAUSE = 0.02  # seconds before each round, unless much is queued
_IOV_MAX = 1024  # maximum buffers of one writev(2)
_REPORT_INTERVAL = 60.0  # seconds
_CLOSE_TIMEOUT = 5.0  # seconds to wait for the last writes


class LogWriter:
    """The writer thread. `directory` is created when first needed (mode 0700), as are its files (0600)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        self.directory = directory
        self.lost = 0  # bytes that could not be written
        self._loop = loop
        self._lock = threading.Lock()
        self._due: SimpleQueue[LogFile | None] = SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported: float | None = None

    def start(self) -> None:
        """Start the thread if it is not running; raises GafferError (`no_thread`) if that fails."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log files", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise GafferError(
                    "can't start the thread that writes log files",
                    reason="no_thread",
                    hint="raise the limit on memory (ulimit -v) or on processes (ulimit -u)",
                ) from None
            self._thread = thread

    def file(self, name: str, rotation: Rotation) -> "LogFile":
        """Return the log file `name`, without opening it."""
        return LogFile(self._loop, self._lock, self._due, self._hurry, self.directory / name, rotation)

    def close(self) -> None:
        """Write all queued data and end the thread; give up after 5 seconds. Call it on the loop."""
        if self._thread is not None:
            self._due.put(None)
            self._hurry.set()
            self._thread.join(_CLOSE_TIMEOUT)
            if self._thread.is_alive():
                log.error("timed out writing the last logs to %s", self.directory)
            self._thread = None

    def _run(self) -> None:
        ending = False
        size = 0  # of the last round
        while not ending or not self._due.empty():
            due = [self._due.get()]
            if size < LOW:
                self._hurry.wait(_PAUSE)
                self._hurry.clear()
            while not self._due.empty():
                due.append(self._due.get())
            size = sum(self._write(file) for file in due if file is not None)
            ending = ending or None in due

    def _write(self, file: "LogFile") -> int:
        """Write the queued data of a file; return the number of bytes."""
        data = file.take()
        self._append(file, data)
        size = sum(map(len, data))
        file.written(size)
        return size

    def _append(self, file: "LogFile", data: Iterable[bytes]) -> None:
        left = sum(map(len, data))
        fd: int | None = None
        try:
            fd = _open(file.path)
            size = os.fstat(fd).st_size
            for parts, length in _batches(data):
                # Usually all at once; piece by piece if the file must be rotated.
                written = os.writev(fd, parts) if file.rotation.fits(size, length) else 0
                size += written
                left -= written
                rest = b"".join(parts)[written:] if written < length else b""
                while rest:
                    count = file.rotation.room(size, rest)
                    if count:
                        written = os.write(fd, rest[:count])
                        size += written
                        left -= written
                        rest = rest[written:]
                    else:
                        _rotate(file.path, file.rotation)
                        os.close(fd)
                        fd = None
                        fd, size = _open(file.path), 0
        except OSError as error:
            self._report_loss(f"can't write {file.path}: {error.strerror}", left)
        except UntrustedFile as error:
            self._report_loss(error.message, left)
        finally:
            if fd is not None:
                os.close(fd)

    def _report_loss(self, fault: str, size: int) -> None:
        self.lost += size
        now = time.monotonic()
        if self._reported is None or now - self._reported >= _REPORT_INTERVAL:
            self._reported = now
            log.error("%s; %d bytes of logs lost so far", fault, self.lost)


class LogFile:
    """A file and the data queued for it. Call `put` on the loop; the writer's thread calls the other methods."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: threading.Lock,
        due: "SimpleQueue[LogFile | None]",
        hurry: threading.Event,
        path: Path,
        rotation: Rotation,
    ) -> None:
        self.path = path
        self.rotation = rotation
        self.on_room: Callable[[], object] = lambda: None  # called on the loop when a producer may resume
        self._loop = loop
        self._lock = lock
        self._due = due
        self._hurry = hurry
        self._data: deque[bytes] = deque()
        self._waiting = 0
        self._held = False

    def put(self, data: bytes) -> bool:
        """Queue `data`; return False if the producer must wait for `on_room`."""
        with self._lock:
            if not self._waiting:
                self._due.put(self)
            self._data.append(data)
            self._waiting += len(data)
            self._held = self._waiting >= HIGH
            if self._waiting >= LOW:
                self._hurry.set()
            return not self._held

    def take(self) -> "deque[bytes]":
        """Remove and return all queued data."""
        with self._lock:
            data, self._data = self._data, deque()
            return data

    def written(self, size: int) -> None:
        """Record that `size` of the taken bytes were written or dropped."""
        with self._lock:
            self._waiting -= size
            if self._waiting:
                self._due.put(self)
            resume = self._held and self._waiting <= LOW
            self._held = self._held and not resume
        if resume:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self.on_room)


def _open(path: Path) -> int:
    try:
        return open_log(path)
    except FileNotFoundError:
        missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        for folder in reversed(missing):  # one by one: mkdir(parents=True) applies the mode only to the last
            folder.mkdir(mode=0o700, exist_ok=True)
        return open_log(path)


def _rotate(path: Path, rotation: Rotation) -> None:
    # Removed, not replaced: ext4 flushes a file to disk when it replaces another.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(rotation.oldest(str(path)))
    for source, target in rotation.renames(str(path)):
        with contextlib.suppress(FileNotFoundError):  # fewer backups exist
            os.rename(source, target)


def _batches(data: Iterable[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield `data` as lists that writev(2) accepts, each with its size in bytes."""
    parts = iter(data)
    while batch := list(itertools.islice(parts, _IOV_MAX)):
        yield batch, sum(map(len, batch))
