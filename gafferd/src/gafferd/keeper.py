"""The keeper: the parent of gafferd, which starts it again when it dies or hangs. A program of its own, run by path.

    python -I -S keeper.py SOCKET PID MODE LOG COMMAND...
    python -I -S keeper.py --table FD MODE LOG COMMAND...

SOCKET is the descriptor of a SOCK_SEQPACKET socket to the running gafferd with the process id PID, which COMMAND starts
again; with `-1 0` the keeper starts it first. With --table it does so too, and goes on with what the file FD says of
processes and inherited descriptors, see `Core.table`: so a keeper replaces itself by new code, and a gafferd becomes
the keeper when its own was killed. MODE is `foreground`, or `background` to leave the standard streams once
gafferd is ready, for the file LOG unless it is empty. A gafferd that the keeper starts finds the number of its socket
in `GAFFERD_KEEPER_FD`.

Each datagram consists of lines `WORD=value`. From gafferd:

    FDSTORE=1, FDNAME=name...     keep the descriptors of this datagram, under one name or under one name each
    FDSTOREREMOVE=1, FDNAME=name  close the descriptors with these names
    CHILD=pid id [timeout [stop]] gafferd started this leader of a process group; seconds until SIGKILL, stop signal;
                                  again: replace what was said of it
    RECORD=text                   with CHILD: what the next gafferd is told of it
    EXITED=pid status             gafferd's own child has exited: what the next gafferd is told unless GONE follows
    GONE=id                       forget the child and the descriptors whose names begin with `id/`
    READY=1 [WATCHDOG=seconds]    gafferd serves; from now on a BEAT must come within this time
    BEAT=1                        gafferd is alive, also while it starts
    STOPPING=1 [STATUS=number]    gafferd ends for good: its exit status becomes that of the keeper, or STATUS
    DUMP=1                        send everything
    ACK=pid, REAP=pid             the exit is known; the zombie, and its claim on the group, is not needed any more

To gafferd: in a dump, `FDSTORE`, `CHILD` and `RECORD` as above, `EXITED=pid status` for the CHILD before it with a wait
status or `unknown` and `AT=seconds` of CLOCK_MONOTONIC, and `DUMPED=1` at its end, with `KILLED=1` if an earlier keeper
was killed and `BEGAN=seconds` of the same clock; later EXITED, again and again until ACK, and `ERR=text` for a datagram
that is not understood.

A keeper whose predecessor was killed has nobody who waits for it. It listens at the abstract address that `_address`
makes of the lock of the state directory. A gafferd that the same user starts there sends `CLAIM`, gets the names and
descriptors, 64 a message, and at last `TABLE` with the descriptor of a table. It becomes the keeper, which answers
`TAKEN`: one that dies before that has changed nothing.

`Core` decides, without any I/O; `Keeper` carries out. Only small modules are imported: the keeper must cost little.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import errno
import os
import resource
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Event = tuple[Any, ...]
    Action = tuple[Any, ...]

VARIABLE = "GAFFERD_KEEPER_FD"
MARK = "GAFFER_PROCESS"  # the variable that marks the tree of each process; its last part is the id of the child
HANDOVER = 75  # exit status of a gafferd that wants to be started again at once

WATCHDOG = 10.0  # seconds without BEAT, unless gafferd says otherwise
START_TIMEOUT = 60.0  # seconds without BEAT of a gafferd that starts again, until it is replaced
ABORT_TIMEOUT = 2.0  # seconds from SIGABRT to SIGKILL
LATE = 1.0  # a deadline found overdue by more means that the keeper itself was stopped
FIRST_DELAY, LAST_DELAY = 0.1, 5.0  # seconds before gafferd is started again
MAX_FAILURES = 7  # in a row that lengthen the delay
RESET_AFTER = 10.0  # seconds of life that reset the delay
SERVICE = 0.5  # seconds of a ready gafferd that make up for one failure
CHECK_TIMEOUT = 5.0  # seconds until new code of the keeper must have shown that it works
AWAY = 1.0  # seconds without gafferd until the keeper reads the output of processes
REPEAT = 1.0  # seconds between two EXITED of a child
FOREVER = float("inf")
END_TIMEOUT = 60.0  # seconds from the stop signal to SIGKILL, at most
STRAY_TIMEOUT = 10.0  # seconds from the stop signal to SIGKILL of a process whose child is not known
GIVE_UP = 5.0  # seconds after SIGKILL
LOOK_AGAIN = 0.05  # seconds between two looks at groups that are ending
CLAIM_TIMEOUT = 0.5  # seconds until a connection must have said what it wants
LOOK_FOR_DIRECTORY = 2.0  # seconds between two looks whether the state directory is still there
GIVE_TIMEOUT = 10.0  # seconds for each message to one that takes over

MAX_MESSAGE = 8192  # bytes
MAX_PASSED = 253  # descriptors of one message, SCM_MAX_FD
BATCH = 64  # descriptors of one message to gafferd
MAX_NAME = 2048  # a label of a stream has up to 64 characters, each quoted as up to 12
MAX_CHILDREN = 65536
MAX_DESCRIPTORS = 65536
MAX_QUEUE = 4096  # messages to gafferd; more are dropped
MAX_OUTPUT = 8 << 20  # bytes of a stream that are kept for gafferd; then the process waits
MAX_OUTPUTS = 128 << 20  # bytes of all streams
HEADER = 4096  # bytes before the data of a journal; zeros, as in a new one, say that nothing is in a log

SO_PEERCRED = 17

SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGKILL = 1, 2, 3, 6, 9
SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD, SIGCONT = _signal.SIGUSR1, _signal.SIGUSR2, 15, _signal.SIGCHLD, _signal.SIGCONT
QUIT_SIGNALS = (SIGTERM, SIGINT, SIGQUIT)
_CAUGHT = (*QUIT_SIGNALS, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD)

UNKNOWN = "unknown"  # status of a child that gafferd reaped without saying so


class Refused(ValueError):
    """A datagram is not understood or not permitted."""


class Child:
    """A leader that gafferd registered; `status` is its wait status or UNKNOWN once it has exited, `exited_at` when."""

    __slots__ = ("exited_at", "name", "pid", "record", "repeat_at", "status", "stop", "timeout")

    def __init__(self, pid: int, name: str, timeout: float, stop: int, record: str) -> None:
        self.pid, self.name, self.timeout, self.stop, self.record = pid, name, timeout, stop, record
        self.status: int | str | None = None
        self.repeat_at = self.exited_at = 0.0

    @property
    def lines(self) -> str:
        """Its registration, and its exit."""
        text = f"CHILD={self.pid} {self.name} {self.timeout:g} {self.stop}"
        if self.record:
            text += f"\nRECORD={self.record}"
        return text if self.status is None else f"{text}\n{_exited(self)}\nAT={self.exited_at:.3f}"


class Core:
    """What the keeper knows and decides; times are seconds of one clock.

    `handle` takes an event and returns the actions that follow; `deadline` is when it wants the next `("tick",)`.
    Events: `("datagram", data, descriptors)`, `("exited", pid, status)` of any child of the keeper,
    `("signal", number)`, `("started", pid)`, `("failed", reason)`, `("left", groups, strays)` while ending: the groups
    of children with living members, and members that have left their group, as the id of their child by their pid;
    `("abandoned",)` when nothing is left to go on with, `("claimed",)` by another keeper, `("unclaimed",)` when that
    has failed, `("tick",)`.
    Actions: `("start",)`, `("kill", pid, signal)`, `("killpg", pid, signal)` for the group of a child,
    `("signal", pid, signal)` for a stray, `("reap", pid)`,
    `("check",)`: send `exited` for each registered child that is not ours or has exited; `("send", data, descriptors)`,
    `("close", descriptors)`, `("hangup",)`, `("background",)`, `("log", text)`, `("exit", status)`; `("replace",)`: go
    on with the code on disk; `("keep", streams)` with name, pipe and journal or None of each: move their output to
    journals, `("stored", name, descriptor)` being the event for a new one, until `("leave",)`; `("taken",)`: gafferd
    has what was kept; `("give",)`: everything to the one that claimed it; `("refuse",)`: nothing; `("look",)`: whether
    the state directory is still there.
    """

    def __init__(self, now: float, daemon: int | None = None, *, max_descriptors: int = MAX_DESCRIPTORS) -> None:
        self.daemon = daemon
        self.children: dict[int, Child] = {}  # by pid
        self.descriptors: dict[str, list[int]] = {}  # by name
        self.ending = False  # the keeper ends the groups itself
        self._past: dict[str, Child] = {}  # children that have exited and whose pid another one has now, by id
        self._untold: dict[int, Child] = {}  # exits without ACK, by pid
        self._pids: dict[str, int] = {}  # of children, by id
        self._names: dict[str, set[str]] = {}  # of descriptors, by the id of their child
        self._max_descriptors, self._stored = max_descriptors, 0
        self._began = now
        self._started_at: float | None = now if daemon is None else None
        self._launched = now
        self._failures = 0.0  # recent ends of gafferd, less what the time that it served makes up for
        self._ready_at = now
        self._ready = self._was_ready = self._stopping = False
        self._listens = False  # to exits: it has asked for a dump
        self._announced = 0  # the exit status that gafferd will have
        self._quit = 0  # the last signal to end
        self._hurry = False  # it was a second one: kill the processes
        self._held: list[int] = []  # signals for a gafferd that is not ready
        self._watchdog = WATCHDOG
        self._beat_by: float | None = None
        self._kill_at: float | None = None
        self._away_at: float | None = None
        self._keeps = self._kept = False  # output, now or since gafferd was ready
        self._starts = 0
        self._last = ""  # the last end of gafferd
        self.follows_killed = False  # this keeper took the place of one that was killed
        self._look_at: float | None = None
        self._claimed = False  # another keeper wants to take the place of this one
        self._status = 0  # exit status after `ending`
        self._kill_by: dict[int, float] = {}  # by pid, while ending
        self._strays: dict[int, int] = {}  # those of them that are members outside groups, with their stop signals
        self._ended_at = now  # when that began
        self._end_at: float | None = None
        self._killed: set[int] = set()

    def handle(self, event: Event, now: float) -> list[Action]:
        """Return the actions that follow from an event."""
        name, *arguments = event
        return list(getattr(self, f"_on_{name}")(*arguments, now))

    def deadline(self) -> float | None:
        """Return when the next tick is due, None if never."""
        times = [self._started_at, self._beat_by, self._kill_at, self._end_at, self._away_at, self._look_at]
        if self._listens:
            times += [child.repeat_at for child in self._untold.values()]
        if self.ending:
            times += [when for pid, when in self._kill_by.items() if pid not in self._killed]
        return min((when for when in times if when is not None and when < FOREVER), default=None)

    def record(self, name: str) -> str:
        """Return what the next gafferd is told of the child with this id, "" if there is none."""
        child = self.children.get(self._pids.get(name, -1))
        return child.record if child is not None else ""

    # The table

    def table(self) -> str:
        """Return what another keeper must know to go on, as lines.

        BEGAN, STARTS, LAST as at the end of a dump, KILLED if a keeper was, `FD=number name`, and for each child CHILD
        with RECORD and EXITED, as in a dump, followed by ACK if its exit was acknowledged.
        """
        lines = [f"BEGAN={self._began:.3f}", f"STARTS={self._starts}", f"LAST={self._last}"]
        lines += ["KILLED=1"] if self.follows_killed else []
        lines += [f"FD={each} {name}" for name, found in self.descriptors.items() for each in found]
        for child in (*self._past.values(), *self.children.values()):
            lines.append(child.lines)
            if child.status is not None and child.pid not in self._untold:
                lines.append(f"ACK={child.pid}")
        return "\n".join(lines) + "\n"

    def restore(self, table: str, now: float) -> Iterable[Action]:
        """Take over a table; a line that is not understood is left out."""
        self._was_ready = True
        child: Child | None = None
        for line in table.splitlines():
            word, _, value = line.partition("=")
            first, _, rest = value.partition(" ")
            try:
                if word == "FD":
                    self._store([rest], [_number(first, 0)])
                elif word == "CHILD":
                    child = None
                    yield from self._child(value, {}, now)
                    child = self.children[int(first)]
                elif word == "BEGAN":
                    self._began = _seconds(value)
                elif word == "STARTS":
                    self._starts = _number(value, 0)
                elif word == "LAST":
                    self._last = value
                elif word == "KILLED":
                    self.follows_killed, self._look_at = True, now + LOOK_FOR_DIRECTORY
                elif child is not None and word == "RECORD":
                    child.record = value
                elif child is not None and word == "EXITED":
                    child.status = UNKNOWN if rest == UNKNOWN else _number(rest, 0, 0xFFFF)
                    child.exited_at = now
                    self._untold[child.pid] = child
                elif child is not None and word == "AT":
                    child.exited_at = _seconds(value)
                elif child is not None and word == "ACK":
                    self._untold.pop(child.pid, None)
            except Refused as error:
                yield ("log", f"in the table, {line[:64]!r}: {error}")
        if any(self._streams()):
            self._away_at = now + AWAY

    # The life of gafferd

    def _on_started(self, pid: int, now: float) -> Iterable[Action]:
        self.daemon, self._launched, self._started_at = pid, now, None
        self._starts += 1
        if self._was_ready:
            self._beat_by = now + self._patience()
        return ()

    def _patience(self) -> float:
        """Return the seconds within which a BEAT must come."""
        return self._watchdog if self._ready or self._quit else max(START_TIMEOUT, self._watchdog)

    def _on_failed(self, reason: str, now: float) -> Iterable[Action]:
        self._launched = now
        return self._start_later(f"gafferd can't be started: {reason}", now) if self._was_ready else self._end(1, now)

    def _on_exited(self, pid: int, status: int | str, now: float) -> Iterable[Action]:
        if pid == self.daemon:
            assert isinstance(status, int)
            return [("reap", pid), ("hangup",), *self._daemon_ended(status, now)]
        child = self.children.get(pid)
        if child is None:
            return [("reap", pid)]
        if child.status is None:
            child.status, child.repeat_at, child.exited_at = status, now, now
            self._untold[pid] = child
            return self._tell(now)
        return ()

    def _daemon_ended(self, status: int, now: float) -> Iterable[Action]:
        pid, was_ready = self.daemon, self._ready
        code = status >> 8 if not status & 0x7F else None
        self._last = f"gafferd (pid {pid}) " + (
            f"was killed by signal {status & 0x7F}" if code is None else f"exited with status {code}"
        )
        self.daemon, self._ready, self._listens = None, False, False
        self._beat_by = self._kill_at = None
        self._held.clear()
        if not self._keeps and self._away_at is None and any(self._streams()):
            self._away_at = now + AWAY
        yield ("check",)
        if self._claimed:
            yield ("give",)
        elif self._quit or self._stopping:
            if code is None:
                if self._quit != status & 0x7F:
                    yield ("log", f"{self._last} while it was ending")
                code = _after(self._quit) if self._quit else self._announced or 128 + (status & 0x7F)
            yield from self._end(0 if code == HANDOVER else code, now)
        elif code == 0 or (code not in (None, HANDOVER) and not self._was_ready):
            yield from self._end(code or 0, now)
        elif code == HANDOVER and was_ready:
            self._started_at, self._failures = now, 0.0
            yield ("log", f"{self._last} to be replaced")
            yield ("replace",)
        else:
            yield from self._start_later(self._last, now, now - self._ready_at if was_ready else 0.0)

    def _start_later(self, reason: str, now: float, served: float = 0.0) -> Iterable[Action]:
        self._failures = max(0.0, self._failures - served / SERVICE)
        if now - self._launched >= RESET_AFTER:
            self._failures = 0.0
        # A single end is no loop: nothing is gained by waiting.
        delay = 0.0 if self._failures < 1 else min(FIRST_DELAY * 2 ** (self._failures - 1), LAST_DELAY)
        self._failures = min(self._failures + 1, MAX_FAILURES)
        self.daemon, self._last = None, reason
        self._started_at = now + delay
        living = sum(child.status is None for child in self.children.values())
        others = f", while {living} processes run on" if living else ""
        when = f" in {delay:.2g} s" if delay else ""
        yield ("log", f"{reason}: starting it again{when}{others}")

    def _on_abandoned(self, now: float) -> Iterable[Action]:
        self._look_at = None
        yield ("log", "the keeper was killed, and the state directory removed: ending")
        yield from self._end(1, now) if self.daemon is None else self._on_signal(SIGTERM, now)

    def _on_claimed(self, now: float) -> Iterable[Action]:
        if self.ending or self._quit or self._stopping:
            return [("refuse",)]
        self._claimed, self._started_at = True, None
        actions: list[Action] = [("log", "another gafferd was started here, and takes over")]
        if self._keeps:
            self._keeps = False
            actions.append(("leave",))
        return [*actions, ("give",) if self.daemon is None else ("kill", self.daemon, SIGKILL)]

    def _on_unclaimed(self, now: float) -> Iterable[Action]:
        self._claimed = False
        if self._quit or self._stopping:  # gafferd was asked to end when it was killed
            return self._end(_after(self._quit), now)
        self._started_at = now
        return [("log", "the other gafferd did not take over: going on")]

    def _on_signal(self, number: int, now: float) -> Iterable[Action]:
        if number in QUIT_SIGNALS:
            if self.ending:
                return self._kill_groups(now) if number != SIGQUIT else ()
            self._hurry = bool(self._quit) and number != SIGQUIT
            self._quit = number
            if self.daemon is None:
                return self._end(_after(number), now)
            if not self._ready and self._kill_at is None:
                self._beat_by = now + self._patience()
            return [("kill", self.daemon, number)]
        if self.ending:
            return ()
        if self.daemon is None:
            if number in (SIGHUP, SIGUSR2):  # the reason why it did not start may be gone
                self._started_at = now
            return ()
        if self._ready:
            return [("kill", self.daemon, number)]
        if number not in self._held:
            self._held.append(number)
        return ()

    def _on_tick(self, now: float) -> Iterable[Action]:
        if self._started_at is not None and now >= self._started_at:
            self._started_at = None
            yield ("start",)
        if self._away_at is not None and now >= self._away_at:
            yield from self._keep()
        if self._look_at is not None and now >= self._look_at:
            self._look_at = None if self.ending or self._quit else now + LOOK_FOR_DIRECTORY
            yield ("look",)
        yield from self._watch(now)
        yield from self._tell(now)
        if self.ending:
            yield from self._kill_overdue(now)

    def _watch(self, now: float) -> Iterable[Action]:
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            yield ("kill", self.daemon, SIGKILL)
        if self._beat_by is None or now < self._beat_by:
            return
        if now - self._beat_by > LATE:
            self._beat_by = now + self._patience()
            return
        self._beat_by, self._kill_at = None, now + ABORT_TIMEOUT
        starts, then = "" if self._ready else " while it starts", "ending" if self._quit else "replacing"
        yield ("log", f"gafferd (pid {self.daemon}) has been hanging for {self._patience():g} s{starts}: {then} it")
        yield ("kill", self.daemon, SIGABRT)
        yield ("kill", self.daemon, SIGCONT)  # a stopped process would not write its stacks

    # The end of the keeper

    def _end(self, status: int, now: float) -> Iterable[Action]:
        """End the groups of all registered children, then exit."""
        self.ending, self._status, self._started_at, self._ended_at = True, status, None, now
        self._kill_by = {child.pid: now + min(child.timeout, END_TIMEOUT) for child in self.children.values()}
        if not self._kill_by:
            yield ("exit", status)
            return
        self._end_at = now
        yield ("log", f"ending {len(self._kill_by)} processes without gafferd")
        if not self._keeps and any(self._streams()):
            yield from self._keep()  # or they could not write, and would not end
        for pid in self._kill_by:
            yield ("killpg", pid, self.children[pid].stop)
            yield ("killpg", pid, SIGCONT)
        if self._hurry:
            yield from self._kill_groups(now)

    def _on_left(self, groups: set[int], strays: dict[int, str], now: float) -> Iterable[Action]:
        """Forget what has ended, and end strays that were not seen before."""
        for pid in tuple(self._kill_by):
            if pid in self._strays:
                if pid not in strays:
                    del self._kill_by[pid], self._strays[pid]
                    self._killed.discard(pid)
            elif self.children[pid].status is not None and pid not in groups:
                del self._kill_by[pid]
                yield ("reap", pid)
        for pid, name in strays.items():
            if pid not in self._kill_by:
                yield from self._end_stray(pid, name, now)
        self._end_at = now + LOOK_AGAIN
        if not self._kill_by:
            yield ("exit", self._status)
        elif all(pid in self._killed and now >= when + GIVE_UP for pid, when in self._kill_by.items()):
            yield ("log", f"processes survive SIGKILL: {', '.join(map(str, self._kill_by))}")
            yield ("exit", self._status or 1)

    def _end_stray(self, pid: int, name: str, now: float) -> Iterable[Action]:
        """End a stray as its child, or like a child with the defaults if that is not known, as of a command."""
        child = self.children.get(self._pids.get(name, -1)) or Child(pid, name, STRAY_TIMEOUT, SIGTERM, "")
        self._strays[pid] = child.stop
        self._kill_by[pid] = now if self._hurry else self._ended_at + min(child.timeout, END_TIMEOUT)
        yield ("signal", pid, child.stop)
        yield ("signal", pid, SIGCONT)

    def _kill_overdue(self, now: float) -> Iterable[Action]:
        for pid, when in self._kill_by.items():
            if now >= when and pid not in self._killed:
                self._killed.add(pid)
                stray = self._strays.get(pid)
                yield ("log", f"killing process {pid}: it ignored signal {stray or self.children[pid].stop}")
                yield ("killpg" if stray is None else "signal", pid, SIGKILL)

    def _kill_groups(self, now: float) -> Iterable[Action]:
        self._hurry = True
        self._kill_by = {pid: min(when, now) for pid, when in self._kill_by.items()}
        return self._kill_overdue(now)

    # Output of children, while gafferd is away

    def _streams(self) -> Iterable[tuple[str, int, int | None]]:
        for name, found in self.descriptors.items():
            if name.endswith(("/stdout", "/stderr")):
                journal = self.descriptors.get(f"{name}.journal")
                yield name, found[-1], journal[-1] if journal else None

    def _keep(self) -> Iterable[Action]:
        self._keeps, self._kept, self._away_at = True, True, None
        yield ("keep", tuple(self._streams()))

    def _on_stored(self, name: str, descriptor: int, now: float) -> Iterable[Action]:
        try:
            self._store([name], [descriptor])
        except Refused as error:
            return [("log", f"can't keep {name}: {error}"), ("close", (descriptor,))]
        return ()

    # Exits of children

    def _tell(self, now: float) -> Iterable[Action]:
        due = [child for child in self._untold.values() if child.repeat_at <= now] if self._listens else []
        for child in due:
            child.repeat_at = now + REPEAT
        for data in _packed([_exited(child) for child in due]):
            yield ("send", data, ())

    # Datagrams

    def _on_datagram(self, data: bytes, passed: Sequence[int], now: float) -> Iterable[Action]:
        left = list(passed)
        actions: list[Action] = []
        try:
            pairs = _parse(data)
            names = [value for word, value in pairs if word == "FDNAME"]
            settings = {word: value for word, value in pairs if word in _MODIFIERS}
            for word, value in pairs:
                if word in _MODIFIERS:
                    continue
                if word == "DUMP" and len(pairs) > 1:
                    raise Refused("DUMP must be alone")
                if word == "FDSTORE":
                    self._store(names, left)
                    left = []
                elif word == "FDSTOREREMOVE":
                    actions.extend(self._remove(names))
                elif word in _WORDS:
                    actions.extend(_WORDS[word](self, value, settings, now))
                else:
                    raise Refused(f"unknown word {word[:32]!r}")
            if left:
                raise Refused("descriptors without FDSTORE")
        except Refused as error:
            actions.append(("send", f"ERR={error}".encode("ascii", "replace"), ()))
        if left:
            actions.append(("close", tuple(left)))
        return actions

    def _store(self, names: list[str], passed: list[int]) -> None:
        if len(names) not in (1, len(passed)) or not passed:
            raise Refused(f"FDSTORE has {len(passed)} descriptors and {len(names)} names")
        if self._stored + len(passed) > self._max_descriptors:
            raise Refused(f"the store is full: {self._stored} descriptors")
        for name in names:
            _check_name(name)
        for name, descriptor in zip(names * len(passed) if len(names) == 1 else names, passed, strict=False):
            self.descriptors.setdefault(name, []).append(descriptor)
            owner, slash, _ = name.partition("/")
            if slash:
                self._names.setdefault(owner, set()).add(name)
        self._stored += len(passed)

    def _remove(self, names: Iterable[str]) -> Iterable[Action]:
        for name in names:
            found = self.descriptors.pop(name, [])
            self._stored -= len(found)
            owner, slash, _ = name.partition("/")
            if slash and owner in self._names:
                self._names[owner].discard(name)
                if not self._names[owner]:
                    del self._names[owner]
            if found:
                yield ("close", tuple(found))

    def _child(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        words = value.split(" ")
        if not 2 <= len(words) <= 4:
            raise Refused("write CHILD=pid id [timeout [stop]]")
        pid, name = _number(words[0], 2), words[1]
        _check_name(name)
        if "/" in name or pid in (self.daemon, os.getpid()):
            raise Refused(f"CHILD={value[:64]!r} is not a child")
        timeout = _seconds(words[2]) if len(words) > 2 else END_TIMEOUT
        stop = _number(words[3], 1, 64) if len(words) > 3 else SIGTERM
        if len(self.children) + len(self._past) >= MAX_CHILDREN and pid not in self.children:
            raise Refused(f"too many children: {len(self.children)}")
        self._past.pop(name, None)
        actions = self._gone(name, settings, now) if self._pids.get(name, pid) != pid else []
        child = Child(pid, name, timeout, stop, settings.get("RECORD", ""))
        if (known := self.children.get(pid)) is not None and known.name == name:
            child.status, child.repeat_at, child.exited_at = known.status, known.repeat_at, known.exited_at
            if pid in self._untold:
                self._untold[pid] = child
        elif known is not None:
            del self._pids[known.name]
            self._untold.pop(pid, None)
            if known.status is not None:
                self._past[known.name] = known
        self.children[pid], self._pids[name] = child, pid
        return actions

    def _exit(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        text, _, status = value.partition(" ")
        child = self.children.get(_number(text, 2))
        if child is None:
            raise Refused(f"no child {text[:32]!r}")
        if child.status is None:
            child.status, child.repeat_at, child.exited_at = _number(status, 0, 0xFFFF), FOREVER, now
            self._untold[child.pid] = child
        return ()

    def _gone(self, value: str, settings: dict[str, str], now: float) -> list[Action]:
        self._past.pop(value, None)
        pid = self._pids.pop(value, None)
        actions = list(self._remove(sorted(self._names.get(value, ()))))
        if pid is not None:
            child = self.children.pop(pid)
            self._untold.pop(pid, None)
            if isinstance(child.status, int):
                actions.append(("reap", pid))
        return actions

    def _be_ready(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        if "WATCHDOG" in settings:
            self._watchdog = max(_seconds(settings["WATCHDOG"]), 0.1)
        first = not self._was_ready
        if not self._ready:
            self._was_ready, self._ready, self._ready_at = True, True, now
        self._beat_by = now + self._watchdog
        if first:
            yield ("background",)
        if self._kept and not self._keeps:
            self._kept = False
            yield ("taken",)
        for number in self._held:
            yield ("kill", self.daemon, number)
        self._held.clear()

    def _beat(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        if self._beat_by is not None:
            self._beat_by = now + self._patience()
        return ()

    def _stop(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        self._announced = _number(settings.get("STATUS", "0"), 0, 255)
        self._stopping = True
        return ()

    def _acknowledge(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        self._untold.pop(self._exited_child(value).pid, None)
        return ()

    def _reap(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        return self._gone(self._exited_child(value).name, settings, now)

    def _exited_child(self, value: str) -> Child:
        child = self.children.get(_number(value, 2))
        if child is None or child.status is None:
            raise Refused(f"no child {value[:32]!r} has exited")
        return child

    def _dump(self, value: str, settings: dict[str, str], now: float) -> Iterable[Action]:
        self._away_at = None
        if self._keeps:
            self._keeps = False
            yield ("leave",)
        batch: list[tuple[str, int]] = []
        size = 0
        for name, descriptor in [(name, each) for name, found in self.descriptors.items() for each in found]:
            if len(batch) == BATCH or size + len(name) + 8 > MAX_MESSAGE - 16:
                yield _stored(batch)
                batch, size = [], 0
            batch.append((name, descriptor))
            size += len(name) + 8
        if batch:
            yield _stored(batch)
        self._listens = True
        for child in self._untold.values():
            child.repeat_at = now + REPEAT
        for data in _packed([child.lines for child in (*self._past.values(), *self.children.values())]):
            yield ("send", data, ())
        end = f"DUMPED=1\nSTARTS={self._starts}\nBEGAN={self._began:.3f}\nLAST={self._last[:512]}"
        end += "\nKILLED=1" if self.follows_killed else ""
        yield ("send", end.encode("ascii", "replace"), ())


_MODIFIERS = ("FDNAME", "FDPOLL", "RECORD", "STATUS", "WATCHDOG")
_WORDS: dict[str, Callable[[Core, str, dict[str, str], float], Iterable[Action]]] = {
    "CHILD": Core._child,
    "EXITED": Core._exit,
    "GONE": Core._gone,
    "READY": Core._be_ready,
    "BEAT": Core._beat,
    "STOPPING": Core._stop,
    "ACK": Core._acknowledge,
    "REAP": Core._reap,
    "DUMP": Core._dump,
}


def _after(signum: int) -> int:
    """Return the exit status after a signal that ends gafferd."""
    return 130 if signum == SIGINT else 0


def _exited(child: Child) -> str:
    return f"EXITED={child.pid} {child.status}"


def _stored(batch: list[tuple[str, int]]) -> Action:
    names = "".join(f"\nFDNAME={name}" for name, _ in batch)
    return ("send", f"FDSTORE=1{names}".encode(), tuple(descriptor for _, descriptor in batch))


def _packed(lines: list[str]) -> Iterable[bytes]:
    """Join lines, or groups of lines, to messages."""
    part: list[str] = []
    size = 0
    for line in lines:
        if part and size + len(line) + 1 > MAX_MESSAGE:
            yield "\n".join(part).encode()
            part, size = [], 0
        part.append(line)
        size += len(line) + 1
    if part:
        yield "\n".join(part).encode()


def _parse(data: bytes) -> list[tuple[str, str]]:
    if len(data) > MAX_MESSAGE:
        raise Refused(f"the message is longer than {MAX_MESSAGE} bytes, or has too many descriptors")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise Refused("the message is not ASCII") from None
    found = []
    for line in text.removesuffix("\n").split("\n"):
        word, _, value = line.partition("=")
        found.append((word, value))
    return found


def _number(text: str, lowest: int, highest: int = 2**31 - 1) -> int:
    if not (text.isdigit() and len(text) <= 10 and lowest <= int(text) <= highest):
        raise Refused(f"expected a number from {lowest} to {highest}, got {text[:32]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text) if len(text) <= 32 else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e9:
        raise Refused(f"expected seconds, got {text[:32]!r}")
    return value


def _check_name(name: str) -> None:
    if not (0 < len(name) <= MAX_NAME and name.isprintable() and " " not in name):
        raise Refused(f"invalid name {name[:32]!r}")


class Keeper:
    """Carries out what `Core` decides."""

    def __init__(
        self, descriptor: int, daemon: int, background: bool, log: str, command: list[str], table: str = ""
    ) -> None:
        own = dict(line.partition("=")[::2] for line in table.splitlines()[:4])  # what is not for the core
        self._command, self._background, self._log_file = command, background, log
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        if "LIMIT" in own:
            self._limits = int(own["LIMIT"]), self._limits[1]
        self._oom = own.get("OOM", "").encode() or None
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._limits[1], self._limits[1]))
        except (OSError, ValueError):
            pass
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = MAX_DESCRIPTORS if allowed == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, allowed - 64)
        self._core = Core(time.monotonic(), daemon or None, max_descriptors=most)
        self._socket: _socket.socket | None = None
        self._queue: list[tuple[bytes, tuple[int, ...]]] = []
        self._to_close: list[int] = []  # descriptors that queued messages may still name
        self._retry_at: float | None = None
        self._exit: int | None = None
        self._left, self._dropping = own.get("LEFT") == "1", False
        self._strangers: dict[int, int] = {}  # children that are not ours, by pidfd
        self._had_strangers = False
        self._listener: _socket.socket | None = None  # for a gafferd that takes over
        self._claim: _socket.socket | None = None
        self._poll = select.poll()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wake, select.POLLIN)
        self._watchdog = _Watchdog()
        self._output = _Output(self._poll, self._write, self._store)
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
            self._connect(_socket.socket(fileno=descriptor))
        if table:
            self._carry_out(self._core.restore(table, time.monotonic()))
            for each in self._stored():
                os.set_inheritable(each, False)
        if "CLAIM" in own:
            self._confirm(_socket.socket(fileno=int(own["CLAIM"])))

    def run(self) -> int:
        """Run until gafferd has ended for good; return the exit status."""
        _signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for signum in _CAUGHT:
            _signal.signal(signum, lambda number, frame: None)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        libc = ctypes.CDLL(None)
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        libc.prctl(15, b"gaffer-keeper", 0, 0, 0)  # PR_SET_NAME
        self._oom = _lower_oom_score() or self._oom
        if self._core.follows_killed:
            self._listen()
        self._look()  # gafferd may have ended before SIGCHLD was caught
        while self._exit is None:
            self._turn()
        return self._exit

    def _turn(self) -> None:
        now = time.monotonic()
        due = [when for when in (self._core.deadline(), self._retry_at, self._watchdog.due) if when is not None]
        wait = max(0.0, min(due) - now) * 1000 + 1 if due else None
        for descriptor, events in self._poll.poll(wait):
            if descriptor == self._wake:
                self._read_signals()
            elif descriptor in self._strangers:
                self._poll.unregister(descriptor)
                self._handle("exited", self._strangers.pop(descriptor), UNKNOWN)
            elif self._listener is not None and descriptor == self._listener.fileno():
                self._receive_claim(self._listener)
            elif not self._output.move(descriptor, events):
                self._receive_all()
                self._flush()
        now = time.monotonic()
        if self._retry_at is not None and now >= self._retry_at:
            self._flush()
        self._watchdog.beat(now)
        if self._core.ending:
            self._look()
            groups = _groups(self._core.children) | set(self._strangers.values())
            self._handle("left", groups, self._find_strays(groups))
        self._handle("tick")

    def _handle(self, *event: Any) -> None:
        self._carry_out(self._core.handle(event, time.monotonic()))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for name, *arguments in actions:
            getattr(self, f"do_{name}")(*arguments)

    # Signals and children

    def _read_signals(self) -> None:
        try:
            numbers = os.read(self._wake, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number != SIGCHLD:
                self._handle("signal", number)
        if SIGCHLD in numbers:
            self._look()

    def _look(self) -> None:
        """Handle the exits of all our children: first what they and gafferd have sent, then registered and others."""
        pids = _children()
        self._receive_all()
        self.do_check()
        for pid in pids:
            if pid not in self._core.children and isinstance(status := _status(pid), int):
                self._handle("exited", pid, status)

    def do_check(self) -> None:
        if self._core.daemon is not None and isinstance(status := _status(self._core.daemon), int):
            self._receive_all()  # it may have sent more until now
            self._handle("exited", self._core.daemon, status)
            return  # which asks for a check
        self._check_children()

    def _check_children(self) -> None:
        for child in tuple(self._core.children.values()):
            status = _status(child.pid) if child.status is None else None
            # A child of a living gafferd is not ours.
            if isinstance(status, int) or (status == UNKNOWN and self._core.daemon is None and not self._lives(child)):
                self._handle("exited", child.pid, status)

    def _lives(self, child: Child) -> bool:
        """Return whether a process that is not our child, as an earlier keeper had adopted it, runs; watch it then."""
        found = self._core.descriptors.get(f"{child.name}/pidfd")
        if not found:
            return False
        poll = select.poll()
        poll.register(found[0], select.POLLIN)
        if poll.poll(0):
            return False
        if found[0] not in self._strangers:
            self._had_strangers = True
            self._strangers[found[0]] = child.pid
            self._poll.register(found[0], select.POLLIN)
        return True

    def do_kill(self, pid: int, signum: int) -> None:
        try:
            os.kill(pid, signum)
        except OSError as error:
            self.do_log(f"can't signal process {pid}: {error.strerror}")

    def do_killpg(self, pid: int, signum: int) -> None:
        if _status(pid) == UNKNOWN and not self._lives(self._core.children[pid]) and pid not in _groups((pid,)):
            return
        try:
            os.killpg(pid, signum)
        except ProcessLookupError:
            self.do_kill(pid, signum)
        except OSError as error:
            self.do_log(f"can't signal the process group {pid}: {error.strerror}")

    def do_signal(self, pid: int, signum: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return  # it has ended
        try:
            if self._find_stray(pid) is not None:
                _signal.pidfd_send_signal(pidfd, signum)
        except OSError as error:
            if error.errno != errno.ESRCH:
                self.do_log(f"can't signal process {pid}: {error.strerror}")
        finally:
            os.close(pidfd)

    def _find_strays(self, groups: set[int]) -> dict[int, str]:
        """Return the members of trees that are not in these groups, as the id of their child by their pid."""
        pids = _children() if self._are_orphans_ours else _pids()
        found = {pid: self._find_stray(pid) for pid in pids if pid not in self._core.children}
        return {pid: name for pid, name in found.items() if name is not None and _group(pid) not in groups}

    @property
    def _are_orphans_ours(self) -> bool:
        """Whether orphans of all trees are our children, as there was no other keeper that may have adopted some."""
        return not (self._core.follows_killed or self._had_strangers)

    def _find_stray(self, pid: int) -> str | None:
        """Return the id of the child to whose tree a process belongs, as its mark says.

        Unless orphans are our children, a record must confirm the mark, because anyone can set the variable.
        """
        mark = _read_mark(pid)
        if not mark or mark == os.environ.get(MARK) or mark.endswith(":detached"):
            return None
        name = mark.rpartition(":")[2]
        confirmed = self._are_orphans_ours or f'"{mark}"' in self._core.record(name)
        return name if confirmed else None

    def do_reap(self, pid: int) -> None:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass

    def _is_abandoned(self) -> bool:
        """Return whether somebody killed the keeper and then removed the state directory, whose lock is held here."""
        return self._core.follows_killed and any(map(_is_removed, self._core.descriptors.get("lock", ())))

    def do_look(self) -> None:
        if self._is_abandoned():
            self._handle("abandoned")

    def do_start(self) -> None:
        if self._is_abandoned():
            self._handle("abandoned")
            return
        try:
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        except OSError as error:
            self._handle("failed", str(error.strerror))
            return
        os.set_inheritable(theirs.fileno(), True)
        environ = {**os.environ, VARIABLE: str(theirs.fileno())}
        if self._left and self._log_file:
            self._leave()  # the file may have been rotated
        limits, program = resource.getrlimit(resource.RLIMIT_NOFILE), self._command[0]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._limits[0], limits[1]))
            pid = os.posix_spawn(program, self._command, environ, setpgroup=0, setsigmask=(), setsigdef=_CAUGHT)
        except OSError as error:
            ours.close()
            self._handle("failed", f"{program}: {error.strerror}")
            return
        finally:
            theirs.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if self._oom is not None:
            _write_oom_score(pid, self._oom)
        if self._core.children:
            _raise_priority(pid)
        self._connect(ours)
        self._handle("started", pid)

    def do_replace(self) -> None:
        """Go on with the code on disk if it works, and otherwise with this one."""
        program = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]
        if not _works([*program, "--check"]):
            self.do_log("the keeper on disk does not work: going on with the old one")
            return
        # What comes now waits for the next keeper.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _CAUGHT)
        self._read_signals()
        if self._core.ending:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            return
        own = f"LIMIT={self._limits[0]}\nOOM={(self._oom or b'').decode()}\nLEFT={int(self._left)}\n"
        inherited = self._stored()
        try:
            file = os.memfd_create("table", 0)
            inherited.append(file)
            _write_all(file, (own + self._core.table()).encode())
            for each in inherited:
                os.set_inheritable(each, True)
            mode = "background" if self._background else "foreground"
            os.execv(program[0], [*program, "--table", str(file), mode, self._log_file, *self._command])
        except OSError as error:
            self.do_log(f"the keeper can't be replaced: {error.strerror}: going on with the old one")
        for each in inherited:
            os.set_inheritable(each, False)
        os.close(file)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def _stored(self) -> list[int]:
        return [each for found in self._core.descriptors.values() for each in found]

    # The socket

    def _connect(self, connection: _socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._poll.register(connection.fileno(), select.POLLIN)

    def do_hangup(self) -> None:
        if self._socket is not None:
            self._poll.unregister(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._queue.clear()
        self.do_close(())

    def _receive_all(self) -> None:
        for _ in range(MAX_QUEUE):  # a flood must not keep us from the rest
            if not self._receive():
                break

    def _receive(self) -> bool:
        """Handle one message; return False if there is none."""
        if self._socket is None:
            return False
        room = _socket.CMSG_SPACE(4 * MAX_PASSED)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(MAX_MESSAGE + 1, room, _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # it ended with unread messages; what it sent before follows
            return True
        except OSError:
            data, ancillary, flags = b"", [], 0
        passed = [
            descriptor
            for level, kind, raw in ancillary
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            for descriptor in memoryview(raw[: len(raw) // 4 * 4]).cast("i").tolist()
        ]
        if not data and not passed:
            self.do_hangup()  # the end of gafferd follows, or its watchdog
            return False
        if flags & _socket.MSG_CTRUNC:
            data += b"\n" * MAX_MESSAGE  # which is too long, as is a message that was cut off
        if data == b"DUMP=1":
            self._check_children()  # so that it has all exits so far
        self._handle("datagram", data, passed)
        return True

    def do_send(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        if self._socket is None:
            return
        if len(self._queue) >= MAX_QUEUE:
            if not self._dropping:
                self.do_log(f"gafferd does not read: dropping messages beyond {MAX_QUEUE}")
            self._dropping = True
            return
        self._dropping = False
        self._queue.append((data, descriptors))
        if len(self._queue) == 1:
            self._flush()

    def _flush(self) -> None:
        self._retry_at = None
        while self._queue and self._socket is not None:
            data, descriptors = self._queue[0]
            raw = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in descriptors)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)] if raw else []
            try:
                self._socket.sendmsg([data], rights)
            except BlockingIOError:
                self._poll.modify(self._socket.fileno(), select.POLLIN | select.POLLOUT)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # too many descriptors are on their way
                    self._retry_at = time.monotonic() + 0.01
                    return
                self._queue.clear()
                break
            self._queue.pop(0)
        if self._socket is not None:
            self._poll.modify(self._socket.fileno(), select.POLLIN)
        self.do_close(())

    # A gafferd that takes over

    def _listen(self) -> None:
        for lock in self._core.descriptors.get("lock", ()):
            listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            try:
                listener.bind(_address(os.fstat(lock)))
                listener.listen(1)
            except OSError as error:
                listener.close()
                self.do_log(f"no other gafferd can take over: {error.strerror}")
                return
            listener.setblocking(False)
            self._listener = listener
            self._poll.register(listener.fileno(), select.POLLIN)
            return

    def _receive_claim(self, listener: _socket.socket) -> None:
        try:
            descriptor, _ = listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = _socket.socket(fileno=descriptor)
        connection.settimeout(CLAIM_TIMEOUT)
        try:
            pid, user, _ = memoryview(connection.getsockopt(_socket.SOL_SOCKET, SO_PEERCRED, 12)).cast("i")
            allowed = pid and user == os.geteuid() and self._claim is None  # pid 0: of another pid namespace
            claims = bool(allowed) and connection.recv(64) == b"CLAIM"
        except OSError:
            claims = False
        if not claims:
            connection.close()
            return
        connection.settimeout(GIVE_TIMEOUT)
        self._claim = connection
        self._handle("claimed")

    def do_refuse(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def do_give(self) -> None:
        """Give everything to the one that claimed it, and end once that has it."""
        assert self._claim is not None
        self.do_close(())
        held = [(name, each) for name, found in self._core.descriptors.items() for each in found]
        try:
            for start in range(0, len(held), BATCH):
                batch = held[start : start + BATCH]
                self._give("\n".join(name for name, _ in batch), *(each for _, each in batch))
            file = os.memfd_create("table", os.MFD_CLOEXEC)
            try:
                _write_all(file, self._core.table().encode())
                self._give("TABLE", file)
            finally:
                os.close(file)
            taken = self._is_taken(self._claim)
        except OSError:
            taken = False
        self.do_refuse()
        if taken:
            self.do_exit(0)
        else:
            self._handle("unclaimed")

    def _is_taken(self, claim: _socket.socket) -> bool:
        try:
            return claim.recv(64) == b"TAKEN"
        except TimeoutError:
            claim.shutdown(_socket.SHUT_RDWR)  # from now on it can't say so
            return claim.recv(64) == b"TAKEN"  # it may just have

    def _confirm(self, claim: _socket.socket) -> None:
        """Let the keeper end whose place this one takes; end if that one goes on."""
        try:
            claim.send(b"TAKEN")
        except OSError as error:
            pid, _, _ = memoryview(claim.getsockopt(_socket.SOL_SOCKET, SO_PEERCRED, 12)).cast("i")
            if _runs(pid):
                self.do_log(f"can't take over from the keeper (pid {pid}), which did not wait: {error.strerror}")
                self.do_exit(1)
        claim.close()

    def _give(self, text: str, *descriptors: int) -> None:
        assert self._claim is not None
        raw = b"".join(each.to_bytes(4, sys.byteorder) for each in descriptors)
        until = time.monotonic() + GIVE_TIMEOUT
        while True:
            try:
                self._claim.sendmsg([text.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)])
                return
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS or time.monotonic() > until:
                    raise
            time.sleep(0.01)  # too many descriptors are on their way

    def do_keep(self, streams: tuple[tuple[str, int, int | None], ...]) -> None:
        self._output.begin(streams)

    def _store(self, name: str, descriptor: int) -> bool:
        self._handle("stored", name, descriptor)
        return descriptor in self._core.descriptors.get(name, ())

    def do_leave(self) -> None:
        self._output.end()

    def do_taken(self) -> None:
        self._output.reset()

    def do_close(self, descriptors: tuple[int, ...]) -> None:
        self._output.drop(descriptors)
        for each in descriptors:
            if self._strangers.pop(each, None) is not None:
                self._poll.unregister(each)
        self._to_close += descriptors
        if not self._queue:
            for descriptor in self._to_close:
                os.close(descriptor)
            self._to_close.clear()

    # Reports

    def do_log(self, text: str) -> None:
        self._write(text)
        self._watchdog.notify(f"STATUS={text}")

    def _write(self, text: str) -> None:
        line = time.strftime("%Y-%m-%d %H:%M:%S ") + f"keeper: {text}\n"
        writable = select.poll()
        writable.register(2, select.POLLOUT)
        try:
            if writable.poll(0):  # a reader that does not read must not stop us
                os.write(2, line.encode("utf-8", "replace"))
        except OSError:
            pass

    def do_background(self) -> None:
        if self._background:
            self._left = True
            self._leave()

    def do_exit(self, status: int) -> None:
        self._exit = status

    def _leave(self) -> None:
        """Leave the standard streams for the log file or nowhere."""
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        log = (_open_log(self._log_file) if self._log_file else None) or null
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        for descriptor in {null, log} - {0, 1, 2}:
            os.close(descriptor)


class _Output:
    """Moves output from pipes to journals. `log` gets messages, `store` the name and descriptor of a new journal, which
    it may refuse.

    The file position of a journal is the end of its data.
    """

    def __init__(self, poll: select.poll, log: Callable[[str], None], store: Callable[[str, int], bool]) -> None:
        self._poll, self._log, self._store = poll, log, store
        self._journals: dict[int, tuple[str, int | None]] = {}  # name of the stream and its journal, by pipe
        self._moved: dict[str, int] = {}  # bytes that gafferd has not taken, by stream
        self._total = 0
        self._said = False  # that there is a bound

    def begin(self, streams: tuple[tuple[str, int, int | None], ...]) -> None:
        """Begin to move the output of streams: name, pipe, journal. What is no pipe, such as a terminal, waits."""
        for name, pipe, journal in streams:
            if os.fstat(pipe).st_mode & 0o170000 == 0o010000:
                self._journals[pipe] = name, journal
                self._poll.register(pipe, select.POLLIN)
        if self._journals:
            self._log(f"gafferd is away: keeping the output of {len(self._journals)} streams until it is back")

    def end(self) -> None:
        """Leave the pipes alone."""
        self.drop(tuple(self._journals))
        if self._total:
            self._log(f"gafferd is back: it gets {self._total} bytes that were kept")

    def reset(self) -> None:
        """Begin to count again: gafferd has taken what was moved."""
        self._moved.clear()
        self._total, self._said = 0, False

    def drop(self, pipes: Iterable[int]) -> None:
        """Leave these pipes alone, if they are some of ours."""
        for pipe in pipes:
            if self._journals.pop(pipe, None) is not None:
                self._poll.unregister(pipe)

    def move(self, pipe: int, events: int) -> bool:
        """Move what a pipe has; return False if it is not one of ours."""
        if pipe not in self._journals:
            return False
        if not events & select.POLLIN:  # it has ended
            self.drop((pipe,))
            return True
        name, journal = self._journals[pipe]
        moved = self._moved.get(name, 0)
        left = min(MAX_OUTPUT - moved, MAX_OUTPUTS - self._total)
        if left <= 0:
            if not self._said:
                self._log(f"{name} has {moved} bytes, all have {self._total}: what writes more waits for gafferd")
            self._said = True
            self.drop((pipe,))
            return True
        try:
            if journal is None:
                journal = os.memfd_create(f"{name}.journal", os.MFD_CLOEXEC)
                os.lseek(journal, HEADER, os.SEEK_SET)
                if not self._store(f"{name}.journal", journal):
                    self.drop((pipe,))
                    return True
                self._journals[pipe] = name, journal
            size = os.splice(pipe, journal, left, flags=2)  # SPLICE_F_NONBLOCK
        except BlockingIOError:
            return True
        except OSError as error:
            self._log(f"can't keep the output of {name}: {error.strerror}")
            size = 0
        if size == 0:
            self.drop((pipe,))
        self._moved[name] = moved + size
        self._total += size
        return True


class _Watchdog:
    """The service manager's watchdog, which watches the keeper; `due` is when it expects the next message."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        ours = self._address and usec.isdigit() and int(usec) and pid in ("", str(os.getpid()))
        self._interval = int(usec) / 3e6 if ours else None
        self.due: float | None = 0.0 if ours else None

    def beat(self, now: float) -> None:
        """Send a message if one is due."""
        if self.due is not None and self._interval is not None and now >= self.due:
            self.due = now + self._interval
            self.notify("WATCHDOG=1")

    def notify(self, text: str) -> None:
        """Send a message, if there is a service manager."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        except OSError:
            return
        try:
            connection.setblocking(False)
            connection.sendto(text.encode("utf-8", "replace"), address)
        except OSError:
            pass
        finally:
            connection.close()


def _is_removed(descriptor: int) -> bool:
    """Return whether the path of an open file is gone, or leads to another one, as after a lazy umount(8)."""
    try:
        found = os.stat(os.readlink(f"/proc/self/fd/{descriptor}"))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return (found.st_dev, found.st_ino) != (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)


def _address(lock: os.stat_result) -> str:
    """Return where a keeper listens for a gafferd that takes over, given its lock of the state directory."""
    return f"\0gafferd-keeper/{lock.st_dev}/{lock.st_ino}"


def _status(pid: int) -> int | str | None:
    """Return the wait status of our child, which stays a zombie; None if it runs, UNKNOWN if it is not our child."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return UNKNOWN
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return int(found.si_status) << 8
    return int(found.si_status) | (0x80 if found.si_code == os.CLD_DUMPED else 0)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        own = os.getpid()
        return [pid for pid, parent, _, _ in _processes() if parent == own]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _processes() -> Iterable[tuple[int, int, int, str]]:
    """Yield pid, parent, group and state of all processes."""
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        yield pid, int(fields[1]), int(fields[2]), fields[0].decode()


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _read_mark(pid: int) -> str | None:
    """Return the mark in the environment of a process; None if it has none, has exited or can't be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    return next((os.fsdecode(each.removeprefix(prefix)) for each in variables if each.startswith(prefix)), None)


def _groups(pids: Iterable[int]) -> set[int]:
    """Return which of these process groups have living members and are ours, not those of a stranger with the number.

    The leader is our child, perhaps a zombie, or else a member has become our child.
    """
    own, living, ours = os.getpid(), set(), set()
    for pid, parent, group, state in _processes():
        if state not in "ZX":
            living.add(group)
        if parent == own and (pid == group or state not in "ZX"):
            ours.add(group)
    return living & ours & set(pids)


def _lower_oom_score() -> bytes | None:
    """Protect the keeper when memory runs out, if permitted; return the score of its children."""
    try:
        with open("/proc/self/oom_score_adj", "rb") as file:
            before = file.read().strip()
    except OSError:
        return None
    for score in (-1000, 0):  # the first requires privileges
        if score < int(before) and _write_oom_score(os.getpid(), b"%d" % score):
            return before
    return None


def _write_oom_score(pid: int, score: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
            file.write(score)
    except OSError:
        return False
    return True


def _raise_priority(pid: int) -> None:
    """Let a gafferd start before the processes that wait for it, if permitted, until it takes our priority."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, -10)
    except OSError:
        pass


