"""The state directory of a node: who it is, which processes it has, and the lock that keeps it to one gafferd."""

import asyncio
import fcntl
import logging
import os
import secrets
import socket
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from gaffer import procfs
from gaffer.errors import GafferError
from gaffer.process import ProcessRecord
from gafferd import leftovers
from gafferd.files import replace_file

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StateDirError(GafferError):
    """The state directory can't be used."""

    reason = "state_dir"


class Node(msgspec.Struct, frozen=True):
    """The identity of a node: `id` stays with host and machine, `incarnation` grows at each start."""

    id: str
    incarnation: int
    hostname: str
    machine_id: str


class State(msgspec.Struct, frozen=True):
    """The processes of a node."""

    processes: list[ProcessRecord]


def default_path(root: bool, home: Path, xdg_state_home: str | None) -> Path:
    """Where the state directory is when nothing is said."""
    if root:
        return Path("/var/lib/gaffer")
    base = Path(xdg_state_home) if xdg_state_home else home / ".local/state"
    return base / "gaffer"


def _machine_id() -> str:
    return _read_line("/etc/machine-id") or _read_line("/var/lib/dbus/machine-id")


def _read_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


class StateDir:
    """An open state directory; it also is the manager's recorder of processes.

    Make one with `open` and `close` it. `path` holds `lock`, `node.json`, `state.json`, and room for `gafferd.sock`,
    `keys.json` and `logs/`.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._node_ids: set[str] = set()
        self._records: dict[int, ProcessRecord] = {}
        self.detached: list[ProcessRecord] = []
        self._dirty = False
        self._write_seconds = 0.0
        self._failing = False
        self.node = self._next_node()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "StateDir":
        """Make the directory when it is missing, lock it and begin a new incarnation of the node.

        Raises StateDirError when another gafferd holds it or it can't be used.
        """
        directory = Path(path).absolute()
        try:
            _prepare(directory)
            lock = _take_lock(directory)
            try:
                return cls(directory, lock)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise StateDirError(
                f"can't use the state directory {directory}: {error.strerror}",
                hint="give --state-dir a directory that this user may write to",
            ) from None

    @property
    def socket_path(self) -> Path:
        """Where local clients connect."""
        return self.path / "gafferd.sock"

    def close(self) -> None:
        """Write what is pending and let go of the lock."""
        self._write()
        os.close(self._lock)

    # The recorder

    def spawned(self, record: ProcessRecord) -> None:
        """A process was started, or one that was detached is watched again; called on the loop."""
        self._records[record.pid] = record
        self.detached = [kept for kept in self.detached if kept.os_pid != record.os_pid]
        self._write_soon()

    def ended(self, pid: int) -> None:
        """The process with the internal id `pid` is gone; called on the loop."""
        if self._records.pop(pid, None) is not None:
            self._write_soon()

    # Leftovers

    def end_leftovers(self) -> int:
        """End what an earlier gafferd on this directory left alive; return how many processes that were.

        Blocks until they are gone, as long as the longest graceful timeout. Detached processes live on, and so do
        those that became another user, which this one is not permitted to end: their jobs watch them again.
        Raises leftovers.LeftoverError when one can't be ended.
        """
        state = self._read("state.json", State)
        boot_id = procfs.boot_id()
        records = [r for r in state.processes if r.boot_id == boot_id] if state is not None else []
        self.detached = [record for record in records if record.detach and leftovers.is_alive(record)]
        spare = {record.cookie for record in self.detached}
        ended, refused = leftovers.end_leftovers([r for r in records if not r.detach], self._node_ids, spare)
        self.detached += refused
        self._dirty = True
        self._write()
        return ended

    # Files

    def _next_node(self) -> Node:
        last = self._read("node.json", Node)
        hostname, machine_id = socket.gethostname(), _machine_id()
        if last is not None and (last.hostname, last.machine_id) == (hostname, machine_id):
            node = Node(last.id, last.incarnation + 1, hostname, machine_id)
        else:
            if last is not None:
                logger.warning("this state directory comes from %s: the node gets a new id", last.hostname)
                self._node_ids.add(last.id)
            node = Node(secrets.token_hex(16), 1, hostname, machine_id)
        self._node_ids.add(node.id)
        replace_file(self.path / "node.json", msgspec.json.encode(node), sync=True)
        return node

    def _read(self, name: str, kind: type[T]) -> T | None:
        """The content of a file; None, and a line in the log, when it is damaged."""
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.error("%s is damaged (%s): going on without it", self.path / name, error)
            return None

    def _write_soon(self) -> None:
        """Write at the end of this turn of the loop; later when writing would take over a tenth of the time."""
        if not self._dirty:
            self._dirty = True
            asyncio.get_running_loop().call_later(min(10 * self._write_seconds, 1.0), self._write)

    def _write(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        begin = time.monotonic()
        state = State([*self.detached, *self._records.values()])
        try:
            # No fsync: the records mean nothing after the host went down.
            replace_file(self.path / "state.json", msgspec.json.encode(state), sync=False)
        except OSError as error:
            if not self._failing:
                logger.error("can't write %s: %s", self.path / "state.json", error.strerror)
            self._failing = True
        else:
            self._failing = False
        self._write_seconds = time.monotonic() - begin


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise StateDirError(f"the state directory {directory} is a file") from None
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise StateDirError(
            f"the state directory {directory} belongs to uid {status.st_uid}, not to this user",
            hint="give another --state-dir",
        )
    if status.st_mode & 0o077:
        # Closing a directory that others use, such as /tmp, would do harm.
        if any(directory.iterdir()) and not (directory / "node.json").exists():
            raise StateDirError(
                f"the state directory {directory} holds other files and is open to other users",
                hint="give --state-dir a directory of its own, or chmod 700 it",
            )
        directory.chmod(0o700)


def _take_lock(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        who = f"another gafferd (pid {holder})" if holder else "another gafferd"
        raise StateDirError(
            f"{who} uses the state directory {directory}",
            hint="stop it, or give this one its own --state-dir",
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
