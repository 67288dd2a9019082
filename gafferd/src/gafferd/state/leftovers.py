"""Ends the processes that a killed gafferd left running.

A process is signalled only through a pidfd opened before the process was identified, so reused process ids are safe.
A process is a leftover if it is a recorded leader (same boot, same start time), a member of the process group of
such a leader, or has a cookie of this node in its environment. Programs that show a title of their own overwrite their
environment, and the cookie with it; a process that has another cookie than that of its record is another process.
"""

import errno
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from stat import S_ISCHR, S_ISREG
from typing import NamedTuple

from msgspec import Struct

from gaffer.errors import GafferError
from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gaffer.processes.reaper import COOKIE, DETACHED

logger = logging.getLogger(__name__)

UNRECORDED_TIMEOUT = 30.0  # seconds before a process without a record is killed, the default of jobs
_RESCAN = 0.1
_GIVE_UP = 10.0


class LeftoverError(GafferError):
    """A leftover process could not be ended; starting its job would run it twice."""

    reason = "leftover_alive"


def is_alive(record: ProcessRecord) -> bool:
    """Return whether the recorded process still runs, provided the boot is the same."""
    stat = _stat_of(record)
    return stat is not None and stat.state not in "ZX"


def _stat_of(record: ProcessRecord) -> procfs.Stat | None:
    """Return the status of the recorded process, also of a zombie, or None if its process id was reused."""
    stat = procfs.read_stat(record.os_pid)
    if stat is None or stat.start_time != record.start_time:
        return None
    mark = procfs.read_variable(record.os_pid, COOKIE) or record.cookie
    return stat if mark == record.cookie else None


def find_loss(record: ProcessRecord) -> str | None:
    """Return what the recorded process lost with its gafferd, None if it can go on without.

    Raises LookupError if the process is not the recorded one, or has exited.
    """
    try:
        pidfd = os.pidfd_open(record.os_pid)
    except (OSError, AttributeError) as error:
        raise LookupError(f"no process {record.os_pid}") from error
    try:
        if not is_alive(record):
            raise LookupError(f"process {record.os_pid} is another one")
        return next((f"its {name} was not a file" for fd, name in _STANDARD if not _is_file(record.os_pid, fd)), None)
    finally:
        os.close(pidfd)


_STANDARD = ((0, "standard input"), (1, "standard output"), (2, "standard error"))
_NULL = os.makedev(1, 3)  # null(4)


def _is_file(pid: int, descriptor: int) -> bool:
    """Return whether a descriptor is a file, /dev/null or closed, so that no other process is needed to use it."""
    try:
        status = os.stat(f"/proc/{pid}/fd/{descriptor}")
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return S_ISREG(status.st_mode) or (S_ISCHR(status.st_mode) and status.st_rdev == _NULL)


class Ended(NamedTuple):
    """The number of ended leftovers, and the records of those this user is not permitted to signal."""

    number: int
    refused: list[ProcessRecord]


def end_leftovers(
    records: Sequence[ProcessRecord],
    made: Callable[[str], bool],
    spare_cookies: Collection[str] = (),
    spare_pids: Collection[int] = (),
    waiting: Callable[[], object] = lambda: None,
) -> Ended:
    """Terminate the processes of `records` (of this boot) and those with a cookie that this node `made`, in parallel.

    Each gets SIGTERM, then SIGKILL after the graceful timeout of its record. Processes with one of the `spare_cookies`,
    the `spare_pids` and the members of their groups are left alone. `waiting()` is called several times a second.
    Raises LeftoverError if a process still runs 10 seconds after SIGKILL.
    """
    if not hasattr(os, "pidfd_open"):
        logger.warning("this system has no pidfds: not looking for processes left by an earlier gafferd")
        return Ended(0, [])
    hunt = _Hunt(records, made, spare_cookies, spare_pids)
    try:
        return hunt.run(waiting)
    finally:
        hunt.close()


class Marked(NamedTuple):
    """A process with the cookie of a node; `detached` if it is meant to outlive its gafferd."""

    pid: int
    cookie: str
    detached: bool


def find_marked(made: Callable[[str], bool], spare_pids: Collection[int] = ()) -> list[Marked]:
    """Return the live processes with a cookie that this node `made`, without `spare_pids`."""
    found = []
    for pid in procfs.all_pids():
        if pid in spare_pids or pid == os.getpid():
            continue
        cookie = procfs.read_variable(pid, COOKIE)
        if cookie and made(cookie):
            stat = procfs.read_stat(pid)
            if stat is not None and stat.state not in "ZX":
                # Its children have the cookie too, but only the process itself leads its session.
                found.append(Marked(pid, cookie, cookie.endswith(DETACHED) and stat.session == pid))
    return found


