"""Signal process trees until they are gone, and reap adopted zombies.

If the daemon is a child subreaper (prctl(2) PR_SET_CHILD_SUBREAPER), orphaned descendants become its children. They are
identified by their process group, by their control group if any, or by the cookie `GAFFER_PROCESS` in their
environment. A descendant that has changed its group, session and environment and is in no control group can't be found
once it is orphaned.

A tree may grow while it is signalled. So a signal is a standing order: each scan of the children delivers it to members
that have not received it yet, until the tree is empty.
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
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from types import FrameType
from typing import Any, NamedTuple, Protocol

from msgspec import Struct, field

from gaffer.processes import forks, procfs
from gaffer.processes.cgroups import Cgroups
from gaffer.processes.oom import OomCounters

log = logging.getLogger("gaffer.processes.reaper")

COOKIE = "GAFFER_PROCESS"
DETACHED = ":detached"  # suffix of a detached process's cookie, which identifies it even without its record

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_SLICE = 0.01  # seconds after which a scan yields to the loop
_SHARE = 4  # a scan for SIGCHLD waits this many times as long as the last one took
_SWEEP_INTERVAL = 1.0  # seconds between scans where SIGCHLD can't be caught
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.25  # seconds between two scans while trees are ending
_KILL_TIMEOUT = 10.0  # seconds after SIGKILL until a tree is reported as stuck
_FORK_TIMEOUT = 10.0  # seconds that a zombie which os.fork may have created waits for its parent
_LISTINGS = 8  # maximum listings of the children in one scan


class Leader(Protocol):
    """A process whose tree is watched."""

    os_pid: int
    cookie: str

    @property
    def pins_group(self) -> bool:
        """Whether its OS pid can't be the id of another process group."""

    @property
    def is_child(self) -> bool:
        """Whether its orphans become our children if we are a subreaper."""

    def refused(self, message: str, *, final: bool) -> None:
        """Handle members that can't be signalled, or survive SIGKILL; if `final`, nothing more will be tried."""


class _Tree(Struct, eq=False):
    leader: Leader
    order: int = 0  # the signal for all members
    ordered: int = 0  # the time of the order, in clock ticks since boot
    kill_began: float | None = None
    delivered: set[tuple[int, int]] = field(default_factory=set)  # members outside the group, by pid and start time
    killed: dict[int, int] = field(default_factory=dict)  # start times of descendants sent SIGKILL, by pid
    denied: set[int] = field(default_factory=set)  # members that we may not signal
    alive: set[int] = field(default_factory=set)  # members that the current scan found
    reported: bool = False
    gone: Callable[[], None] | None = None  # once the leader has ended


class _Adopted(NamedTuple):
    start_time: int
    cookie: str | None


class _Doubt(NamedTuple):
    """A zombie that may be an orphan or the child of other code in this process; examined again at `due`."""

    start_time: int
    due: float


