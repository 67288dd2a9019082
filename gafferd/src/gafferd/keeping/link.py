"""The connection of gafferd to its keeper; `gafferd/keeper.py` describes the messages."""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os
import socket
import stat
import termios
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

from gaffer.errors import GafferError
from gaffer.runtime.activation import PassedSocket

if TYPE_CHECKING:  # a keeper is started before the slow imports
    import asyncio

    from gaffer import Manager
    from gaffer.schemas.bodies import KeeperState

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 8192  # bytes
_MAX_RECORD = 4096  # bytes
_MAX_PASSED = 253
_BATCH = 64  # descriptors of one message
_ANSWER_TIMEOUT = 20.0  # seconds
_CLOSE_TIMEOUT = 2.0  # seconds
_RETRY = 0.05  # seconds until another try when too many descriptors are on their way
_BEATS = 4  # within the time after which the keeper replaces us

HANDOVER = 75
"""The exit status after which the keeper starts gafferd again at once."""

_PASSED, _LISTEN = "passed:", "listen:"


@dataclass(frozen=True)
class KeptChild:
    """A process that an earlier gafferd registered.

    `status` is its wait status, "unknown" if it exited without being seen, or None while it runs, `exited_at` the time
    of time.monotonic() when its exit was seen. The names in `descriptors` are without the id; whoever takes the child
    owns the descriptors.
    """

    os_pid: int
    id: str
    record: str
    status: int | str | None
    exited_at: float | None
    descriptors: dict[str, int]


@dataclass(slots=True)
class _Child:
    """A registered process. `known`: the keeper has heard of it."""

    os_pid: int
    id: str
    timeout: float
    stop: int
    record: str = ""
    status: int | str | None = None
    exited_at: float | None = None
    known: bool = False
    names: set[str] = field(default_factory=set)  # of its descriptors


class _Held(NamedTuple):
    """A descriptor that the keeper has or is to have, and which file it is, None if it was not open."""

    descriptor: int
    file: tuple[int, int, bytes] | None


class _Fact(NamedTuple):
    """Something that the keeper is to be told. `subject` is an id, a name of descriptors, or a message."""

    kind: str
    subject: str


