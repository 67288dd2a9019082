"""The files of the history: JSON lines, rotated by size, written by a thread and read newest first."""

import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gaffer.jobs.names import DEFAULT_SESSION, parse_job_name, split_job_name
from gaffer.runtime.background_writer import BackgroundWriter, write_fully
from gaffer.runtime.trusted_files import UntrustedFile, open_log, open_trusted
from gaffer.schemas.history import AuditEntry, DescribedEntry, HistoryEntry, HistoryPage, describe, new_entry
from gaffer.streams.rotation import Rotation

logger = logging.getLogger(__name__)

MAX_BYTES = 4 * 1024 * 1024  # of a file
BACKUPS = 3
_TAIL = 64 * 1024  # bytes in which the last entry is looked for

_decoder: msgspec.json.Decoder[HistoryEntry] = msgspec.json.Decoder(HistoryEntry)


class Store:
    """The history in `path` and its backups `.1` to `.3`. `append` on one thread; `read` blocks, call it on another.

    An entry that can't be written is counted in `lost`; the first of them is logged, and the next entry that can be
    written is preceded by one with their number. Damaged lines are skipped.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
        self._path = Path(path)
        self._rotation = Rotation(max_bytes, backups)
        self._renaming = threading.Lock()
        self._rotations = 0
        self._descriptor: int | None = None
        self._size = 0
        self._failing = False
        self._last_id = self._find_last_id()
        self._writer = BackgroundWriter(self._write, self._report)

    @property
    def lost(self) -> int:
        """The number of entries that could not be written."""
        return self._writer.lost_lines

    def start(self) -> None:
        """Start the thread that writes."""
        self._writer.start()

    def append(self, *entries: AuditEntry) -> None:
        """Append entries; they are written soon, all or none."""
        self._writer.write("".join(map(self._encode, entries)))

    def close(self) -> None:
        """Wait up to a second until everything is written, and close the file."""
        self._writer.flush()
        with self._renaming:
            self._close()

    def read(
        self,
        *,
        limit: int,
        job: str | None = None,
        since: float | None = None,
        before: int | None = None,
        sessions: frozenset[str] | None = None,
    ) -> HistoryPage:
        """Return up to `limit` entries, newest first.

        `job`: about this job, its session as a whole, or all jobs of a session of that name. `since`: seconds since
        1970. `before`: with smaller ids. `sessions`: only entries of these.
        """
        self._writer.flush()
        wanted = _Filter(job, since, before, sessions)
        found = list(itertools.islice(filter(wanted.accepts, self.entries()), limit + 1))
        more = len(found) > limit
        del found[limit:]
        entries: list[DescribedEntry] = [
            {**entry, "what": describe(entry["kind"], entry["action"], entry["route"], entry["details"])}
            for entry in found
        ]
        return {"entries": entries, "next": found[-1]["id"] if more and found else None}

    def entries(self) -> Iterator[HistoryEntry]:
        """Yield all entries that are written, newest first. Rotations meanwhile neither repeat nor hide any."""
        for content in self._contents():
            for line in reversed(content.split(b"\n")):
                entry = _decode(line)
                if entry is not None:
                    yield entry

    def _contents(self) -> Iterator[bytes]:
        number = 0
        while number <= self._rotation.backups:
            with self._renaming:
                rotations = self._rotations
                path = self._file(number)
                try:
                    content = _read_end(path, 2 * self._rotation.max_bytes)
                except FileNotFoundError:
                    return
                except (OSError, UntrustedFile) as error:
                    logger.error("can't read %s: %s", path, _reason(error))
                    content = b""
            yield content
            with self._renaming:
                number += 1 + self._rotations - rotations

    def _file(self, number: int) -> Path:
        return Path(f"{self._path}.{number}") if number else self._path

    def _encode(self, entry: AuditEntry) -> str:
        # Ids grow over restarts, and after the files were removed.
        self._last_id = max(self._last_id + 1, int(time.time() * 1e6))
        numbered: HistoryEntry = {"id": self._last_id, **entry}
        return msgspec.json.encode(numbered, enc_hook=str).decode() + "\n"

    def _report(self, lines: int) -> str:
        return self._encode(new_entry(time.time(), "node", "lost", outcome="failed", count=lines))

    def _find_last_id(self) -> int:
        for number in range(self._rotation.backups + 1):
            path = self._file(number)
            try:
                content = _read_end(path, _TAIL)
            except FileNotFoundError:
                continue
            except (OSError, UntrustedFile) as error:
                logger.error("can't read %s: %s", path, _reason(error))
                continue
            entries = [entry for entry in map(_decode, content.split(b"\n")) if entry]
            if entries:
                return entries[-1]["id"]
            if content:
                logger.warning("%s has no valid entry at its end", path)
        return 0

    # On the thread of the writer

    def _write(self, data: bytes) -> None:
        try:
            with self._renaming:
                self._append(data)
        except (OSError, UntrustedFile) as error:
            if not self._failing:
                self._failing = True
                logger.error("can't write %s, entries of the history are lost: %s", self._path, _reason(error))
            self._close()
            if isinstance(error, UntrustedFile):
                raise OSError(error.message) from None
            raise
        if self._failing:
            self._failing = False
            logger.info("the history is written again")

    def _append(self, data: bytes) -> None:
        while data:
            descriptor = self._open()
            room = self._rotation.room(self._size, data)
            if not room:
                self._rotate()
                continue
            try:
                write_fully(descriptor, data[:room])
            except OSError:
                os.ftruncate(descriptor, self._size)  # leave no part of a line
                raise
            self._size += room
            data = data[room:]

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = open_log(self._path)
            self._size = os.fstat(self._descriptor).st_size
            if self._size and not _ends_line(self._path, self._size):  # a crash cut the last line off
                write_fully(self._descriptor, b"\n")
                self._size += 1
        return self._descriptor

    def _rotate(self) -> None:
        self._close()
        path = str(self._path)
        if os.path.lexists(self._rotation.oldest(path)):
            os.unlink(self._rotation.oldest(path))
        for old, new in self._rotation.renames(path):
            if os.path.lexists(old):
                os.rename(old, new)
        self._rotations += 1

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Filter:
    def __init__(
        self, job: str | None, since: float | None, before: int | None, sessions: frozenset[str] | None
    ) -> None:
        self._name = parse_job_name(job) if job is not None else None
        self._session = job
        self._since = since
        self._before = before
        self._sessions = sessions

    def accepts(self, entry: HistoryEntry) -> bool:
        if self._before is not None and entry["id"] >= self._before:
            return False
        if self._since is not None and entry["at"] < self._since:
            return False
        if self._sessions is not None and entry["session"] not in self._sessions:
            return False
        return self._name is None or self._concerns(entry)

    def _concerns(self, entry: HistoryEntry) -> bool:
        assert self._name is not None
        if entry["session"] == self._session or entry["job"] is not None:
            return entry["session"] == self._session or entry["job"] == str(self._name)
        jobs = entry["details"].get("jobs")
        if not isinstance(jobs, list):
            return entry["session"] == self._name.session
        names = [split_job_name(str(each), entry["session"] or DEFAULT_SESSION) for each in jobs]
        return self._name in names or any(session == self._session for session, _ in names)


def _decode(line: bytes) -> HistoryEntry | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None


def _read_end(path: Path, limit: int) -> bytes:
    """Return the last `limit` bytes of a file; it may be larger than any that is written here."""
    with open(open_trusted(path), "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
        return file.read(limit)


def _ends_line(path: Path, size: int) -> bool:
    with open(path, "rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _reason(error: OSError | UntrustedFile) -> str | None:
    return error.message if isinstance(error, UntrustedFile) else error.strerror
