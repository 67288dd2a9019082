"""Taking over from a gafferd whose keeper was killed: `gafferd/keeper.py` describes the messages.

Whoever started that keeper has lost it, be it a user or a program that restarts it: to start gafferd again is all that
they can do. The one that they start gets all that is kept, and its processes go on as after a crash of gafferd.
"""

import contextlib
import logging
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from gaffer.processes import procfs
from gaffer.processes.procfs import Stat
from gaffer.runtime.activation import PassedSocket
from gafferd.keeping.starting import Program, write_past_tostop

logger = logging.getLogger(__name__)

_UCRED = struct.Struct("iII")  # pid, uid, gid, see unix(7)
_MAX_MESSAGE = 1 << 18  # bytes: 64 names
_MAX_PASSED = 253
_TIMEOUT = 20.0  # seconds for each message
_PATIENCE = 2.0  # seconds until a gafferd has taken the place of its keeper
_INTERVAL = 0.02  # seconds
_SPARE = 64  # descriptors besides those that are kept


def take_over(
    path: Path,
    find_owner: Callable[[int], Stat | None],
    program: Program,
    passed: Sequence[PassedSocket],
    check: Callable[[], object],
    leave: Callable[[], None],
) -> None:
    """Become the keeper of what runs with a state directory, if the keeper of that was killed; otherwise return.

    `path` is that of the lock, `find_owner` returns the running gafferd that it names, given its descriptor. `program`
    is how to run the keeper, `passed` are the sockets that our service manager passed. `check` is called before
    anything is changed and raises an error if a gafferd of these settings can't start, `leave` before this process
    becomes the keeper. Call it before there are threads, locks or a loop.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        connection = _connect(lock, find_owner)
        if connection is not None:
            connection.close()  # it does not wait for the check
            check()
            connection = _connect(lock, find_owner)
    finally:
        os.close(lock)
    if connection is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held: list[tuple[str, int]] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with contextlib.closing(connection):
            connection.send(b"CLAIM")
            for name, descriptor in _receive(connection):
                held.append((name, descriptor))
            if hard != resource.RLIM_INFINITY and len(held) + _SPARE > hard:
                raise OSError(f"the limit of open files is {hard}, and {len(held)} are kept")
            table = f"CLAIM={connection.fileno()}\n{_table(held, passed)}"
            descriptors = [*(each for _, each in held), *(each.socket.fileno() for each in passed)]
            file = program.write_table(table, [*descriptors, connection.fileno()])
            write_past_tostop()
            leave()
            program.execute("--table", file)
    except OSError as error:
        logger.warning("can't take over from the gafferd that holds %s: %s", path, error)
    for _, descriptor in held:
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connect(lock: int, find_owner: Callable[[int], Stat | None]) -> socket.socket | None:
    """Connect to the keeper that waits to be taken over, perhaps soon; return None if there is none."""
    found = os.fstat(lock)
    until = time.monotonic() + _PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(f"\0gafferd-keeper/{found.st_dev}/{found.st_ino}")
            pid, user, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            if pid and user == os.geteuid():  # 0: of another pid namespace, whose processes are not to be seen here
                return connection
        except OSError:
            pass
        connection.close()
        owner = find_owner(lock)
        if owner is None or _has_keeper(owner) or time.monotonic() > until:
            return None
        time.sleep(_INTERVAL)


def _has_keeper(gafferd: Stat) -> bool:
    """Return whether the parent is a keeper; without one, a gafferd may be about to become the keeper."""
    return (procfs.read(f"/proc/{gafferd.ppid}/comm") or b"").strip() == b"gaffer-keeper"


def _receive(connection: socket.socket) -> Iterator[tuple[str, int]]:
    """Yield names and descriptors, the last being `TABLE`; raise OSError."""
    while True:
        data, descriptors, flags, _ = socket.recv_fds(connection, _MAX_MESSAGE, _MAX_PASSED, socket.MSG_CMSG_CLOEXEC)
        names = data.decode("utf-8", "replace").split("\n")
        if not data or len(names) != len(descriptors) or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            for each in descriptors:
                os.close(each)
            raise ConnectionError("its keeper did not give everything")
        yield from zip(names, descriptors, strict=True)
        if names == ["TABLE"]:
            return


def _table(held: list[tuple[str, int]], passed: Sequence[PassedSocket]) -> str:
    """Return the table of the keeper with our numbers of the descriptors, without what is true of that keeper alone.

    Sockets of our service manager take the place of those that the keeper has.
    """
    _, file = held.pop()
    with open(file, "rb") as reader:
        reader.seek(0)
        lines = reader.read().decode().splitlines()
    if passed:
        for each in [each for each in held if each[0].startswith("passed:")]:
            held.remove(each)
            os.close(each[1])
    lines = [line for line in lines if not line.startswith(("FD=", "KILLED=", "BEGAN=", "LAST="))]
    lines.append("LAST=it took over from a gafferd whose keeper was killed")
    lines += [f"FD={descriptor} {name}" for name, descriptor in held]
    lines += [f"FD={each.socket.fileno()} passed:{quote(each.name, safe='')}" for each in passed]
    return "\n".join(lines) + "\n"
