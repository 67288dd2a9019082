"""The processes of a node, kept by the keeper: registered as they start, adopted by the next gafferd."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import structs

from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.failures import Failures
from gaffer.jobs.recorder import Recorder
from gaffer.jobs.records import ProcessRecord
from gaffer.processes import procfs
from gaffer.processes.survivors import Survivor
from gafferd.keeping.link import KeeperLink, KeptChild

logger = logging.getLogger(__name__)

_RETRY = 0.1  # seconds between two looks whether what follows from exits is stored


class KeptProcesses(Recorder):
    """The recorder of a node with a keeper, and the source of the exits of adopted processes.

    It passes everything on to the recorder of the state directory. The keeper holds what is left of a process until
    what follows from its exit is stored there: a gafferd that is killed in between leaves the exit to the next one.

    `when_stored(callback)` calls back once all that was recorded is stored, `settled()` returns whether all changes of
    jobs are.
    """

    def __init__(
        self, link: KeeperLink, recorder: Recorder, when_stored: Callable[[Callable[[], object]], None]
    ) -> None:
        self.settled: Callable[[], bool] = lambda: True
        self._link = link
        self._recorder = recorder
        self._when_stored = when_stored
        self._records: dict[int, ProcessRecord] = {}  # of registered and adopted processes, by pid
        self._adopted: set[int] = set()  # by pid
        self._watching: dict[int, Callable[[int | None, float | None], object]] = {}  # by OS pid
        self._reports: dict[int, tuple[int | None, float | None]] = {}  # exits that nothing watches yet, by OS pid
        self._ended: set[int] = set()  # processes that the keeper is to forget, by pid
        self._settling: set[int] = set()  # those of them that are being stored
        link.on_exit = self._on_exit
        link.on_lost = self._on_lost

    # What an earlier gafferd left

    def survivors(self) -> list[Survivor]:
        """Return the processes that the keeper holds, once; raises GafferError if it does not answer."""
        return [survivor for child in self._link.children() if (survivor := self._survivor(child)) is not None]

    def _survivor(self, child: KeptChild) -> Survivor | None:
        try:
            record = msgspec.json.decode(child.record, type=ProcessRecord)
        except msgspec.DecodeError as error:
            logger.error("can't adopt process %d, whose record is not understood: %s", child.os_pid, error)
            record = None
        if record is None or record.os_pid != child.os_pid or record.boot_id != procfs.boot_id():
            self._link.forget(child.id)  # the state directory deals with it as with any leftover
            return None
        self._records[record.pid] = record
        self._adopted.add(record.pid)
        status = child.status if isinstance(child.status, int) else None
        if child.status is not None:
            self._reports[record.os_pid] = status, child.exited_at
        return Survivor(record, child.descriptors, self, child.status is not None, status, child.exited_at)

    @property
    def pid(self) -> int:
        """The process id of the keeper."""
        return self._link.pid

    @property
    def connected(self) -> bool:
        """Whether the keeper is there."""
        return self._link.state["error"] is None

    def watch(self, os_pid: int, callback: Callable[[int | None, float | None], object]) -> None:
        """Call `callback(wait_status, exited_at)` once an adopted process has exited, see ExitSource."""
        self._watching[os_pid] = callback
        if os_pid in self._reports:
            asyncio.get_running_loop().call_soon(self._on_exit, os_pid, *self._reports.pop(os_pid))

    def _on_exit(self, os_pid: int, status: int | None, exited_at: float | None) -> None:
        callback = self._watching.pop(os_pid, None)
        if callback is not None:
            callback(status, exited_at)
        else:
            self._reports[os_pid] = status, exited_at  # it is about to be adopted

    def _on_lost(self) -> None:
        for os_pid in tuple(self._watching):
            self._on_exit(os_pid, None, None)

    # The recorder

    def started(self, record: ProcessRecord, descriptors: Mapping[str, int]) -> None:
        """Register a process."""
        self._records[record.pid] = record
        self._link.register(
            record.os_pid,
            str(record.pid),
            record.graceful_timeout,
            record.stop_signal,
            msgspec.json.encode(record).decode(),
            descriptors,
        )

    def keep(self, pid: int, name: str, fd: int) -> None:
        """Have one more descriptor kept."""
        self._link.store(str(pid), name, fd)

    def drop(self, pid: int, name: str) -> None:
        """Have a descriptor closed."""
        self._link.remove(str(pid), name)

    def spawned(self, record: ProcessRecord) -> None:
        """Record a process, and its state with the keeper."""
        self._recorder.spawned(record)
        last = self._records.get(record.pid)
        # The start time alone is no reason to send it again: the keeper holds the process itself.
        if last is not None and structs.replace(last, start_time=record.start_time) != record:
            self._records[record.pid] = record
            text = msgspec.json.encode(record).decode()
            self._link.update(record.os_pid, str(record.pid), record.graceful_timeout, record.stop_signal, text)

    def died(self, pid: int, status: int) -> None:
        """Have the exit of our own child kept."""
        if pid in self._records and pid not in self._adopted:
            self._link.exited(self._records[pid].os_pid, status)

    def ended(self, pid: int) -> None:
        """Have the process forgotten once what follows from its exit is stored."""
        self._recorder.ended(pid)
        if pid in self._records:
            self._ended.add(pid)
            self._settle()

    def exited(self, job: str, exits: Iterable[ExitRecord], restarts: int, failures: Failures | None) -> None:
        """Record the last exits of a job."""
        self._recorder.exited(job, exits, restarts, failures)

    def unloaded(self, job: str) -> None:
        """Have the processes of the job forgotten at once, so that a later job of this name never gets their exits.

        All have exited, also those whose output is still being written to the log, which have not `ended` yet.
        """
        self._recorder.unloaded(job)
        gone = {pid for pid, record in self._records.items() if record.job == job}
        self._settling -= gone
        self._ended -= gone
        self._forget(gone)

    def ran(self, job: str, at: float) -> None:
        """Record a scheduled run."""
        self._recorder.ran(job, at)

    def armed(self, job: str, at: float) -> None:
        """Record from when the runs of a job are counted."""
        self._recorder.armed(job, at)

    # What the keeper may forget

    def _settle(self) -> None:
        if self._ended and not self._settling:
            self._settling, self._ended = self._ended, set()
            self._when_stored(self._settle_jobs)

    def _settle_jobs(self) -> None:
        """Go on, now that the exits are stored, once the changes of their jobs are stored too."""
        if not self.settled():
            asyncio.get_running_loop().call_later(_RETRY, self._settle_jobs)
            return
        self._forget(self._settling)
        self._settling = set()
        self._settle()

    def _forget(self, pids: Iterable[int]) -> None:
        for pid in pids:
            os_pid = self._records.pop(pid).os_pid
            self._reports.pop(os_pid, None)
            if pid in self._adopted:
                self._adopted.discard(pid)
                self._link.acknowledge(os_pid)
                self._link.reap(os_pid)
            self._link.forget(str(pid))

    def close(self) -> None:
        """Let the keeper forget all processes that have ended; call it once the state directory is closed."""
        self._forget(self._settling | self._ended)
        self._settling, self._ended = set(), set()