class Reaper:
    """A watcher of process trees until they are gone.

    With `subreaper` it makes this process adopt orphans, process-wide, and reaps zombies among them. It leaves alone
    children that a subprocess.Popen object waits for, except objects created before gc.freeze(), which hides them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, subreaper: bool = False, cgroups: Cgroups | None = None
    ) -> None:
        self.loop = loop
        self.subreaper = subreaper
        self.cgroups = cgroups
        self.doubt_timeout = 0.5  # seconds that a zombie of doubtful origin waits for its parent
        self._trees: dict[int, _Tree] = {}  # by the leader's OS pid, until it is reaped
        self._ending: dict[int, _Tree] = {}  # trees with an order, or whose leader has exited
        self._cookies: dict[str, _Tree] = {}
        self._adopted: dict[int, _Adopted] = {}
        self._doubtful: dict[int, _Doubt] = {}
        self._scan: Generator[None] | None = None
        self._again = False  # another scan must follow the current one at once
        self._child_again = False  # another scan must follow because of SIGCHLD
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # the time of the timer
        self._delay = _FIRST_LOOK
        self._spent = 0.0  # seconds that the last scan took
        self._previous: Any = None
        self._child_due = False
        self._was_subreaper = False
        # The script that starts a container may leave processes in our group, and only we can reap their orphans.
        self._is_init = os.getpid() == 1
        self._active = False
        self._memory = OomCounters.of_this_process()

    def start(self) -> None:
        """Become a subreaper and handle SIGCHLD, if so configured; call it on the loop."""
        if self.cgroups is not None:
            self.cgroups.clean()
        if not self.subreaper:
            return
        try:
            self._was_subreaper = _set_subreaper(True)
        except OSError as error:
            log.warning("can't adopt orphans: %s", error.strerror)
            self.subreaper = False
            return
        forks.watch()
        self._active = True
        if threading.current_thread() is threading.main_thread():
            # uvloop refuses add_signal_handler for SIGCHLD; a plain handler works on every loop.
            self._previous = signal.signal(signal.SIGCHLD, self._on_sigchld)

    def stop(self, *, leave_children: bool = False) -> None:
        """Undo `start`, after a last look for zombies to reap unless another process is to see to them."""
        self._active = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._scan = None
        if self.subreaper:
            for _ in () if leave_children else self._scanning():
                pass
            _set_subreaper(self._was_subreaper)
        if self._previous is not None and threading.current_thread() is threading.main_thread():
            # If stopped in another thread, the handler stays and calls the previous one.
            signal.signal(signal.SIGCHLD, self._previous)
            self._previous = None

    def add(self, leader: Leader) -> None:
        """Add a leader that was started."""
        tree = self._trees[leader.os_pid] = _Tree(leader)
        if leader.cookie:
            self._cookies[leader.cookie] = tree

    def remove(self, leader: Leader) -> None:
        """Remove a leader that is about to be reaped or released."""
        if self._trees.pop(leader.os_pid, None) is not None:
            self._ending.pop(leader.os_pid, None)
            self._cookies.pop(leader.cookie, None)
            if self.cgroups is not None:
                self.cgroups.remove(leader.os_pid)

    def watch(self, leader: Leader, gone: Callable[[], None], *, alone: bool = False) -> None:
        """Call `gone()` in a later iteration of the loop, once the tree of `leader`, which has exited, is gone.

        `alone` ignores the rest of the tree.
        """
        if alone:
            self.loop.call_soon(gone)
            self._scan_in(0.0)  # records the cookies of newly adopted processes
            return
        tree = self._ending[leader.os_pid] = self._trees[leader.os_pid]
        tree.gone = gone
        self._delay = _FIRST_LOOK
        self._scan_in(0.0)

    def signal(self, leader: Leader, signum: int) -> None:
        """Send `signum` to all members of the tree of `leader`, including those found later.

        It is sent to the process group at once; SIGKILL also to the control group and all descendants of the leader.
        """
        tree = self._ending[leader.os_pid] = self._trees[leader.os_pid]
        tree.order, tree.ordered = signum, procfs.clock_ticks()
        tree.delivered.clear()
        if signum == signal.SIGKILL:
            if tree.kill_began is None:
                tree.kill_began = self.loop.time()
            if self.cgroups is not None:
                self.cgroups.kill(leader.os_pid)
            if tree.gone is None:
                self._kill_with_descendants(tree, procfs.read_stat(leader.os_pid))
        if leader.pins_group:
            try:
                os.killpg(leader.os_pid, signum)
                if signum != signal.SIGKILL:
                    os.killpg(leader.os_pid, signal.SIGCONT)  # a stopped process handles no other signal
            except ProcessLookupError:
                pass
            except PermissionError:
                leader.refused(_denied_message([leader.os_pid]), final=False)
        self._delay = _FIRST_LOOK
        self._scan_in(0.0)

    def ran_out_of_memory(self, leader: Leader) -> bool | None:
        """Return whether `leader`, killed by a SIGKILL that we did not send, was killed because memory ran out.

        None if that is possible but not certain.
        """
        if self.cgroups is not None and self.cgroups.oom_kills(leader.os_pid):
            return True
        return self._memory.was_short(self.loop.time())

    # Scans

    def _scan_in(self, delay: float) -> None:
        """Schedule a scan within `delay` seconds."""
        if self.loop.is_closed():
            return
        if self._scan is not None:
            self._again = self._again or delay == 0.0
            return
        when = self.loop.time() + delay
        if self._timer is not None:
            if self._due <= when:
                return
            self._timer.cancel()
        self._due = when
        self._timer = self.loop.call_later(delay, self._begin_scan) if delay else self.loop.call_soon(self._begin_scan)

    def _begin_scan(self) -> None:
        self._scan, self._again, self._spent = self._scanning(), False, 0.0
        self._continue_scan()

    def _continue_scan(self) -> None:
        self._timer = None
        scan = self._scan
        if scan is None:
            return
        begin = now = time.monotonic()
        while now - begin < _SLICE:
            try:
                next(scan)
            except StopIteration:
                self._spent += time.monotonic() - begin
                self._scan = None
                self._scan_again()
                return
            now = time.monotonic()
        self._spent += now - begin
        self._timer = self.loop.call_soon(self._continue_scan)

    def _scan_again(self) -> None:
        """Schedule the next scan."""
        if self._again:
            self._scan_in(0.0)
        if self._child_again:
            self._child_again = False
            self._scan_in(_SHARE * self._spent)
        if any(tree.gone is not None or tree.kill_began is not None for tree in self._ending.values()):
            self._scan_in(max(self._delay, self._spent))
            self._delay = min(self._delay * 1.5, _LAST_LOOK)
        if not self._active:
            return
        if self._doubtful:
            self._scan_in(max(self._spent, min(doubt.due for doubt in self._doubtful.values()) - self.loop.time()))
        if self._previous is None and procfs.children() - self._trees.keys():
            self._scan_in(_SWEEP_INTERVAL)

    def _scanning(self) -> Generator[None]:
        """Examine every process that may belong to a tree: deliver orders, reap orphans, find empty trees.

        Yields where the loop may run.
        """
        readable = procfs.is_readable()
        ended = [tree for tree in self._ending.values() if tree.gone is not None]
        members: dict[int, _Tree] = {}  # known members, whatever their parent
        for tree in self._ending.values():
            tree.alive.clear()
            if tree.killed:
                tree.killed = _living(tree.killed)
            known = set(tree.killed)
            if self.cgroups is not None:
                known |= self.cgroups.members(tree.leader.os_pid)
            for pid in known - {tree.leader.os_pid}:
                members[pid] = tree
        # The descendants of a leader that an earlier daemon started are not our children.
        foreign = any(not tree.leader.is_child for tree in ended)
        # A process forked during a scan shows up in the next listing, unless its parent was found alive.
        seen: set[int] = set()
        for listing in range(_LISTINGS + 1):
            fresh = self._candidates(ended, foreign=foreign) - seen
            if not listing:
                fresh |= members.keys()
            if not fresh:
                break
            for pid in fresh:
                self._look_at(pid, members.get(pid), cookies=self.subreaper or foreign)
                yield
            seen |= fresh
        else:
            ended = []
        yield from self._settle_doubts()
        for pid in self._adopted.keys() - seen:
            if procfs.read_stat(pid) is None:
                del self._adopted[pid]
        if readable and procfs.is_readable():
            for tree in ended:
                if not tree.alive and tree.gone is not None:
                    tree.gone()
                    yield
        self._report_stuck()

    def _candidates(self, ended: list[_Tree], *, foreign: bool) -> set[int]:
        # If we adopt orphans, all descendants of a gone leader have an ancestor among our children; otherwise orphans
        # went to init, and every process must be examined.
        everywhere = bool(ended) and (foreign or not self.subreaper)
        pids = set(procfs.all_pids()) if everywhere else procfs.children() if self.subreaper else set()
        if not ended:  # otherwise include all: a pid may have been reused
            now = self.loop.time()
            pids -= {pid for pid, doubt in self._doubtful.items() if doubt.due > now}
        return pids - self._trees.keys()

    def _look_at(self, pid: int, known: _Tree | None, *, cookies: bool) -> None:
        stat = procfs.read_stat(pid)
        if stat is None:
            return
        if stat.state in "ZX":
            if self.subreaper and stat.ppid == os.getpid():
                self._bury(stat)
            return
        tree = known or self._tree_of(stat, cookies=cookies)
        if tree is not None and tree.leader.os_pid in self._ending:
            tree.alive.add(pid)
            self._deliver(tree, stat)

    def _tree_of(self, stat: procfs.Stat, *, cookies: bool) -> _Tree | None:
        cookie = self._cookie(stat) if cookies else None
        tree = self._trees.get(stat.pgrp)
        if tree is not None and tree.leader.pins_group:
            return tree
        return self._cookies.get(cookie) if cookie else None

    def _deliver(self, tree: _Tree, stat: procfs.Stat) -> None:
        if tree.order == signal.SIGKILL:
            self._kill_with_descendants(tree, stat)
            return
        identity = (stat.pid, stat.start_time)
        if not tree.order or identity in tree.delivered:
            return
        tree.delivered.add(identity)
        in_group = stat.pgrp == tree.leader.os_pid and tree.leader.pins_group
        if (not in_group or stat.start_time > tree.ordered) and not _signal_verified(stat, tree.order, signal.SIGCONT):
            tree.leader.refused(_denied_message([stat.pid]), final=False)

    def _kill_with_descendants(self, tree: _Tree, root: procfs.Stat | None) -> None:
        """Kill a process and all its descendants, whatever their group and environment.

        Each is stopped before its children are listed, so that it can't fork.
        """
        todo = [root] if root is not None else []
        while todo:
            stat = todo.pop()
            tree.killed[stat.pid] = stat.start_time
            # Remembered until it is gone: it may be a zombie by the time we adopt it.
            self._adopted[stat.pid] = _Adopted(stat.start_time, tree.leader.cookie)
            allowed = _signal_verified(stat, signal.SIGSTOP)
            todo += [
                child
                for pid in procfs.children(stat.pid)
                if (child := procfs.read_stat(pid)) is not None and child.ppid == stat.pid and child.state not in "ZX"
            ]
            if not allowed or not _signal_verified(stat, signal.SIGKILL):
                tree.denied.add(stat.pid)

    def _report_stuck(self) -> None:
        for tree in tuple(self._ending.values()):
            if tree.reported or tree.kill_began is None:
                continue
            left = tree.alive if tree.gone is not None else tree.alive | {tree.leader.os_pid}
            if left and left <= tree.denied:
                tree.reported = True
                tree.leader.refused(_denied_message(left), final=True)
            elif left and self.loop.time() - tree.kill_began > _KILL_TIMEOUT:
                tree.reported = True
                pids = ", ".join(map(str, sorted(left)))
                tree.leader.refused(f"{pids} survived SIGKILL: waiting for a device or file system?", final=True)

    def _cookie(self, stat: procfs.Stat) -> str | None:
        known = self._adopted.get(stat.pid)
        if known is None or known.start_time != stat.start_time:
            cookie = procfs.read_variable(stat.pid, COOKIE)
            if cookie is None:
                return None
            known = self._adopted[stat.pid] = _Adopted(stat.start_time, cookie or None)
        return known.cookie

    # Zombies

    def _on_sigchld(self, signum: int, frame: FrameType | None) -> None:
        if self._active and not self._child_due and not self.loop.is_closed():
            self._child_due = True
            self.loop.call_soon_threadsafe(self._on_child)
        if callable(self._previous):
            self._previous(signum, frame)

    def _on_child(self) -> None:
        self._child_due = False
        if self._scan is None:
            # Not at once after a long scan: while thousands exit, other callbacks need the loop too.
            self._scan_in(_SHARE * self._spent)
        else:
            self._child_again = True

    def _bury(self, zombie: procfs.Stat) -> None:
        """Reap a zombie that was adopted, but not the children of other code, such as a plugin's subprocess."""
        if self._was_adopted(zombie):
            self._reap(zombie.pid)
        elif zombie.pgrp != os.getpgrp() or self._is_init:
            known = self._doubtful.get(zombie.pid)
            if known is None or known.start_time != zombie.start_time:
                timeout = _FORK_TIMEOUT if forks.may_have_made(zombie.start_time) else self.doubt_timeout
                self._doubtful[zombie.pid] = _Doubt(zombie.start_time, self.loop.time() + timeout)

    def _was_adopted(self, zombie: procfs.Stat) -> bool:
        if zombie.pgrp in self._trees:
            return True
        known = self._adopted.get(zombie.pid)
        if known is not None and known.start_time == zombie.start_time:
            # Our own children have our cookie if another Gaffer started us.
            return known.cookie not in (None, os.environ.get(COOKIE))
        # A child that we forked is in our session or leads its own; others were adopted.
        return zombie.session not in (os.getsid(0), zombie.pid)

    def _settle_doubts(self) -> Generator[None]:
        """Reap zombies that have waited long enough and that no Popen object will wait for."""
        now = self.loop.time()
        due = {
            pid: doubt
            for pid, doubt in self._doubtful.items()
            # Once stopped, no later scan will reap them.
            if doubt.due <= now or not (self._active or forks.may_have_made(doubt.start_time))
        }
        held = _held() if due else set()
        yield
        for pid, doubt in due.items():
            stat = procfs.read_stat(pid)
            if stat is None or stat.ppid != os.getpid() or stat.start_time != doubt.start_time:
                del self._doubtful[pid]
            elif pid in held:
                self._doubtful[pid] = _Doubt(doubt.start_time, now + _FORK_TIMEOUT)
            else:
                self._reap(pid)
            yield

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        self._adopted.pop(pid, None)
        self._doubtful.pop(pid, None)


