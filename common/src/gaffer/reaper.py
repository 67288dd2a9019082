"""Finds what is left of a process tree, and reaps adopted zombies.

When the daemon is a child subreaper (prctl(2) PR_SET_CHILD_SUBREAPER), descendants that lost their parent become its
children. They are told apart by their process group, by their control group where there is one, or by the cookie
`GAFFER_PROCESS` in their environment. A descendant that is in another group, session and environment, where no control
group holds it, can't be found.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple, Protocol

from gaffer import procfs
from gaffer.cgroups import Cgroups

log = logging.getLogger("gaffer.reaper")

COOKIE = "GAFFER_PROCESS"
DETACHED = ":detached"  # how the cookie of a detached process ends, so that it is known for one without its record

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_SWEEP_INTERVAL = 1.0  # seconds between sweeps where SIGCHLD can't be heard
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.25  # seconds between two looks at groups that are not empty yet


class Leader(Protocol):
    """A process whose tree is watched."""

    os_pid: int
    cookie: str


class _Watched(NamedTuple):
    leader: Leader
    gone: Callable[[], None]
    told_to_end: bool


class _Adopted(NamedTuple):
    start_time: int
    cookie: str | None


class Reaper:
    """Watches the trees of ended leaders until nothing is left of them.

    With `subreaper` it makes this process adopt orphans, process-wide, and reaps the zombies among them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, subreaper: bool = False, cgroups: Cgroups | None = None
    ) -> None:
        self.loop = loop
        self.subreaper = subreaper
        self.cgroups = cgroups
        self.leaders: dict[int, Leader] = {}  # by OS pid, until they are reaped
        self._watched: list[_Watched] = []
        self._adopted: dict[int, _Adopted] = {}
        self._look: asyncio.TimerHandle | asyncio.Handle | None = None
        self._delay = 0.0
        self._previous: Any = None
        self._sweep_due = False
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._was_subreaper = False
        self._active = False
        self._ended: list[_Watched] = []  # those whose trees were not looked at yet
        self._seen: set[int] | None = None
        self._doubtful: dict[tuple[int, int], float] = {}  # pid and start time -> when it was first seen
        self.patience = 10.0  # seconds a zombie of doubtful origin waits for its parent

    def start(self) -> None:
        """Become a subreaper and listen for SIGCHLD, when asked for; call it on the loop."""
        if self.cgroups is not None:
            self.cgroups.clean()
        if not self.subreaper:
            return
        try:
            self._was_subreaper = _set_subreaper(True)
        except OSError as error:
            log.warning("orphans can't be adopted: %s", error.strerror)
            self.subreaper = False
            return
        self._active = True
        if threading.current_thread() is threading.main_thread():
            # uvloop refuses add_signal_handler for SIGCHLD; a plain handler works on every loop.
            self._previous = signal.signal(signal.SIGCHLD, self._on_sigchld)

    def stop(self) -> None:
        """Undo `start`."""
        self._active = False
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self.subreaper:
            self._sweep()
            _set_subreaper(self._was_subreaper)
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        if self._previous is not None and threading.current_thread() is threading.main_thread():
            # Stopped in another thread the handler stays, passing on what it hears to the one before it.
            signal.signal(signal.SIGCHLD, self._previous)
            self._previous = None

    def add(self, leader: Leader, *, confine: bool = True) -> None:
        """A leader was started; `confine` puts it in a control group of its own, where that is possible."""
        self.leaders[leader.os_pid] = leader
        if self.cgroups is not None and confine:
            self.cgroups.add(leader.os_pid)

    def remove(self, leader: Leader) -> None:
        """The leader is about to be reaped, or left alone."""
        self.leaders.pop(leader.os_pid, None)
        if self.cgroups is not None:
            self.cgroups.remove(leader.os_pid)

    def watch(
        self, leader: Leader, gone: Callable[[], None], *, alone: bool = False, told_to_end: bool = False
    ) -> None:
        """Call `gone()` once nothing is left of the tree of `leader`, which has ended.

        `alone` leaves the tree out of account. `told_to_end`: the leader got SIGTERM, and so do its descendants that
        had left its group: they are found only now that they have lost their parent.
        """
        if alone:
            gone()
        else:
            if not self._ended:
                self.loop.call_soon(self._look_at_ended)
            self._ended.append(_Watched(leader, gone, told_to_end))
        self._sweep_soon()  # learns the cookies of those that were adopted just now

    def _look_at_ended(self) -> None:
        ended, self._ended = self._ended, []
        alive = self.survivors([watched.leader for watched in ended])
        for watched in ended:
            if not alive[watched.leader.os_pid]:
                watched.gone()
                continue
            if watched.told_to_end:
                self.signal(watched.leader, signal.SIGTERM)
            self._watched.append(watched)
            self._delay = _FIRST_LOOK
        self._schedule()

    def signal(self, leader: Leader, signum: int) -> None:
        """Send `signum` to the descendants of `leader` that left its group."""
        for stat in self._escaped(leader):
            _signal_verified(stat, signum)
        if self.cgroups is not None and signum == signal.SIGKILL:
            self.cgroups.kill(leader.os_pid)

    def survivors(self, leaders: list[Leader]) -> dict[int, bool]:
        """For each leader's OS pid, whether anything but the leader itself lives in its tree, or may live in it."""
        if not procfs.is_readable():
            return dict.fromkeys((leader.os_pid for leader in leaders), True)
        found = {leader.os_pid: bool(self._confined(leader)) for leader in leaders}
        owners = {leader.cookie: leader.os_pid for leader in leaders if leader.cookie}
        for pid in self._candidates():
            stat = procfs.read_stat(pid)
            if stat is None:
                continue
            if stat.state in "ZX":
                # Once the leader is reaped, nothing tells that this zombie was one of its group.
                if self.subreaper and stat.pgrp in found:
                    self._reap(pid)
                continue
            if stat.pgrp in found:
                found[stat.pgrp] = True
            elif self.subreaper and (owner := owners.get(self._cookie(stat) or "")):
                found[owner] = True
        return found

    def _confined(self, leader: Leader) -> set[int]:
        return set() if self.cgroups is None else self.cgroups.members(leader.os_pid) - {leader.os_pid}

    def _candidates(self) -> set[int]:
        # Whoever is alive below a leader has an ancestor among our children once the leader is gone, if we adopt
        # orphans; otherwise orphans went to init and every process must be looked at.
        pids = procfs.children() if self.subreaper else set(procfs.all_pids())
        return pids - self.leaders.keys()

    def _recent_candidates(self) -> set[int]:
        # One look serves all signals that are sent in a turn of the loop: that of a job of hundreds is one.
        if self._seen is None:
            self._seen = self._candidates()
            self.loop.call_soon(self._forget_seen)
        return self._seen

    def _forget_seen(self) -> None:
        self._seen = None

    def _escaped(self, leader: Leader) -> list[procfs.Stat]:
        confined = self._confined(leader)
        adopted = self._recent_candidates() if self.subreaper else set()
        return [
            stat
            for pid in confined | adopted
            if (stat := procfs.read_stat(pid)) is not None
            and stat.state not in "ZX"
            and stat.pgrp != leader.os_pid
            and (pid in confined or self._cookie(stat) == leader.cookie)
        ]

    def _cookie(self, stat: procfs.Stat) -> str | None:
        known = self._adopted.get(stat.pid)
        if known is None or known.start_time != stat.start_time:
            environ = procfs.read_environ(stat.pid)
            if environ is None:
                return None
            known = self._adopted[stat.pid] = _Adopted(stat.start_time, environ.get(COOKIE))
        return known.cookie

    def _schedule(self) -> None:
        if self._look is None and self._watched:
            self._look = self.loop.call_later(self._delay, self._look_again)
            self._delay = min(self._delay * 1.5, _LAST_LOOK)

    def _look_again(self) -> None:
        self._look = None
        alive = self.survivors([watched.leader for watched in self._watched])
        gone = [watched for watched in self._watched if not alive[watched.leader.os_pid]]
        self._watched = [watched for watched in self._watched if alive[watched.leader.os_pid]]
        self._schedule()
        for watched in gone:
            watched.gone()

    def _on_sigchld(self, signum: int, frame: FrameType | None) -> None:
        self._sweep_soon()
        if callable(self._previous):
            self._previous(signum, frame)

    def _sweep_soon(self) -> None:
        if self._active and not self._sweep_due and not self.loop.is_closed():
            self._sweep_due = True
            self.loop.call_soon_threadsafe(self._sweep)

    def _sweep(self) -> None:
        """Reap the zombies that were adopted; the children of others, a plugin's subprocess say, are left to them."""
        self._sweep_due = False
        orphans = self._candidates()
        for pid in orphans:
            stat = procfs.read_stat(pid)
            if stat is None:
                continue
            if stat.state != "Z":
                self._cookie(stat)
            elif self._was_adopted(stat) or self._is_nobodys(stat):
                self._reap(pid)
        for pid in self._adopted.keys() - orphans:
            del self._adopted[pid]
        self._doubtful = {key: since for key, since in self._doubtful.items() if key[0] in orphans}
        if self._watched and self._look is not None:
            self._look.cancel()
            self._look_again()
        deaf = self._previous is None
        if self._active and self._sweep_timer is None and (self._doubtful or (orphans and deaf)):
            self._sweep_timer = self.loop.call_later(_SWEEP_INTERVAL, self._sweep_later)

    def _sweep_later(self) -> None:
        self._sweep_timer = None
        self._sweep()

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        self._adopted.pop(pid, None)

    def _was_adopted(self, zombie: procfs.Stat) -> bool:
        if zombie.pgrp in self.leaders:
            return True
        known = self._adopted.get(zombie.pid)
        if known is not None and known.start_time == zombie.start_time:
            return known.cookie is not None
        # A child we forked is in our session or leads its own; a member of another one came from elsewhere.
        return zombie.session not in (os.getsid(0), zombie.pid)

    def _is_nobodys(self, zombie: procfs.Stat) -> bool:
        """Whether a zombie that may be an orphan or someone's child here has waited long and nobody holds it."""
        if zombie.pgrp == os.getpgrp():
            return False
        since = self._doubtful.setdefault((zombie.pid, zombie.start_time), self.loop.time())
        return self.loop.time() - since >= self.patience and not _is_held(zombie.pid)


def _is_held(pid: int) -> bool:
    """Whether some Popen object is going to wait for `pid`. Slow: it looks at every object there is."""
    return any(
        isinstance(item, subprocess.Popen) and item.pid == pid and item.returncode is None for item in gc.get_objects()
    )


def _set_subreaper(on: bool) -> bool:
    """Make this process adopt orphaned descendants, or not; returns whether it did before. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bool(before.value)


def _signal_verified(seen: procfs.Stat, signum: int) -> None:
    """Signal the process that was `seen`, unless its number belongs to another one by now."""
    try:
        pidfd = os.pidfd_open(seen.pid)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EINVAL):
            log.warning("process %d can't be signalled: %s", seen.pid, error.strerror)
        return
    try:
        stat = procfs.read_stat(seen.pid)
        if stat is not None and stat.start_time == seen.start_time:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signum)
    finally:
        os.close(pidfd)
