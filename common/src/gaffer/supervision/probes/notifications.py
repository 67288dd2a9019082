"""The receiver of the messages of sd_notify(3): one socket for all processes, senders identified by the kernel."""

import array
import asyncio
import contextlib
import logging
import os
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from gaffer.processes import procfs
from gaffer.processes.sockets import SocketKeeper

log = logging.getLogger("gaffer.supervision.probes")

MAX_MESSAGE = 4096  # bytes, as in systemd
_MAX_DESCRIPTORS = 253  # in one message, the maximum of the kernel
_UCRED = struct.Struct("=iII")  # pid, uid, gid
_BATCH = 32  # messages, after which the loop goes on
_MAX_DEPTH = 64  # ancestors of a sender that are looked at
_EARLY = 64  # messages of processes that are not expected yet
_KEPT_AS = "notify"
_EARLY_TIMEOUT = 5.0  # seconds that such a message is kept

Fields: TypeAlias = Mapping[str, str]


class _Early(NamedTuple):
    at: float
    kin: frozenset[int]
    fields: Fields


class Notifications:
    """Receives messages while a process expects them. Those of other processes are ignored.

    A message counts for the process whose leader sent it, or an ancestor or the group leader of the sender is. The
    sender must exist when its message is read, as one that waits for a barrier (sd_notify_barrier(3)) does.

    With a `keeper`, the socket of an earlier manager stays in use, with the messages that have arrived in between: the
    processes that it started know no other address.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: SocketKeeper | None = None) -> None:
        self._loop = loop
        self._keeper = keeper
        self._socket: socket.socket | None = None
        self._address = ""
        self._expected: dict[int, list[Callable[[Fields], Any]]] = {}  # by the OS pid of the leader
        self._early: deque[_Early] = deque(maxlen=_EARLY)
        claimed = keeper.claim(_KEPT_AS) if keeper is not None else None
        if claimed is not None:
            self._use(socket.socket(fileno=claimed))

    @property
    def address(self) -> str:
        """The value of NOTIFY_SOCKET, an abstract address with a random name. Raises OSError."""
        if self._socket is None:
            self._open()
        return self._address

    def expect(self, os_pid: int, received: Callable[[Fields], Any]) -> None:
        """Call `received(fields)` for each message of the tree of `os_pid`, also those of the last seconds."""
        self._expected.setdefault(os_pid, []).append(received)
        early = [each for each in self._early if os_pid in each.kin]
        for each in early:
            self._early.remove(each)
        for each in early:
            if self._loop.time() - each.at < _EARLY_TIMEOUT:
                self._pass_on(os_pid, each.fields)

    def ignore(self, os_pid: int, received: Callable[[Fields], Any]) -> None:
        """Undo `expect`; unknown ones are ignored."""
        left = [each for each in self._expected.pop(os_pid, ()) if each != received]
        if left:
            self._expected[os_pid] = left

    def close(self) -> None:
        """Close the socket."""
        self._expected.clear()
        self._early.clear()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        name = f"gaffer-notify-{secrets.token_hex(16)}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            sock.bind(f"\0{name}")
        except BaseException:
            sock.close()
            raise
        self._use(sock)
        if self._keeper is not None:
            self._keeper.keep(_KEPT_AS, sock.fileno())

    def _use(self, sock: socket.socket) -> None:
        self._socket = sock
        self._address = "@" + os.fsdecode(sock.getsockname()[1:])
        self._loop.add_reader(sock, self._receive)

    def _receive(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                sender, data = _read(self._socket)
            except OSError:  # nothing is left
                return
            if sender is not None and data:
                self._deliver(sender, _parse(data))

    def _deliver(self, sender: int, fields: Fields) -> None:
        kin = _kin(sender)
        if not kin:
            log.info("ignored a notification of process %d, which has exited: its job is unknown", sender)
            return
        for os_pid in kin:
            if os_pid in self._expected:
                self._pass_on(os_pid, fields)
                return
        self._early.append(_Early(self._loop.time(), frozenset(kin), fields))

    def _pass_on(self, os_pid: int, fields: Fields) -> None:
        for received in tuple(self._expected.get(os_pid, ())):
            received(fields)


def _read(sock: socket.socket) -> tuple[int | None, bytes]:
    """Return the pid of the sender, None if unknown, and the message, empty if it is too long.

    Descriptors in it are closed: the barrier of a sender that waits until its messages were read.
    """
    room = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    sender = None
    for level, kind, content in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            sender = _UCRED.unpack(content)[0] or None
        elif kind == socket.SCM_RIGHTS:
            descriptors = array.array("i")
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
    return sender, b"" if flags & socket.MSG_TRUNC else data


def _parse(data: bytes) -> Fields:
    pairs = (line.partition("=") for line in data.decode(errors="replace").split("\n"))
    return {name: value for name, equals, value in pairs if equals}


def _kin(pid: int) -> list[int]:
    """Return `pid` and its ancestors up to this process, with the leaders of their groups, nearest first.

    Empty if the process does not exist.
    """
    found: dict[int, None] = {}
    ours = os.getpid()
    for _ in range(_MAX_DEPTH):
        stat = procfs.read_stat(pid) if pid > 1 and pid != ours else None
        if stat is None:
            break
        found[pid] = found[stat.pgrp] = None
        pid = stat.ppid
    return list(found)