def _living(start_times: dict[int, int]) -> dict[int, int]:
    """Return those of `start_times`, by pid, whose process is still alive."""
    stats = {pid: procfs.read_stat(pid) for pid in start_times}
    return {
        pid: stat.start_time
        for pid, stat in stats.items()
        if stat is not None and stat.state not in "ZX" and stat.start_time == start_times[pid]
    }


def _held() -> set[int | None]:
    """Return the processes that some object of subprocess or multiprocessing will wait for; takes a few milliseconds.

    Objects created before gc.freeze() are not found.
    """
    forked = sys.modules.get("multiprocessing.popen_fork")
    kinds = (subprocess.Popen, forked.Popen) if forked is not None else subprocess.Popen
    return {
        getattr(item, "pid", None)  # of another thread, which may not have started its process yet
        for item in gc.get_objects()
        if isinstance(item, kinds) and item.returncode is None
    }


def _set_subreaper(on: bool) -> bool:
    """Make this process adopt orphaned descendants, or not; return whether it did before. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bool(before.value)


def _signal_verified(seen: procfs.Stat, *signums: int) -> bool:
    """Signal the process that was `seen`, unless its pid was reused; return False if not permitted."""
    try:
        pidfd = os.pidfd_open(seen.pid)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EINVAL):
            log.warning("can't signal process %d: %s", seen.pid, error.strerror)
        return True
    try:
        stat = procfs.read_stat(seen.pid)
        if stat is not None and stat.start_time == seen.start_time:
            for signum in signums:
                signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    finally:
        os.close(pidfd)
    return True


def _denied_message(pids: Iterable[int]) -> str:
    shown = ", ".join(f"{pid} (uid {procfs.owner(pid)})" for pid in sorted(pids))
    return f"uid {os.geteuid()} is not permitted to signal {shown}"
