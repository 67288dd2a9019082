"""Log files: a thread appends the output of processes to files in a directory, and rotates them.

A file is opened for each batch of data and closed after it, so that logs of hundreds of processes need no descriptors
and a file may be moved or removed at any time. The thread pauses before each round, so that batches are few: otherwise
it would interrupt the loop for every line. A producer that is faster than the disk is held back, so nothing is dropped.
If the system can't write (for instance, no space is left), holding the producer back would stop a service because of
its log: the data is dropped then, reported in our own log at most once a minute, and marked in the file by a line once
it can be written again.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from gaffer.errors import GafferError
from gaffer.runtime.trusted_files import UntrustedFile, open_log
from gaffer.streams.journal import Journal
from gaffer.streams.log_appender import Appender
from gaffer.streams.log_formats import Formatter, make_formatter
from gaffer.streams.log_index import Attributes
from gaffer.streams.log_place import Identity, Place
from gaffer.streams.log_progress import Progress, recover
from gaffer.streams.rings import READ_SIZE
from gaffer.streams.rotation import Rotation

log = logging.getLogger("gaffer.logs")

HIGH, LOW = 1024 * 1024, 256 * 1024  # queued bytes: the producer is held at HIGH and resumes at LOW
_PAUSE = 0.02  # seconds before each round, unless much is queued
_IOV_MAX = 1024  # maximum buffers of one writev(2)
_REPORT_INTERVAL = 60.0  # seconds
_CLOSE_TIMEOUT = 5.0  # seconds to wait for the last writes
_MAX_LOSSES = 1024  # jobs, and files, whose losses are remembered

Watcher = Callable[[str], object]


class _Loss(NamedTuple):
    """Bytes that a file lacks and that no line in it stands for yet."""

    file: "LogFile"
    size: int
    reason: str


class LogWriter:
    """The writer thread. `directory` is created when first needed (mode 0700), as are its files (0600)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        self.directory = directory
        self.lost = 0  # bytes that could not be written
        self.lost_by_job: dict[str, int] = {}
        self.attributes = Attributes()
        self.labelling = threading.Lock()  # held while files without a label get one
        self._loop = loop
        self._lock = threading.Lock()
        self._due: SimpleQueue[LogFile | None] = SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported: float | None = None
        self._failing = False
        self._places: WeakValueDictionary[Path, Place] = WeakValueDictionary()
        self._losses: dict[Path, _Loss] = {}
        self._watchers: dict[str, set[Watcher]] = {}

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

    def file(self, name: str, rotation: Rotation, formatter: Formatter | None = None, job: str = "") -> "LogFile":
        """Return the log file `name` of a job, without opening it. Without a `formatter`, data is written unchanged."""
        path = self.directory / name
        place = self._places.get(path)
        if place is None:
            place = self._places[path] = Place(path, self.attributes, self.labelling)
        formatter = formatter or make_formatter("raw", "out", 0)
        return LogFile(self._loop, self._lock, self._due, self._hurry, place, rotation, formatter, job)

    def place(self, path: Path, identity: Identity) -> Place | None:
        """Return the place of the file at `path` if it is being written and has this identity."""
        place = self._places.get(path)
        return place if place is not None and place.identity == identity else None

    def watch(self, job: str, callback: Watcher) -> None:
        """Call `callback(name)` on the loop when the log file `name` of a job has grown."""
        self._watchers.setdefault(job, set()).add(callback)

    def unwatch(self, job: str, callback: Watcher) -> None:
        """Undo `watch`; unknown callbacks are ignored."""
        found = self._watchers.get(job)
        if found is not None:
            found.discard(callback)
            if not found:
                del self._watchers[job]

    def hurry(self) -> None:
        """Write what is queued without a pause."""
        self._hurry.set()

    def close(self, timeout: float | None = None) -> None:
        """Write all queued data and end the thread, on the loop; give up after `timeout` seconds, 5 by default."""
        if self._thread is not None:
            self._due.put(None)
            self._hurry.set()
            self._thread.join(_CLOSE_TIMEOUT if timeout is None else timeout)
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
        for loss in list(self._losses.values()):
            self._append(loss.file, ())

    def _write(self, file: "LogFile") -> int:
        """Write the queued data of a file; return the number of bytes."""
        data, times, finished = file.take()
        size = sum(map(len, data))
        if file.is_resumed:
            self._catch_up(file)
        if file.surplus:
            data, times = file.without_surplus(data, times)
        file.begin, begin = file.begin + sum(map(len, data)), file.begin
        formatter = file.formatter
        try:
            parts = formatter.format(data, times)
            if finished and not file.is_released:
                parts = [*parts, *formatter.finish(time.time())]
        except MemoryError:
            self._lose(file, size, "out of memory")
        else:
            if parts or (finished and file.place.unsaved):
                journal = file.journal
                progress = None
                if journal is not None:
                    end = file.begin - formatter.held
                    progress = Progress(
                        journal, begin, end, data, parts, total=sum(map(len, parts)), exact=not formatter.starts_lines
                    )
                self._append(file, parts, progress, finished=finished)
        file.settle(finished=finished, lacks=file.path in self._losses)
        file.written(size, finished=finished)
        if finished:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(file.end)
        return size

    def _catch_up(self, file: "LogFile") -> None:
        """Find out what the file has of the output that it got from an earlier gafferd."""
        journal = file.journal
        assert journal is not None
        file.is_resumed = False
        logged = journal.logged
        try:
            logged = recover(journal, file.path)
        except OSError as error:
            log.warning("can't read %s: %s: its last lines may be there twice", file.path, error.strerror)
        except UntrustedFile as error:
            log.warning("%s: its last lines may be there twice", error.message)
        journal.settle(logged)
        file.is_new = logged == 0
        file.formatter.resume(inside_line=journal.start < logged and journal.read(logged - 1, 1) != b"\n")
        file.surplus = max(0, logged - file.begin)
        self._lose(file, file.begin - logged, "they could not be written in time")

    def _append(
        self, file: "LogFile", data: Sequence[bytes], progress: Progress | None = None, *, finished: bool = False
    ) -> None:
        left = sum(map(len, data))
        path = file.place.path
        ends_line = file.is_new and file.starts_lines
        try:
            with Appender(_open, file.place, file.rotation, ends_line=ends_line, progress=progress) as appender:
                try:
                    loss = self._losses.get(path)
                    if loss is not None:
                        appender.write_line(file.formatter.loss(loss.size, loss.reason, time.time()))
                        del self._losses[path]
                        self._report_recovery()
                        if progress is not None:
                            progress.pass_loss()
                    for parts, length in _batches(data):
                        appender.write(parts, length)
                finally:
                    left -= appender.written
                    file.is_new = False
                if finished:
                    appender.save()
        except OSError as error:
            self._lose(file, left, error.strerror or "unknown error", f"can't write {path}: {error.strerror}")
        except UntrustedFile as error:
            self._lose(file, left, error.message)
        except MemoryError:
            self._lose(file, left, "out of memory")
        if file.job in self._watchers:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._notify, file.job, path.name)

    def _notify(self, job: str, name: str) -> None:
        for callback in tuple(self._watchers.get(job, ())):
            callback(name)

    def _lose(self, file: "LogFile", size: int, reason: str, report: str = "") -> None:
        if size <= 0:
            return
        self.lost += size
        self.lost_by_job[file.job] = self.lost_by_job.pop(file.job, 0) + size
        path = file.place.path
        earlier = self._losses.pop(path, None)
        self._losses[path] = _Loss(file, size + (earlier.size if earlier else 0), reason)
        _forget_oldest(self.lost_by_job)
        _forget_oldest(self._losses)
        now = time.monotonic()
        if self._reported is None or now - self._reported >= _REPORT_INTERVAL:
            self._reported, self._failing = now, True
            log.error("%s; %d bytes of logs lost so far", report or reason, self.lost, extra={"job": file.job})

    def _report_recovery(self) -> None:
        if self._failing:
            self._failing = False
            log.info("log files can be written again; %d bytes of logs lost so far", self.lost)


