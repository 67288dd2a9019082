"""Ends the processes that a killed gafferd left alive.

A process is touched only through a pidfd that was opened before the process was identified, so a recycled process id
never makes a stranger pay. It is a leftover when it is the leader that a record names (same boot, same start
time), a member of the group of such a leader, or carries a cookie that this node made in its environment.
"""

import errno
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gaffer.errors import GafferError
from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gaffer.processes.reaper import COOKIE, DETACHED

logger = logging.getLogger(__name__)

UNRECORDED_TIMEOUT = 30.0  # seconds that a process without a record gets to end, the default of a job
_RESCAN = 0.1
_GIVE_UP = 10.0


class LeftoverError(GafferError):
    """A leftover could not be ended, so starting its job would run it twice."""

    reason = "leftover_alive"


def is_alive(record: ProcessRecord) -> bool:
    """Whether the process that `record` names still runs, given that the boot is the same."""
    stat = _stat_of(record)
    return stat is not None and stat.state not in "ZX"


def _stat_of(record: ProcessRecord) -> procfs.Stat | None:
    """What the system says of the recorded process, a zombie too; None when another one has its number by now."""
    stat = procfs.read_stat(record.os_pid)
    return stat if stat is not None and stat.start_time == record.start_time else None


class Ended(NamedTuple):
    """The number of leftovers that have ended, and the records of those that this user is not permitted to signal."""

    number: int
    refused: list[ProcessRecord]


def end_leftovers(records: Sequence[ProcessRecord], made: Callable[[str], bool], spare: Collection[str] = ()) -> Ended:
    """Terminate what is left of `records` (of this boot) and what carries a cookie that this node `made`, all at once.

    Each gets SIGTERM, then SIGKILL once the graceful timeout of its record is over. Processes with a cookie in
    `spare` are left alone. Raises LeftoverError when one outlives SIGKILL by 10 seconds.
    """
    if not hasattr(os, "pidfd_open"):
        logger.warning("this system has no pidfds: what an earlier gafferd left is not looked for")
        return Ended(0, [])
    hunt = _Hunt(records, made, spare)
    try:
        return hunt.run()
    finally:
        hunt.close()


class Marked(NamedTuple):
    """A process with the cookie of a node; `detached` for one that is to outlive its gafferd."""

    pid: int
    cookie: str
    detached: bool


def find_marked(made: Callable[[str], bool]) -> list[Marked]:
    """The live processes that carry a cookie that this node `made`."""
    found = []
    for pid in procfs.all_pids():
        cookie = (procfs.read_environ(pid) or {}).get(COOKIE, "")
        if made(cookie) and pid != os.getpid():
            stat = procfs.read_stat(pid)
            if stat is not None and stat.state not in "ZX":
                # Its own children have the cookie too; it alone leads its session.
                found.append(Marked(pid, cookie, cookie.endswith(DETACHED) and stat.session == pid))
    return found


@dataclass
class _Target:
    pid: int
    pidfd: int
    kill_at: float
    record: ProcessRecord | None
    killed: bool = False


class _Hunt:
    def __init__(self, records: Sequence[ProcessRecord], made: Callable[[str], bool], spare: Collection[str]) -> None:
        self._begin = time.monotonic()
        self._by_pid = {record.os_pid: record for record in records}
        self._by_cookie = {record.cookie: record for record in records}
        self._made = made
        self._spare = spare
        self._targets: dict[int, _Target] = {}  # by pidfd
        self._poll = select.poll()
        self._ended = 0
        self._refused: dict[int, ProcessRecord | None] = {}  # by pid

    def run(self) -> Ended:
        next_scan = 0.0
        while True:
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
        """Find the leftovers that are not targets yet, then ask them to end: an ended leader says less of its group."""
        known = {target.pid for target in self._targets.values()} | self._refused.keys()
        found = []
        for pid in procfs.all_pids():
            if pid in known or pid == os.getpid():
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._targets:
                    break  # the rest is found once some of these are gone
                if error.errno in (errno.ESRCH, errno.EINVAL):
                    continue
                raise LeftoverError(f"can't look at process {pid}: {error.strerror}") from None
            is_leftover, record = self._identify(pid)
            if not is_leftover:
                os.close(pidfd)
                continue
            timeout = record.graceful_timeout if record else UNRECORDED_TIMEOUT
            target = self._targets[pidfd] = _Target(pid, pidfd, self._begin + timeout, record)
            found.append(target)
            self._poll.register(pidfd, select.POLLIN)
            name = record.job if record else "an unrecorded job"
            logger.warning("ending process %d of %s, left by an earlier gafferd", pid, name)
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
                "process %d, left by an earlier gafferd, can't be ended: it belongs to uid %s, "
                "which uid %d is not permitted to signal",
                target.pid,
                procfs.owner(target.pid),
                os.geteuid(),
            )
            self._refused[target.pid] = target.record
            self._drop(target.pidfd)

    def _identify(self, pid: int) -> tuple[bool, ProcessRecord | None]:
        """Whether `pid` is a leftover, and its record or that of its leader."""
        stat = procfs.read_stat(pid)
        if stat is None or stat.state in "ZX":
            return False, None
        record = self._by_pid.get(pid)
        if record is not None and record.start_time == stat.start_time:
            return True, record
        leader = self._by_pid.get(stat.pgrp)
        # The leader, as a zombie at least, was there after `pid` was seen in its group: so the group is the leader's.
        if leader is not None and leader.pgid == leader.os_pid and _stat_of(leader) is not None:
            return True, leader
        cookie = (procfs.read_environ(pid) or {}).get(COOKIE)
        if cookie is None or cookie in self._spare:
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
                    f"process {target.pid}, left by an earlier gafferd, does not end after SIGKILL",
                    hint="it may wait for a device or a network file system; end it, then start gafferd again",
                )