class KeeperLink:
    """The connection to the keeper with the process id `pid`, and what it keeps: processes and descriptors.

    An application: start it with the manager, from when on it shows that the loop is alive, and call `ready` once the
    node listens. `watchdog` is the number of seconds after which the keeper replaces a gafferd that hangs.

    The link knows all that the keeper is to know. What can't be sent now is noted as pending and made into a message
    once the keeper reads again, from what is true then. So a keeper that does not read costs a note for each process
    and name that has changed, nothing is dropped, and nothing waits. The descriptors are those of their owners, who
    close them only after `remove` or `forget`. `on_exit` and `on_lost` are to be set before `start`.

    When the keeper ends, `replace_keeper` is called, which does not return unless that fails: then it returns why.
    """

    def __init__(self, connection: socket.socket, pid: int, watchdog: float) -> None:
        self.pid = pid
        self.handing_over = False
        self.follows_killed = False  # it took the place of a keeper that was killed; known from the dump
        self.on_exit: Callable[[int, int | None, float | None], object] = lambda os_pid, status, exited_at: None
        self.on_lost: Callable[[], object] = lambda: None
        self.replace_keeper: Callable[[], str] = lambda: "it is not to be replaced"
        self._socket = connection
        self._socket.setblocking(False)
        self._watchdog = watchdog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._manager: Manager | None = None
        self._pending: dict[_Fact, None] = {}
        self._waiting_since = time.monotonic()  # when the keeper was last known to have read all
        self._retry: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: str | None = None
        self._serves = self._stopping = False
        self._began = time.monotonic()
        self._last = ""  # how the previous gafferd ended
        self._children: dict[str, _Child] = {}  # by id
        self._by_pid: dict[int, _Child] = {}  # the last one with each pid
        self._held: dict[str, list[_Held]] = {}  # by name
        self._stored: set[str] = set()  # names that the keeper has
        self._left: dict[str, list[int]] = {}  # descriptors of the dump that nobody has taken, by name
        self._dumped = False
        self._say("DUMP=1")

    @property
    def state(self) -> KeeperState:
        """The state of the keeper, as in /health."""
        error = self._error
        if error is None and (waited := self._unread_for()) > self._watchdog:
            changes = f": {len(self._pending)} changes wait" if self._pending else ""
            error = f"the keeper (pid {self.pid}) has not read for {waited:.0f} s{changes}"
        since = time.time() - (time.monotonic() - self._began)
        return {"pid": self.pid, "since": round(since, 3), "error": error}

    @property
    def follows_gafferd(self) -> bool:
        """Whether the keeper has seen another gafferd end; known from the dump."""
        return bool(self._last)

    def _unread_for(self) -> float:
        """Return for how many seconds the keeper has not read what was sent; looked up at each beat, too."""
        if not self._pending and not _is_unread(self._socket):
            self._waiting_since = time.monotonic()
        return time.monotonic() - self._waiting_since

    # Processes

    def children(self) -> list[KeptChild]:
        """Return the processes that an earlier gafferd registered, once; raises GafferError."""
        self._receive_dump()
        return [
            KeptChild(
                child.os_pid,
                child.id,
                child.record,
                child.status,
                child.exited_at,
                {name.partition("/")[2]: self._left.pop(name)[0] for name in sorted(child.names) if name in self._left},
            )
            for child in self._children.values()
            if child.known
        ]

    def register(
        self, os_pid: int, id: str, timeout: float, stop: int, record: str, descriptors: Mapping[str, int]
    ) -> None:
        """Register a process, a leader of its group, with its descriptors; again: change what was said of it.

        Without gafferd the keeper ends it by the signal `stop` and after `timeout` seconds by SIGKILL. `record` is a
        line of ASCII that the next gafferd gets, at most 4096 characters.
        """
        if id in self._children and self._children[id].os_pid == os_pid:
            self.update(os_pid, id, timeout, stop, record)
            for name, descriptor in descriptors.items():
                self.store(id, name, descriptor)
            return
        self.forget(id)
        child = self._children[id] = self._by_pid[os_pid] = _Child(os_pid, id, timeout, stop, record)
        for name, descriptor in descriptors.items():
            self._held[f"{id}/{name}"] = [_held(descriptor)]
            child.names.add(f"{id}/{name}")
        self._tell(_Fact("child", id))

    def update(self, os_pid: int, id: str, timeout: float, stop: int, record: str) -> None:
        """Change what `register` said of a process."""
        child = self._children.get(id)
        if child is None or (child.timeout, child.stop, child.record) == (timeout, stop, record):
            return
        child.timeout, child.stop, child.record = timeout, stop, record
        self._tell(_Fact("child", id))

    def store(self, id: str, name: str, fd: int) -> None:
        """Keep a descriptor of a process, in the place of an earlier one with this name."""
        if (child := self._children.get(id)) is not None:
            child.names.add(f"{id}/{name}")
            self.store_descriptors(f"{id}/{name}", [fd])

    def remove(self, id: str, name: str) -> None:
        """Keep this descriptor of a process no longer."""
        if (child := self._children.get(id)) is not None and f"{id}/{name}" in child.names:
            child.names.discard(f"{id}/{name}")
            self.remove_descriptors(f"{id}/{name}")

    def exited(self, os_pid: int, status: int) -> None:
        """Report that our own child has exited, with its wait status."""
        if (child := self._by_pid.get(os_pid)) is not None:
            child.status, child.exited_at = status, time.monotonic()
            self._tell(_Fact("exit", child.id))

    def acknowledge(self, os_pid: int) -> None:
        """Report that what follows from the exit of a kept process is durable."""
        if (child := self._by_pid.get(os_pid)) is not None and child.status is not None:
            self._tell(_Fact("acknowledged", child.id))

    def reap(self, os_pid: int) -> None:
        """Forget a kept process that has exited: nothing of its group is left."""
        if (child := self._by_pid.get(os_pid)) is not None and child.status is not None:
            self.forget(child.id)

    def forget(self, id: str) -> None:
        """Forget a process and its descriptors: what follows from its exit is durable."""
        child = self._children.pop(id, None)
        if child is None:
            return
        if self._by_pid.get(child.os_pid) is child:
            del self._by_pid[child.os_pid]
        for name in child.names:
            self._held.pop(name, None)
            self._stored.discard(name)
            self._pending.pop(_Fact("descriptors", name), None)
            _close(self._left.pop(name, ()))
        for kind in ("child", "exit", "acknowledged"):
            self._pending.pop(_Fact(kind, id), None)
        if child.known:
            self._tell(_Fact("gone", id))

    # Descriptors by name, those of processes excepted

    def take_descriptors(self, name: str) -> list[int]:
        """Return the descriptors that an earlier gafferd stored, once: they are the caller's; raises GafferError."""
        self._receive_dump()
        return self._left.pop(name, [])

    def names(self, prefix: str) -> list[str]:
        """Return the names of the descriptors that nobody has taken yet; raises GafferError."""
        self._receive_dump()
        return [name for name in self._left if name.startswith(prefix) and "/" not in name]

    def store_descriptors(self, name: str, descriptors: Sequence[int]) -> None:
        """Keep descriptors, in the place of earlier ones with this name."""
        held = [_held(each) for each in descriptors]
        if self._held.get(name) != held:
            self._held[name] = held
            self._tell(_Fact("descriptors", name))

    def remove_descriptors(self, name: str) -> None:
        """Keep the descriptors with this name no longer."""
        _close(self._left.pop(name, ()))
        self._held.pop(name, None)
        if name in self._stored:
            self._tell(_Fact("descriptors", name))
        else:
            self._pending.pop(_Fact("descriptors", name), None)

    # Listening sockets

    def passed(self) -> list[PassedSocket]:
        """Return the sockets that the service manager passed to an earlier gafferd; raises GafferError."""
        return [
            PassedSocket(unquote(name.removeprefix(_PASSED)), socket.socket(fileno=each))
            for name in self.names(_PASSED)
            for each in self.take_descriptors(name)
        ]

    def store_passed(self, passed: Sequence[PassedSocket]) -> None:
        """Keep the sockets that the service manager passed."""
        found: dict[str, list[int]] = {}
        for each in passed:
            found.setdefault(_PASSED + quote(each.name, safe=""), []).append(each.socket.fileno())
        for name, descriptors in found.items():
            self.store_descriptors(name, descriptors)

    def take(self, uri: str) -> list[socket.socket]:
        """Return the sockets that an earlier gafferd opened for an address; raises GafferError."""
        return [socket.socket(fileno=each) for each in self.take_descriptors(_LISTEN + quote(uri, safe=""))]

    def keep(self, uri: str, sockets: Sequence[socket.socket]) -> None:
        """Keep the new sockets of an address."""
        self.store_descriptors(_LISTEN + quote(uri, safe=""), [each.fileno() for each in sockets])

    def close_unused(self) -> None:
        """Close the sockets of addresses that the configuration no longer has."""
        for name in [*self.names(_PASSED), *self.names(_LISTEN)]:
            self.remove_descriptors(name)

    # The dump

    def _receive_dump(self) -> None:
        """Wait until the keeper has sent everything, which also shows that it works."""
        if self._dumped:
            return
        self._dumped = True
        self._socket.settimeout(_ANSWER_TIMEOUT)
        try:
            while not self._take_message(*self._receive_message()):
                pass
        except (OSError, ValueError) as error:
            raise GafferError(
                f"the keeper (pid {self.pid}) does not answer: {error}",
                hint="see its messages, or start gafferd without a keeper",
            ) from None
        self._socket.setblocking(False)
        for name in tuple(self._left):
            owner, slash, _ = name.partition("/")
            if slash and owner in self._children:
                self._children[owner].names.add(name)
            elif slash:
                _close(self._left.pop(name))
                del self._held[name]
                self._stored.discard(name)
                self._tell(_Fact("gone", owner))

    def _receive_message(self) -> tuple[bytes, list[int]]:
        data, descriptors, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE, _MAX_PASSED, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionError("it has ended")
        return data, descriptors

    def _take_message(self, data: bytes, descriptors: list[int]) -> bool:
        """Note what a message of the dump says; return True if it is the last one."""
        names = []
        child: _Child | None = None
        for line in data.decode("ascii", "replace").splitlines():
            word, _, value = line.partition("=")
            if word == "FDNAME":
                names.append(value)
            elif word == "CHILD":
                pid, id, timeout, stop = value.split(" ")
                child = self._children[id] = self._by_pid[int(pid)] = _Child(int(pid), id, float(timeout), int(stop))
                child.known = True
            elif word == "RECORD" and child is not None:
                child.record = value
            elif word == "EXITED":
                pid, _, status = value.partition(" ")
                self._by_pid[int(pid)].status = int(status) if status.isdigit() else status
            elif word == "AT" and child is not None:
                child.exited_at = float(value)
            elif word == "BEGAN":
                self._began = float(value)
            elif word == "LAST":
                self._last = value
            elif word == "KILLED":
                self.follows_killed = True
        for name, descriptor in zip(names, descriptors, strict=True):
            self._left.setdefault(name, []).append(descriptor)
            self._held.setdefault(name, []).append(_held(descriptor))
            self._stored.add(name)
        return data.startswith(b"DUMPED=")

    # The application

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to watch the keeper."""
        self._receive_dump()
        if self._last:
            logger.warning("started again by the keeper (pid %d): %s", self.pid, self._last)
        self._loop, self._manager = loop, manager
        loop.add_reader(self._socket, self._receive)
        self._send_pending()
        self._beat()

    def ready(self) -> None:
        """Report that the node listens."""
        self._serves = True
        self._say(f"READY=1\nWATCHDOG={self._watchdog:g}")

    def beat(self) -> None:
        """Report that this process is alive; call it in between while something blocks the loop, or before it runs."""
        if self._error is None and not self._pending:  # otherwise the keeper is not reading, and will not miss it
            self._try_send(b"BEAT=1", ())

    def quiesce(self) -> None:
        """Report that the node stops, unless another gafferd is to follow, also as this one could not start.

        An essential job may have ended before this gafferd was there.
        """
        status = self._manager.exit_code if self._manager is not None else 0
        if (self._serves or status) and not self.handing_over:
            self._stopping = True
            self._say(f"STOPPING=1\nSTATUS={status & 0xFF}")

    def close(self) -> None:
        """Close the connection; the keeper takes the exit status of this process.

        Waits for at most 2 s for the keeper to read what is pending.
        """
        if self._pending and self._error is None:
            self._socket.settimeout(_CLOSE_TIMEOUT)
            self._send_pending()
        self._disconnect()
        self._socket.close()
        for name in tuple(self._left):
            _close(self._left.pop(name))

    def table(self) -> tuple[str, list[int]]:
        """Return the table for another keeper, see `gafferd/keeper.py`, and the descriptors in it."""
        lines = [f"BEGAN={self._began:.3f}", f"LAST=the keeper (pid {self.pid}) has ended", "KILLED=1"]
        descriptors = []
        for name in tuple(self._held):
            if self._are_open(name):
                descriptors += [each.descriptor for each in self._held[name]]
                lines += [f"FD={each.descriptor} {name}" for each in self._held[name]]
        for child in self._children.values():
            lines += [*_registration(child), *([] if child.status is None else [_exit(child)])]
            lines += [] if child.exited_at is None else [f"AT={child.exited_at:.3f}"]
        return "\n".join(lines) + "\n", descriptors

    def _beat(self) -> None:
        assert self._loop is not None
        if self._error is None:
            self._timer = self._loop.call_later(self._watchdog / _BEATS, self._beat)
            self._unread_for()
            self.beat()

    def _receive(self) -> None:
        reset = False
        while True:
            try:
                data = self._socket.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it ended with unread messages; what it sent follows
                reset = True  # libuv does not call again after an error
                continue
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._take(data)
            if not reset:
                return

    def _take(self, data: bytes) -> None:
        if data.startswith(b"ERR="):
            logger.error("the keeper refused a message: %s", data[4:].decode("ascii", "replace"))
            return
        for line in data.decode("ascii", "replace").splitlines():
            if line.startswith("EXITED="):
                pid, _, status = line.removeprefix("EXITED=").partition(" ")
                self._take_exit(int(pid), int(status) if status.isdigit() else status)

    def _take_exit(self, os_pid: int, status: int | str) -> None:
        """Pass on an exit; the keeper repeats it until it is acknowledged."""
        child = self._by_pid.get(os_pid)
        if child is not None and child.status is None:
            child.status, child.exited_at = status, time.monotonic()
            self.on_exit(os_pid, status if isinstance(status, int) else None, child.exited_at)

    def _lost(self) -> None:
        self._disconnect()
        self._error = f"the keeper (pid {self.pid}) has ended"
        if not self._stopping:
            logger.error("%s: this process takes its place, and another gafferd follows", self._error)
            self._error = f"{self._error} and has no successor: {self.replace_keeper()}"
        logger.error("%s; a gafferd that ends is not started again until you restart it", self._error)
        self.on_lost()

    def _disconnect(self) -> None:
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._pending.clear()

    # Sending

    def _say(self, message: str) -> None:
        self._tell(_Fact("message", message))

    def _tell(self, fact: _Fact) -> None:
        """Tell the keeper, now if it reads."""
        if self._error is None:
            self._pending[fact] = None
            if len(self._pending) == 1:
                self._send_pending(at_once=True)

    def _send_pending(self, *, at_once: bool = False) -> None:
        """Send what the keeper has room for; `at_once` if it became pending now, so that no descriptor was closed."""
        while self._pending:
            fact = next(iter(self._pending))
            lines, names = self._message(fact, at_once)
            at_once = False
            descriptors = [each.descriptor for name in names for each in self._held[name]]
            if not self._try_send("\n".join(lines).encode("ascii", "replace"), descriptors):
                return
            del self._pending[fact]
            self._waiting_since = time.monotonic()
            self._note_sent(fact, names)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_writer(self._socket)

    def _message(self, fact: _Fact, at_once: bool) -> tuple[list[str], list[str]]:
        """Return the lines that tell a fact, and the names of the descriptors to pass."""
        kind, subject = fact
        if kind == "message":
            return [subject], []
        if kind == "gone":
            return [f"GONE={subject}"], []
        if kind == "descriptors":
            names = [subject] if self._are_open(subject, at_once) else []
            lines = ["FDSTOREREMOVE=1"] if subject in self._stored else []
            return [*lines, *(["FDSTORE=1", "FDPOLL=0"] if names else []), f"FDNAME={subject}"], names
        child = self._children[subject]
        if kind == "exit":
            return [_exit(child)], []
        if kind == "acknowledged":
            return [f"ACK={child.os_pid}"], []
        lines = _registration(child)
        names = [] if child.known else [name for name in sorted(child.names)[:_BATCH] if self._are_open(name, at_once)]
        while sum(len(name) + 8 for name in names) > _MAX_MESSAGE - _MAX_RECORD - 256:
            names.pop()  # the others follow
        return [*lines, *(["FDSTORE=1", "FDPOLL=0", *(f"FDNAME={name}" for name in names)] if names else [])], names

    def _note_sent(self, fact: _Fact, names: Sequence[str]) -> None:
        kind, subject = fact
        if kind == "descriptors":
            self._stored.discard(subject)
        self._stored.update(names)
        if kind == "child" and not self._children[subject].known:
            child = self._children[subject]
            child.known = True
            for name in child.names.difference(names):
                self._pending[_Fact("descriptors", name)] = None
            for name in names:
                self._pending.pop(_Fact("descriptors", name), None)

    def _are_open(self, name: str, at_once: bool = False) -> bool:
        """Return whether the descriptors with a name are those that were stored; `at_once` means just now."""
        held = self._held.get(name, [])
        if all(each.file is not None and (at_once or each == _held(each.descriptor)) for each in held):
            return bool(held)
        logger.warning("the keeper can't keep %s: the descriptor was closed", name)
        del self._held[name]
        return False

    def _try_send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Return False if the keeper has no room for the message now; `_send_pending` is called again later."""
        try:
            socket.send_fds(self._socket, [data], descriptors)
        except (BlockingIOError, TimeoutError):
            if self._loop is not None and not self._loop.is_closed():
                self._loop.add_writer(self._socket, self._send_pending)
            return False
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:  # too many descriptors are on their way
                if self._loop is not None and not self._loop.is_closed():
                    self._loop.remove_writer(self._socket)
                    self._retry = self._loop.call_later(_RETRY, self._send_pending)
                return False
            # Otherwise it has ended, which `_receive` reports.
        return True


def _registration(child: _Child) -> list[str]:
    return [f"CHILD={child.os_pid} {child.id} {child.timeout:g} {child.stop}", f"RECORD={child.record}"]


def _exit(child: _Child) -> str:
    return f"EXITED={child.os_pid} {child.status}"


def _held(descriptor: int) -> _Held:
    try:
        found = os.fstat(descriptor)
        pid = b""
        if stat.S_IFMT(found.st_mode) == 0 and not _pidfds_differ():
            with open(f"/proc/self/fdinfo/{descriptor}", "rb") as info:
                pid = next((line for line in info if line.startswith(b"Pid:")), b"")
    except OSError:
        return _Held(descriptor, None)
    return _Held(descriptor, (found.st_dev, found.st_ino, pid))


def _is_unread(connection: socket.socket) -> bool:
    """Return whether the peer has not read all that was sent, ioctl(2) SIOCOUTQ."""
    return any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))


@functools.cache
def _pidfds_differ() -> bool:
    """Return whether each process has an inode of its own for its pidfds, which are all one file before Linux 6.9."""
    inodes = set()
    for pid in (os.getpid(), os.getppid()):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        inodes.add(os.fstat(pidfd).st_ino)
        os.close(pidfd)
    return len(inodes) == 2


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