def _open_log(path: str) -> int | None:
    """Open a log file of our own; return None if it is anything else."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o640)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if status.st_mode & 0o170000 == 0o100000 and status.st_uid == os.geteuid() and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    return None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _works(command: list[str]) -> bool:
    """Return whether a command ends well within CHECK_TIMEOUT."""
    try:
        pid = os.posix_spawn(command[0], command, os.environ)
    except OSError:
        return False
    until = time.monotonic() + CHECK_TIMEOUT
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > until:
            os.kill(pid, SIGKILL)
            break
        time.sleep(0.002)
    return os.waitpid(pid, 0)[1] == 0


def _last(status: int) -> int:
    """Block all signals: once the interpreter has removed the handlers, a late one would change the exit status."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    return status


def main() -> int:
    """Run the keeper; return its exit status."""
    if sys.argv[1:] == ["--check"]:
        return 0
    if len(sys.argv) < 6:
        os.write(2, b"usage: keeper.py SOCKET PID foreground|background LOG COMMAND...\n")
        return 2
    descriptor, daemon, mode, log, *command = sys.argv[1:]
    if descriptor == "--table":
        with open(int(daemon), "rb") as file:
            file.seek(0)
            table = file.read().decode()
        return _last(Keeper(-1, 0, mode == "background", log, command, table).run())
    return _last(Keeper(int(descriptor), int(daemon), mode == "background", log, command).run())


if __name__ == "__main__":
    sys.exit(main())
