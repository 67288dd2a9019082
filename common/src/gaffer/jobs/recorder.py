"""What a manager reports to a keeper of its state, and gets back at its next start."""

from collections.abc import Iterable, Mapping

import msgspec

from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.failures import Failures
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.states import UnixTime


class Past(msgspec.Struct, frozen=True):
    """What is kept of the earlier processes of a job: last exits, newest first, restarts, last scheduled run.

    Without a run, the runs of `every` are counted from `armed_at`. `failures` are those that counted at the last exit.
    """

    last_run: UnixTime | None = None
    armed_at: UnixTime | None = None
    exits: list[ExitRecord] = []
    restarts: int = 0
    failures: Failures | None = None


def forget_failures(past: Past) -> Past:
    """Return a past without failures: the processes of the job start at once."""
    return msgspec.structs.replace(past, failures=None)


class Recorder:
    """Keeps the records of living processes, of exits and of scheduled runs somewhere that outlives the daemon.

    The methods are called on the loop and do nothing: override those that are needed. `pid` is the internal id of a
    process. Its descriptors are our ends of its pipes, and its pidfd.
    """

    def started(self, record: ProcessRecord, descriptors: Mapping[str, int]) -> None:
        """A process was just started; the recorder may duplicate the descriptors. The start time is not known yet."""

    def keep(self, pid: int, name: str, fd: int) -> None:
        """A process has one more descriptor, which the recorder may duplicate."""

    def drop(self, pid: int, name: str) -> None:
        """A descriptor of a process is not needed any more: its duplicate must not keep a pipe open."""

    def spawned(self, record: ProcessRecord) -> None:
        """A process was started or adopted, or its record has changed."""

    def died(self, pid: int, status: int) -> None:
        """The process has exited with a wait status; what follows from that comes next."""

    def ended(self, pid: int) -> None:
        """Nothing is left of the process."""

    def exited(self, job: str, exits: Iterable[ExitRecord], restarts: int, failures: Failures | None) -> None:
        """A process of the job with this qualified name has ended, or its failures are forgotten.

        `exits` are its last, newest first.
        """

    def unloaded(self, job: str) -> None:
        """The job with this qualified name is gone, as are its processes: nothing follows from their exits any more."""

    def ran(self, job: str, at: float) -> None:
        """A run of a job that makes up for missed runs, or has `every`, was due at `at`, in seconds since 1970."""

    def armed(self, job: str, at: float) -> None:
        """The runs of a job with `every` that has not run yet are counted from `at`, in seconds since 1970."""
