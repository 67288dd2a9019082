"""How the processes of jobs ended, and when jobs last ran, in a file that the next gafferd reads."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from gaffer.jobs.exits import KEPT, ExitRecord
from gaffer.jobs.failures import Failures
from gaffer.jobs.recorder import Past
from gaffer.jobs.records import ProcessRecord
from gaffer.runtime.trusted_files import UntrustedFile
from gafferd.state.documents import DamagedFile, Document, NewerFile

logger = logging.getLogger(__name__)

_DELAY = 1.0  # seconds before a change is written
_RETRY = 5.0  # seconds before the next attempt after a failure, if something waits for it
_SHARE = 20  # writing takes at most one part in so many of the time
_MAX_SIZE = 4 * 1024 * 1024  # bytes of all jobs; those that changed longest ago are dropped
_MAX_OUTPUT = 2000  # characters of the output of a process


class _Content(msgspec.Struct, frozen=True):
    jobs: dict[str, msgspec.Raw]


class PastFile:
    """The document `past.json` of a state directory. It is written on the loop, a second after a change."""

    def __init__(self, directory: Path) -> None:
        self._document = Document(directory / "past.json", _Content, keep_previous=True)
        self._jobs: dict[str, Past] = {}
        self._encoded: dict[str, bytes] = {}
        self._size = 0
        self._due: asyncio.TimerHandle | None = None
        self._write_seconds = 0.0
        self._failing = False
        self._stored: list[Callable[[], object]] = []  # to be called

    def load(self) -> Mapping[str, Past]:
        """Return the past of the jobs by qualified name; a file that can't be used is logged and ignored."""
        try:
            content = self._document.load_either()
        except (DamagedFile, NewerFile, UntrustedFile) as error:
            logger.error("starting without the exits of earlier processes: %s", error)
            return {}
        for name, raw in content.jobs.items() if content is not None else ():
            try:
                self._set(name, msgspec.json.decode(raw, type=Past))
            except msgspec.DecodeError as error:
                logger.error("starting without the exits of %s: %s", name, error)
        return dict(self._jobs)

    def ran(self, job: str, at: float) -> None:
        """Record a scheduled run at `at`, in seconds since 1970."""
        self._change(job, msgspec.structs.replace(self._jobs.get(job, Past()), last_run=at))

    def armed(self, job: str, at: float) -> None:
        """Record the time in seconds since 1970 from which runs of a job that has not run yet are counted."""
        self._change(job, msgspec.structs.replace(self._jobs.get(job, Past()), armed_at=at))

    def exited(self, job: str, exits: Iterable[ExitRecord], restarts: int, failures: Failures | None) -> None:
        """Record the last exits of the processes of a job, newest first, the number of its restarts, its failures."""
        kept = [_shortened(each) for each in exits][:KEPT]
        past = self._jobs.get(job, Past())
        self._change(job, msgspec.structs.replace(past, exits=kept, restarts=restarts, failures=failures))

    def lost(self, records: Iterable[ProcessRecord]) -> Mapping[str, Past]:
        """Write that these processes of an earlier gafferd have ended in an unknown way; return the past of all jobs.

        Blocks.
        """
        for record in sorted(records, key=lambda each: each.pid):
            past = self._jobs.get(record.job, Past())
            if record.pid not in [each.pid for each in past.exits]:
                uptime = round(time.monotonic() - record.spawned_at, 3) if record.spawned_at else 0.0
                last = ExitRecord(record.pid, record.slot, None, None, "unknown", max(0.0, uptime), time.time())
                self._set(record.job, msgspec.structs.replace(past, exits=[last, *past.exits][:KEPT]))
        self._write()
        return dict(self._jobs)

    def forget(self, job: str) -> None:
        """Forget a job, so that a later one of this name begins without a past."""
        if job in self._jobs:
            self._drop(job)
            self._write_soon()

    def when_stored(self, callback: Callable[[], object]) -> None:
        """Call `callback()` on the loop once all that was recorded so far is in the file."""
        if self._due is None:
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._stored.append(callback)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._due is not None:
            self._due.cancel()
            self._write()

    def _change(self, job: str, past: Past) -> None:
        self._set(job, past)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._due is None:
            self._write_in(max(_DELAY, _SHARE * self._write_seconds))

    def _write_in(self, delay: float) -> None:
        self._due = asyncio.get_running_loop().call_later(delay, self._write_now)

    def _write_now(self) -> None:
        self._write()
        if self._failing:
            if self._stored:
                self._write_in(_RETRY)
            return
        stored, self._stored = self._stored, []
        for callback in stored:
            callback()

    def _set(self, job: str, past: Past) -> None:
        self._drop(job)
        self._jobs[job], self._encoded[job] = past, msgspec.json.encode(past)
        self._size += len(self._encoded[job])
        while self._size > _MAX_SIZE:
            self._drop(next(iter(self._jobs)))

    def _drop(self, job: str) -> None:
        if self._jobs.pop(job, None) is not None:
            self._size -= len(self._encoded.pop(job))

    def _write(self) -> None:
        self._due = None
        begin = time.monotonic()
        try:
            jobs = {name: msgspec.Raw(encoded) for name, encoded in self._encoded.items()}
            self._document.save(_Content(jobs), sync=False)
        except OSError as error:
            if not self._failing:
                logger.error("can't write %s: %s", self._document.path, error.strerror)
            self._failing = True
        else:
            self._failing = False
        self._write_seconds = time.monotonic() - begin


def _shortened(record: ExitRecord) -> ExitRecord:
    if record.output is None or len(record.output) <= _MAX_OUTPUT:
        return record
    return msgspec.structs.replace(record, output=record.output[-_MAX_OUTPUT:])
