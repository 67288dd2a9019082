"""Changes of jobs that are stored before they are made, and restored at the next start."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

from gaffer.errors import GafferError, NotStored
from gaffer.jobs.desired import Desired
from gaffer.jobs.names import JobName
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gafferd.state.jobs_file import JobsFile, Stored, digest_of

T = TypeVar("T")

logger = logging.getLogger(__name__)

_SOON = 0.05  # seconds before what changed by itself is stored
_RETRY = 5.0  # seconds before the next attempt after a failure
_MAX_WAITING = 1000  # changes
_GATHERING = 0.25  # of the time of a write, that changes are gathered for the next one
_MAX_GATHERING = 0.01  # seconds

Definitions = Mapping[JobName, ProcessConfig]


class _Change(NamedTuple, Generic[T]):
    """A change that waits to be made; `done` is its result."""

    call: Callable[[], T]
    done: "asyncio.Future[T]"


class DurableJobs:
    """An application that keeps what is desired of the jobs of its manager in a file.

    A change is rehearsed, stored with others that are waiting, and then made, in the order of their arrival. So nothing
    has to be undone when it can't be stored, and nothing is lost that was answered. What changes by itself, such as a
    job that completes, is stored soon afterwards. Jobs that were loaded directly, by plugins, are not stored.

    `definitions()` returns the jobs of the configuration file. `error` says why the file can't be written, or is None.
    """

    def __init__(self, manager: Manager, file: JobsFile, definitions: Callable[[], Definitions]) -> None:
        self.error: str | None = None
        self._manager = manager
        self._file = file
        self._definitions = definitions
        self._saved: dict[JobName, Stored] = {}
        self._waiting: deque[_Change[Any]] = deque()
        self._touched: deque[JobName] = deque()  # by any thread
        self._dirty: set[JobName] = set()
        self._unsure = False  # whether a write that failed may have changed the file nevertheless
        self._due: asyncio.TimerHandle | None = None
        self._look_due = False
        self._work: asyncio.Task[None] | None = None
        self._closing = False
        self._write_seconds = 0.0
        self._thread: ThreadPoolExecutor | None = None

    # Restoring

    def restore(self) -> None:
        """Load the jobs of the configuration file and those of the state file.

        A job of the configuration file is as it was left, unless its definition has changed there since. Raises
        GafferError if a job of the configuration file can't be loaded.
        """
        stored, definitions = self._file.load(), self._definitions()
        wanted: dict[JobName, Desired] = {}
        for name, config in definitions.items():
            left = stored.get(name)
            fresh = Desired.new(name, config, start=True)
            if left is not None and left.digest == digest_of(config):
                wanted[name] = left.desired
            else:
                wanted[name] = fresh.but_disabled(left.desired.disabled) if left is not None else fresh
        for name, left in stored.items():
            if left.digest is None and name not in definitions:
                wanted[name] = left.desired
            elif left.digest is None:
                logger.warning("the job %s is now defined by the configuration file", name)
        # Those as in the file come first: it is complete, and a change over the API may contradict it by now.
        for name, desired in sorted(wanted.items(), key=lambda item: item[1].config != definitions.get(item[0])):
            try:
                # What a job comes after may have been unloaded since, which does not unload the job either.
                self._manager.restore([desired], ordered=False)
            except GafferError as error:
                logger.error("%s: can't restore the job %s: %s", self._file.path, name, error.message)
                if name in definitions:
                    fresh = Desired.new(name, definitions[name], start=True)
                    self._manager.restore([fresh.but_disabled(desired.disabled)])
                else:
                    self._file.keep(stored[name])
        self._saved = {name: each for name, each in stored.items() if self._manager.desired(name) is not None}

    # The application

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to watch the jobs; changes can be made from then on."""
        manager.on_job_change(self._on_job_change)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gaffer-state")
        self._thread.submit(int)  # starts the thread, for which there may be no memory later; see Workers

    async def quiesce(self) -> None:
        """Store the last changes; the jobs end now, which is not desired of them."""
        self._manager.off_job_change(self._on_job_change)
        self._closing = True
        if self._due is not None:
            self._due.cancel()
        if self._work is not None:
            await self._work
        self._look()
        if self._must_write:
            await self._store({})

    async def stop(self) -> None:
        """Let the last write end."""
        if self._thread is not None:
            self._thread.shutdown(wait=not self._manager.handing_over)  # a disk that hangs must not hold the next one

    @property
    def settled(self) -> bool:
        """Whether all changes are stored, those that wait to be made excepted."""
        return not (self._touched or self._must_write or self._work is not None)

    def change(self, call: Callable[[], T]) -> Awaitable[T]:
        """Make a change once it is stored; return its result.

        `call` calls methods of the manager as described in Manager.rehearse. The awaitable raises what it raises, and
        NotStored (507) if it can't be stored, which changes nothing. A caller that goes away does not cancel it.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_retrieve)
        if self._closing:
            done.set_exception(self._manager.refusal)
            return done
        if len(self._waiting) >= _MAX_WAITING:
            done.set_exception(NotStored(f"{_MAX_WAITING} changes are waiting to be stored", hint="try again later"))
            return done
        self._waiting.append(_Change(call, done))
        self._begin()
        return asyncio.shield(done)

    # What changes by itself

    def _on_job_change(self, name: JobName) -> None:
        self._touched.append(name)
        if not self._look_due:
            self._look_due = True
            self._manager.loop.call_soon_threadsafe(self._look_soon)

    def _look_soon(self) -> None:
        if self._due is None and not self._closing:
            self._due = self._manager.loop.call_later(_SOON if self.error is None else _RETRY, self._look_now)

    def _look_now(self) -> None:
        self._due = None
        self._look()
        if self._must_write:
            self._begin()

    @property
    def _must_write(self) -> bool:
        return bool(self._dirty) or self._unsure

    def _look(self) -> None:
        """Find which of the touched jobs differ from what is stored."""
        self._look_due = False
        while self._touched:
            self._dirty.add(self._touched.popleft())
        definitions = self._definitions()
        for name in tuple(self._dirty):
            if not self._is_kept(name):
                self._dirty.discard(name)
                continue
            desired = self._manager.desired(name)
            leaves = desired is None and self._manager.stopping
            if leaves or self._state_of(name, desired, definitions) == self._saved.get(name):
                self._dirty.discard(name)

    def _is_kept(self, name: JobName) -> bool:
        """Return whether it is a job of the file or of the API; those that plugins load are theirs."""
        return name in self._saved or name in self._definitions()

    def _state_of(self, name: JobName, desired: Desired | None, definitions: Definitions) -> Stored | None:
        return Stored(desired, digest_of(definitions.get(name))) if desired is not None else None

    # Storing

    def _begin(self) -> None:
        if self._work is None and not self._closing:
            self._work = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            batch: list[_Change[Any]] = []
            while self._waiting or self._must_write:
                if len(batch) > 1:  # those who got their answers may be about to ask again
                    await asyncio.sleep(min(self._write_seconds * _GATHERING, _MAX_GATHERING))
                batch, changes = self._next_batch()
                stored = await self._store(changes)
                for each in batch:
                    if stored or not changes:
                        _carry_out(each)
                    elif not each.done.done():
                        each.done.set_exception(self._refusal())
                if not stored and not self._waiting:
                    return
        finally:
            self._work = None
            if self._touched or self._must_write:
                self._look_soon()

    def _next_batch(self) -> tuple[list[_Change[Any]], dict[JobName, Desired | None]]:
        """Take waiting changes of different jobs, and what they would change.

        A rehearsal does not see the changes before it: of those that may take the same port only one is taken.
        """
        batch: list[_Change[Any]] = []
        found: dict[JobName, Desired | None] = {}
        touched: set[JobName] = set()
        takes_port = False
        while self._waiting:
            change = self._waiting[0]
            try:
                rehearsed = self._manager.rehearse(change.call)
            except Exception as error:  # noqa: BLE001 -- goes to the caller
                if touched:  # it may be possible once the others are made
                    break
                self._waiting.popleft()
                change.done.set_exception(error)
                continue
            has_port = any(each is not None and each.config.port_of(1) is not None for each in rehearsed.values())
            if touched & rehearsed.keys() or (takes_port and has_port):
                break
            self._waiting.popleft()
            batch.append(change)
            touched |= rehearsed.keys()
            takes_port = takes_port or has_port
            for name, desired in rehearsed.items():
                now = self._manager.desired(name)
                if desired != now and (now is None or self._is_kept(name)):
                    found[name] = desired
        return batch, found

    async def _store(self, changes: Mapping[JobName, Desired | None]) -> bool:
        """Store `changes` and what has changed by itself; return whether that succeeded."""
        definitions = self._definitions()
        self._look()
        now = {name: self._manager.desired(name) for name in self._dirty} | dict(changes)
        if not now and not self._unsure:
            return True
        table = dict(self._saved)
        for name, desired in now.items():
            stored = self._state_of(name, desired, definitions)
            if stored is None:
                table.pop(name, None)
            else:
                table[name] = stored
        assert self._thread is not None
        begin = time.monotonic()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.save, [*table.values()])
        except (OSError, MemoryError) as error:
            self._failed(error.strerror if isinstance(error, OSError) else "out of memory")
            self._unsure = True
            return False
        finally:
            self._write_seconds = time.monotonic() - begin
        if self.error is not None:
            logger.warning("%s can be written again", self._file.path)
            self.error = None
        self._saved = table
        self._dirty.clear()
        self._unsure = False
        self._touched.extend(now)  # they may have changed in the meantime
        return True

    def _failed(self, reason: str | None) -> None:
        message = f"can't write {self._file.path}: {reason}"
        if self.error is None:
            logger.error("%s: changes of jobs are refused", message)
        self.error = message

    def _refusal(self) -> NotStored:
        return NotStored(f"{self.error}, so the change was not made", hint="free space on the disk, then try again")


def _carry_out(change: _Change[T]) -> None:
    try:
        change.done.set_result(change.call())
    except Exception as error:  # noqa: BLE001 -- goes to the caller
        change.done.set_exception(error)


def _retrieve(done: "asyncio.Future[Any]") -> None:
    done.exception()  # the caller may have gone away
