"""What a manager tells somebody who keeps it, and gets back at its next start."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.states import UnixTime


class Past(msgspec.Struct, frozen=True):
    """What is kept of the earlier processes of a job: the last exits, newest first, and its last scheduled run."""

    last_run: UnixTime | None = None
    exits: list[ExitRecord] = []


class Recorder(Protocol):
    """Keeps the records of living processes, of exits and of scheduled runs somewhere that outlives the daemon."""

    def spawned(self, record: ProcessRecord) -> None:
        """A process was started."""

    def ended(self, pid: int) -> None:
        """Nothing is left of the process with the internal id `pid`."""

    def exited(self, job: str, exits: Iterable[ExitRecord]) -> None:
        """A process of the job with this qualified name has ended; `exits` are its last, newest first."""

    def ran(self, job: str, at: float) -> None:
        """A run of a job that makes up for missed runs was due at `at`, in seconds since 1970."""
