"""Deliveries that wait for webhooks, kept in files so that they survive the program.

All that waits is in memory as well, which is bounded. So a file only has to repeat it: additions and removals are
appended as lines, each with a checksum, and the file is replaced once most of it is out of date. A database would
bound and lock what has one writer and one reader, and of a damaged one nothing could be read.
"""

import asyncio
import hashlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

import msgspec

from gaffer.applications.delivery_queue import MAX_BYTES, Delivery
from gaffer.runtime.background_writer import write_fully
from gaffer.runtime.trusted_files import UntrustedFile, open_log, read_trusted

log = logging.getLogger("gaffer.webhooks")

RETRY_DELAY = 10.0  # seconds after a failed write before the next attempt
_SPARE_BYTES = 256 * 1024  # of outdated lines that a file can hold
_MAX_READ = 8 * MAX_BYTES  # bytes of a file that are read
_SUFFIX = ".jsonl"


class _Added(msgspec.Struct, frozen=True, tag_field="change", tag="add"):
    id: str
    event: str
    body: msgspec.Raw


class _Removed(msgspec.Struct, frozen=True, tag_field="change", tag="remove"):
    id: str


_decoder: msgspec.json.Decoder[_Added | _Removed] = msgspec.json.Decoder(_Added | _Removed)


class DeliveryFiles:
    """A directory with a file for each URL, mode 0600, written by a thread that starts with the first change.

    A file that can't be written is reported once. Its deliveries then wait in memory only, until writing works again.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self._changed = threading.Condition()
        self._open: dict[Path, DeliveryFile] = {}
        self._changes: dict[DeliveryFile, None] = {}
        self._strays: set[Path] = set()
        self._waiting: list[Future[None]] = []  # until everything is written
        self._thread: threading.Thread | None = None

    def open(self, url: str, shown: str) -> "DeliveryFile":
        """Return the file of a URL, which is called `shown` in the log. It takes the place of one opened before."""
        # URLs may contain passwords, which hashes don't show.
        name = hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:32]
        path = self._directory / f"{name}{_SUFFIX}"
        file = DeliveryFile(self, path, shown, replace=path in self._open)
        self._open[path] = file
        return file

    def owns(self, file: "DeliveryFile") -> bool:
        """Return whether the file was not opened again since."""
        return self._open.get(file.path) is file

    def remove_others(self) -> None:
        """Remove the files of URLs that are not open."""
        try:
            found = [path for path in self._directory.iterdir() if path.suffix == _SUFFIX]
        except OSError:  # there is no directory yet
            return
        if strays := {path for path in found if path not in self._open}:
            with self._changed:
                self._strays |= strays
                self._wake()

    def changed(self, file: "DeliveryFile") -> None:
        """Have the thread write the changes of a file. Callable from any thread."""
        with self._changed:
            self._changes[file] = None
            self._wake()

    async def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until everything is written; the thread ends. A later change starts it again."""
        with self._changed:
            if self._thread is None:
                return
            written: Future[None] = Future()
            self._waiting.append(written)
            self._changed.notify_all()
        try:
            await asyncio.wait_for(asyncio.wrap_future(written), timeout)
        except TimeoutError:
            log.error("the disk is too slow: the last changes to the webhook queues in %s are lost", self._directory)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="webhook queues", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        ending: list[Future[None]] = []
        while not ending:
            with self._changed:
                failed = [file for file in self._open.values() if file.failed]
                self._changed.wait_for(
                    lambda: self._changes or self._strays or self._waiting, RETRY_DELAY if failed else None
                )
                ending, self._waiting = self._waiting, []
                files = [*self._changes, *(self._open.values() if ending else failed)]
                self._changes.clear()
                strays, self._strays = self._strays, set()
                if ending:
                    self._thread = None
            for file in files:
                file.write(last=bool(ending))
            _remove(strays)
        for written in ending:
            if written.set_running_or_notify_cancel():
                written.set_result(None)


def _remove(strays: Iterable[Path]) -> None:
    for path in strays:
        try:
            path.unlink()
        except OSError as error:
            log.error("can't remove %s: %s", path, error.strerror)
        else:
            log.warning("removed %s: the webhook that its events waited for is no longer configured", path)