class LogFile:
    """A file and the data queued for it. Call `put` and `finish` on the loop, the other methods in the thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: threading.Lock,
        due: "SimpleQueue[LogFile | None]",
        hurry: threading.Event,
        place: Place,
        rotation: Rotation,
        formatter: Formatter,
        job: str,
    ) -> None:
        self.place = place
        self.rotation = rotation
        self.formatter = formatter
        self.job = job
        self.is_new = True  # nothing was written yet
        self.journal: Journal | None = None
        self.begin = 0  # offset in the stream of the next data to take
        self.done = 0  # offset up to which the file has the stream, or never will
        self.is_resumed = False  # the file may have some of the next data
        self.is_released = False  # the output goes on without us
        self.surplus = 0  # bytes of the next data that the file has
        self.on_room: Callable[[], object] = lambda: None  # called on the loop when a producer may resume
        self._loop = loop
        self._lock = lock
        self._due = due
        self._hurry = hurry
        self._data: list[bytes] = []
        self._times: list[float] = []
        self._waiting = 0
        self._held = False
        self._finished = False
        self._ended = False
        self._on_end: list[Callable[[], object]] = []

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.place.path

    @property
    def starts_lines(self) -> bool:
        """Whether the first output must start a line."""
        return self.formatter.starts_lines

    def record_in(self, journal: Journal) -> None:
        """Note in `journal` what the file has, and close it at the end. Call it on the loop before the first `put`."""
        self.journal = journal

    def resume(self, journal: Journal) -> None:
        """Queue what the file lacks of the data in `journal`; as `record_in`."""
        self.begin = self.done = max(journal.logged, journal.start)
        self.is_resumed = True
        self.journal = journal
        for offset in range(self.begin, journal.end, READ_SIZE):
            self.put(journal.read(offset, READ_SIZE))

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call `callback()` on the loop once all was written after `finish`, or lost. Call it on the loop."""
        if self._ended:
            callback()
        else:
            self._on_end.append(callback)

    def end(self) -> None:
        """Call what waits for the end. Called on the loop."""
        self._ended = True
        waiting, self._on_end = self._on_end, []
        for callback in waiting:
            callback()

    def without_surplus(self, data: list[bytes], times: list[float]) -> tuple[list[bytes], list[float]]:
        """Return what the file lacks of taken data."""
        while data and self.surplus:
            cut = min(self.surplus, len(data[0]))
            self.surplus -= cut
            self.begin += cut
            if cut < len(data[0]):
                data[0] = data[0][cut:]
            else:
                del data[0], times[:1]
        return data, times

    def settle(self, *, finished: bool, lacks: bool) -> None:
        """Note that what was taken is in the file, or lost.

        If the file `lacks` some, and a line that says so, the journal keeps the offset where that begins: after a crash
        it is written from there, as far as the journal still has it.
        """
        journal = self.journal
        if journal is not None:
            self.done = max(self.done, self.begin - self.formatter.held)
            if journal.logged < self.done and not lacks:
                journal.settle(self.done)
            if finished:
                self.journal = None
                journal.close()

    def put(self, data: bytes) -> bool:
        """Queue `data`; return False if the producer must wait for `on_room`."""
        with self._lock:
            if not self._waiting:
                self._due.put(self)
            self._data.append(data)
            if self.formatter.starts_lines:
                self._times.append(time.time())
            self._waiting += len(data)
            self._held = self._waiting >= HIGH
            if self._waiting >= LOW:
                self._hurry.set()
            return not self._held

    def finish(self, *, released: bool = False) -> None:
        """Record that no data follows, if `released` here: another gafferd goes on. Call it on the loop."""
        with self._lock:
            self._finished = True
            self.is_released = released
            if not self._waiting:
                self._due.put(self)

    def take(self) -> tuple[list[bytes], list[float], bool]:
        """Remove and return all queued data, the time of each piece (unless it is raw), and whether it is the last."""
        with self._lock:
            taken = self._data, self._times, self._finished
            self._data, self._times = [], []
            return taken

    def written(self, size: int, *, finished: bool) -> None:
        """Record that `size` of the taken bytes were written or dropped; `finished` as taken with them."""
        with self._lock:
            self._waiting -= size
            if self._waiting or (self._finished and not finished):
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


def _forget_oldest(remembered: dict[Any, Any]) -> None:
    if len(remembered) > _MAX_LOSSES:
        del remembered[next(iter(remembered))]


def _batches(data: Iterable[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield `data` as lists that writev(2) accepts, each with its size in bytes."""
    parts = iter(data)
    while batch := list(itertools.islice(parts, _IOV_MAX)):
        yield batch, sum(map(len, batch))