class _Target(Struct):
    pid: int
    pidfd: int
    kill_at: float
    record: ProcessRecord | None
    killed: bool = False


class _Hunt:
    def __init__(
        self,
        records: Sequence[ProcessRecord],
        made: Callable[[str], bool],
        spare_cookies: Collection[str],
        spare_pids: Collection[int],
    ) -> None:
        self._begin = time.monotonic()
        self._by_pid = {record.os_pid: record for record in records}
        self._by_cookie = {record.cookie: record for record in records}
        self._made = made
        self._spare_cookies, self._spare_pids = spare_cookies, frozenset(spare_pids)
        self._targets: dict[int, _Target] = {}  # by pidfd
        self._poll = select.poll()
        self._ended = 0
        self._refused: dict[int, ProcessRecord | None] = {}  # by pid

    def run(self, waiting: Callable[[], object]) -> Ended:
        next_scan = 0.0
        while True:
            waiting()
            if not self._targets or time.monotonic() >= next_scan:
                self._scan()
                next_scan = time.monotonic() + _RESCAN
            if not self._targets:
                refused = [record for pid, record in self._refused.items() if record and record.os_pid == pid]
                return Ended(self._ended, refused)
            self._kill_overdue()
            for pidfd, _ in self._poll.poll(_RESCAN * 1000):
                self._drop(pidfd)
                self._ended += 1

    def _drop(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._targets[pidfd]

    def close(self) -> None:
        for pidfd in self._targets:
            os.close(pidfd)

    def _scan(self) -> None:
        """Find new leftovers, then terminate them: members of a group can't be identified once its leader is gone."""
        known = self._spare_pids.union((target.pid for target in self._targets.values()), self._refused)
        found = []
        for pid in procfs.all_pids():
            if pid in known or pid == os.getpid():
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._targets:
                    break  # the rest are found once some of these are gone
                if error.errno in (errno.ESRCH, errno.EINVAL):
                    continue
                raise LeftoverError(f"can't inspect process {pid}: {error.strerror}") from None
            is_leftover, record = self._identify(pid)
            if not is_leftover:
                os.close(pidfd)
                continue
            timeout = record.graceful_timeout if record else UNRECORDED_TIMEOUT
            target = self._targets[pidfd] = _Target(pid, pidfd, self._begin + timeout, record)
            found.append(target)
            self._poll.register(pidfd, select.POLLIN)
            name = record.job if record else "an unrecorded job"
            logger.warning(
                "ending process %d of %s, left by an earlier gafferd", pid, name, extra={"job": record and record.job}
            )
        for target in found:
            self._send(target, signal.SIGTERM, signal.SIGCONT)  # a stopped process handles nothing else

    def _send(self, target: _Target, *signums: int) -> None:
        try:
            for signum in signums:
                signal.pidfd_send_signal(target.pidfd, signum)
        except ProcessLookupError:
            pass
        except PermissionError:
            logger.error(
                "can't end process %d, left by an earlier gafferd: it belongs to uid %s, "
                "which uid %d is not permitted to signal",
                target.pid,
                procfs.owner(target.pid),
                os.geteuid(),
            )
            self._refused[target.pid] = target.record
            self._drop(target.pidfd)

    def _identify(self, pid: int) -> tuple[bool, ProcessRecord | None]:
        """Return whether `pid` is a leftover, and its record or that of its leader."""
        stat = procfs.read_stat(pid)
        if stat is None or stat.state in "ZX" or not self._spare_pids.isdisjoint((pid, stat.pgrp)):
            return False, None
        record = self._by_pid.get(pid)
        if record is not None and _stat_of(record) is not None:
            return True, record
        leader = self._by_pid.get(stat.pgrp)
        # The leader still existed, at least as a zombie, after `pid` was seen in its group: the id was not reused.
        if leader is not None and leader.pgid == leader.os_pid and _stat_of(leader) is not None:
            return True, leader
        cookie = procfs.read_variable(pid, COOKIE)
        if not cookie or cookie in self._spare_cookies:
            return False, None
        record = self._by_cookie.get(cookie)
        return record is not None or self._made(cookie), record

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for target in tuple(self._targets.values()):
            if not target.killed and now >= target.kill_at:
                logger.warning("killing process %d: it ignored SIGTERM", target.pid)
                target.killed = True
                target.kill_at = now
                self._send(target, signal.SIGKILL)
            elif target.killed and now >= target.kill_at + _GIVE_UP:
                raise LeftoverError(
                    f"process {target.pid}, left by an earlier gafferd, did not exit after SIGKILL",
                    hint="it may be waiting for a device or network file system; end it, then restart gafferd",
                )