class DeliveryFile:
    """The deliveries that wait for one URL. `load` it first; one thread at a time may call its methods but `write`."""

    def __init__(self, files: DeliveryFiles, path: Path, shown: str, *, replace: bool) -> None:
        self.path = path
        self.unsaved = 0  # deliveries that could not be written at once
        self._files = files
        self._shown = shown
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._kept: dict[str, Delivery] = {}
        self._kept_bytes = 0  # of bodies
        self._changes: dict[str, Delivery | None] = {}  # by id: what to add, None to remove what is in the file
        self._deleted = False
        self._replace = replace  # because the file is missing, damaged, or could not be written
        self._size = 0  # bytes of the file
        self._failed_at: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the last write failed."""
        return self._failed_at is not None

    def load(self) -> list[Delivery]:
        """Return the deliveries in the file, in order; damaged lines are skipped and logged. Blocks on the disk."""
        try:
            data = read_trusted(self.path, _MAX_READ).data
        except (OSError, UntrustedFile) as error:
            self._replace = True
            if not isinstance(error, FileNotFoundError):
                log.error("webhook %s: can't read its events in %s: %s", self._shown, self.path, _reason(error))
            return []
        *lines, rest = data.split(b"\n")
        changes = [_decode(line) for line in (*lines, *([rest] if rest else []))]
        for change in changes:
            if isinstance(change, _Removed):
                self._kept.pop(change.id, None)
            elif change is not None:
                self._kept[change.id] = Delivery(change.event, bytes(change.body), change.id)
        if damaged := changes.count(None):
            self._replace = True
            log.error("webhook %s: skipped %d damaged lines of %s", self._shown, damaged, self.path)
        self._size = len(data)
        self._kept_bytes = sum(len(delivery.body) for delivery in self._kept.values())
        return list(self._kept.values())

    def add(self, delivery: Delivery) -> None:
        """Keep a delivery."""
        with self._lock:
            self._kept[delivery.id] = delivery
            self._kept_bytes += len(delivery.body)
            self._changes[delivery.id] = delivery
        self._files.changed(self)

    def remove(self, delivery: Delivery) -> None:
        """Forget a delivery; unknown ones are ignored."""
        with self._lock:
            if self._kept.pop(delivery.id, None) is None:
                return
            self._kept_bytes -= len(delivery.body)
            if self._changes.pop(delivery.id, None) is None:
                self._changes[delivery.id] = None
        self._files.changed(self)

    def delete(self) -> None:
        """Forget all deliveries and remove the file."""
        with self._lock:
            self._kept.clear()
            self._deleted = True
        self._files.changed(self)

    def write(self, *, last: bool) -> None:
        """Write what has changed, called by the thread of the files; the `last` time also soon after a failure."""
        with self._writing:
            if self._files.owns(self):
                self._write(last)

    def _write(self, last: bool) -> None:
        with self._lock:
            changes, self._changes = self._changes, {}
            added = [each for each in changes.values() if each is not None]
            failed_at = self._failed_at
            if failed_at is not None and not last and time.monotonic() - failed_at < RETRY_DELAY:
                self.unsaved += len(added)
                return
            replace = self._replace or self._size > 2 * self._kept_bytes + _SPARE_BYTES
            kept = list(self._kept.values()) if replace else []
            removed = self._deleted or (last and not self._kept)
        try:
            if removed:
                self.path.unlink(missing_ok=True)
                size = 0
            elif replace:
                size = _replace(self.path, b"".join(map(_line, kept)))
            else:
                lines = (_line(each) if each is not None else _encode(_Removed(id)) for id, each in changes.items())
                size = self._size + _append(self.path, b"".join(lines))
        except (OSError, UntrustedFile) as error:
            self._replace = True
            self._failed_at = time.monotonic()
            self.unsaved += len(added)
            if failed_at is None:
                message = "webhook %s: can't write %s, its events wait in memory: %s"
                log.error(message, self._shown, self.path, _reason(error))
            return
        self._size = size
        self._replace = removed
        self._failed_at = None
        if failed_at is not None:
            log.info("webhook %s: its events are kept on disk again", self._shown)


def _reason(error: OSError | UntrustedFile) -> str | None:
    return error.message if isinstance(error, UntrustedFile) else error.strerror


def _line(delivery: Delivery) -> bytes:
    return _encode(_Added(delivery.id, delivery.event, msgspec.Raw(delivery.body)))


def _encode(change: _Added | _Removed) -> bytes:
    text = msgspec.json.encode(change)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> _Added | _Removed | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError:
        return None


def _append(path: Path, content: bytes) -> int:
    descriptor = open_log(path)
    try:
        write_fully(descriptor, content)
    finally:
        os.close(descriptor)
    return len(content)


def _replace(path: Path, content: bytes) -> int:
    path.parent.mkdir(0o700, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)  # left by a crash
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_fully(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return len(content)
