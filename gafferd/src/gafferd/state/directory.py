"""The state directory of a node: who it is, and which processes it has."""

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import socket
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from gaffer.errors import BadRequest
from gaffer.jobs.names import parse_job_name
from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gaffer.runtime.trusted_files import UntrustedFile, check_way, find_danger
from gaffer.schemas.messages import node_id
from gafferd.state import documents, leftovers
from gafferd.state.lock import StateDirError, StateLock

__all__ = ["Node", "State", "StateDir", "StateDirError", "default_path"]

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

_ENDED_DELAY = 0.1  # seconds that the end of a process waits to be written


class Node(msgspec.Struct, frozen=True):
    """The identity of a node: `id` stays with host and machine, `incarnation` grows at each start.

    `secret` is what `id` is the hash of and proves that it is the node's own; nodes of earlier versions have none.
    Raises ValueError when the two don't belong together.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    incarnation: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    hostname: str
    machine_id: str
    secret: str = ""

    def __post_init__(self) -> None:
        if self.secret and node_id(self.secret) != self.id:
            raise ValueError("`id` is not the hash of `secret`")

    @property
    def mark(self) -> str:
        """How the cookies of the processes of this start begin. Nobody can make it up without `secret`."""
        start = f"{self.id}:{self.incarnation}"
        return f"{start}:{self._proof(start)}"

    def made(self, cookie: str) -> bool:
        """Whether any start of this node made the cookie; any user can put anything into an environment."""
        if not self.secret:
            return cookie.startswith(f"{self.id}:")
        node_id, incarnation, proof = [*cookie.split(":"), "", "", ""][:3]
        return node_id == self.id and hmac.compare_digest(
            proof.encode(), self._proof(f"{node_id}:{incarnation}").encode()
        )

    def _proof(self, start: str) -> str:
        return hmac.new(self.secret.encode(), start.encode(), hashlib.sha256).hexdigest()[:32]


class State(msgspec.Struct, frozen=True):
    """The processes of a node."""

    processes: list[ProcessRecord]


class _StoredState(State, frozen=True):
    """What was read from a file. Raises ValueError for a bad job name and for a process that is in it twice."""

    def __post_init__(self) -> None:
        for record in self.processes:
            try:
                parse_job_name(record.job)
            except BadRequest as error:
                raise ValueError(error.message) from None
        if len({record.os_pid for record in self.processes}) < len(self.processes):
            raise ValueError("a process is recorded twice")


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
    `keys.json` and `logs/`. `node` is who it is from now on; in a copy of another directory that is a new one.
    """

    def __init__(self, path: Path, lock: StateLock) -> None:
        self.path = path
        self.detached: list[ProcessRecord] = []
        self._lock = lock
        self._nodes: list[Node] = []  # this one, and the one that it was before its id changed
        self._records: dict[int, ProcessRecord] = {}
        self._dirty = False  # there is something to write
        self._soon = False  # ... and it is not to wait
        self._write_seconds = 0.0
        self._failing = False
        self._node_file = documents.Document(path / "node.json", Node)
        self._state_file = documents.Document[State](path / "state.json", _StoredState)
        last = _load(self._node_file)
        state = _load(self._state_file, lost=None if lock.same_boot else State([]))
        copied = (last is not None or state is not None) and not lock.original
        if copied:
            self._refuse_to_share(state)
        self._left = None if copied else state
        self.node = self._next_node(last, copied)
        if copied or state is None:
            self._save_state(State([]))
        lock.mark()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "StateDir":
        """Make the directory when it is missing, lock it and begin a new incarnation of the node.

        Raises StateDirError when another gafferd holds it, when others than we may have put something into it, when its
        files are damaged so that nobody knows what still runs, and when it can't be used.
        """
        directory = Path(path).absolute()
        try:
            directory = _prepare(directory)
            lock = StateLock(directory)
            try:
                return cls(directory, lock)
            except BaseException:
                lock.close()
                raise
        except OSError as error:
            raise StateDirError(
                f"can't use the state directory {directory}: {error.strerror}",
                hint="give --state-dir a directory that this user may write to",
            ) from None
        except UntrustedFile as error:
            raise StateDirError(error.message, hint=error.hint) from None

    @property
    def socket_path(self) -> Path:
        """Where local clients connect."""
        return self.path / "gafferd.sock"

    def close(self) -> None:
        """Write what is pending and let go of the lock."""
        self._write()
        self._lock.close()

    def advance(self, incarnation: int) -> None:
        """Store a later incarnation of the running node; raises OSError."""
        self.node = msgspec.structs.replace(self.node, incarnation=incarnation)
        self._node_file.save(self.node, sync=True)

    # The recorder

    def spawned(self, record: ProcessRecord) -> None:
        """A process was started, or one that was detached is watched again; called on the loop."""
        self._records[record.pid] = record
        self.detached = [kept for kept in self.detached if kept.os_pid != record.os_pid]
        if record.detach:
            self._dirty = True
            self._write()  # at once: without its record the next gafferd would take it for a leftover
        else:
            self._write_soon()

    def ended(self, pid: int) -> None:
        """The process with the internal id `pid` is gone; called on the loop."""
        if self._records.pop(pid, None) is not None and not self._dirty:
            # Its record does no harm meanwhile: readers check that the process is the recorded one.
            self._dirty = True
            self._write_in(_ENDED_DELAY)

    # Leftovers

    def end_leftovers(self) -> int:
        """End what an earlier gafferd on this directory left alive; return how many processes that were.

        Blocks until they are gone, as long as the longest graceful timeout. Detached processes live on, and so do
        those that became another user, which this one is not permitted to end: their jobs watch them again.
        Raises leftovers.LeftoverError when one can't be ended.
        """
        boot_id = procfs.boot_id()
        records = [r for r in self._left.processes if r.boot_id == boot_id] if self._left is not None else []
        self._refuse_the_unknown({record.cookie for record in records})
        self.detached = [record for record in records if record.detach and leftovers.is_alive(record)]
        spare = {record.cookie for record in self.detached}
        ended, refused = leftovers.end_leftovers([r for r in records if not r.detach], self._made, spare)
        self.detached += refused
        self._dirty = True
        self._write()
        return ended

    def _refuse_to_share(self, state: State | None) -> None:
        """Leave the processes of the directory of which this is a copy to their gafferd; raise when none has them."""
        boot_id = procfs.boot_id()
        alive = [r for r in state.processes if r.boot_id == boot_id and leftovers.is_alive(r)] if state else []
        if not alive:
            return
        pids = ", ".join(str(record.os_pid) for record in alive)
        if not self._lock.last_runs:
            raise StateDirError(
                f"{self.path} is a copy of another state directory, or its lock was removed,"
                f" and processes that it records still run: {pids}",
                hint="start gafferd on the other one; or end them; or remove state.json and state.json.copy here, and"
                " they are left alone",
            )
        logger.warning("processes that this copy of a state directory records are left to their gafferd: %s", pids)

    def _made(self, cookie: str) -> bool:
        return any(node.made(cookie) for node in self._nodes)

    def _refuse_the_unknown(self, known: Collection[str]) -> None:
        """Raise when processes may be detached, and no record of the cookies `known` says of which job."""
        marked = [each for each in leftovers.find_marked(self._made) if each.cookie not in known]
        if lost := [each.pid for each in marked if each.detached or self._left is None]:
            pids = ", ".join(map(str, lost))
            raise StateDirError(
                f"processes of this node run that {self.path / 'state.json'} should record: {pids}",
                hint="the file is missing or an older one: restore it, or end them, then start gafferd again",
            )

    # Files

    def _next_node(self, last: Node | None, copied: bool) -> Node:
        hostname, machine_id = socket.gethostname(), _machine_id()
        at_home = last is not None and not copied and (last.hostname, last.machine_id) == (hostname, machine_id)
        if last is not None and at_home and last.secret:
            node = msgspec.structs.replace(last, incarnation=last.incarnation + 1)
        else:
            if copied:
                logger.warning("this state directory is a copy of another one: the node gets a new id")
            elif last is not None:
                if at_home:
                    logger.warning("the id of this node can't be proved, as lookupds now want it: it gets a new one")
                else:
                    logger.warning("this state directory comes from %s: the node gets a new id", last.hostname)
                self._nodes.append(last)
            secret = secrets.token_hex(32)
            node = Node(node_id(secret), 1, hostname, machine_id, secret)
        self._nodes.append(node)
        try:
            self._node_file.save(node, sync=True)
        except OSError as error:
            if node.incarnation == 1:
                raise
            # A host that is out of space needs its jobs all the more.
            logger.error("can't write %s: %s", self.path / "node.json", error.strerror)
        return node

    def _write_soon(self) -> None:
        """Write at the end of this turn of the loop."""
        if not self._soon:
            self._soon = self._dirty = True
            self._write_in(0.0)

    def _write_in(self, delay: float) -> None:
        """Write after `delay` seconds; later when writing would take over a tenth of the time."""
        asyncio.get_running_loop().call_later(max(delay, min(10 * self._write_seconds, 1.0)), self._write)

    def _write(self) -> None:
        if not self._dirty:
            return
        self._dirty = self._soon = False
        begin = time.monotonic()
        try:
            self._save_state(State([*self.detached, *self._records.values()]))
        except OSError as error:
            if not self._failing:
                logger.error("can't write %s: %s", self.path / "state.json", error.strerror)
            self._failing = True
        else:
            self._failing = False
        self._write_seconds = time.monotonic() - begin

    def _save_state(self, state: State) -> None:
        # No fsync: the records mean nothing after the host went down.
        self._state_file.save(state, sync=False)


def _load(document: documents.Document[T], lost: T | None = None) -> T | None:
    """A document, None when there is none, and `lost` when it and its copy are damaged.

    Raises StateDirError when it can't be trusted or read, and for a damaged one without `lost`.
    """
    try:
        return document.load_either()
    except UntrustedFile as error:
        raise StateDirError(error.message, hint="check what it is and who made it, then remove it") from None
    except documents.NewerFile as error:
        raise StateDirError(error.message, hint=error.hint) from None
    except documents.DamagedFile as error:
        if lost is not None:
            logger.error("%s: going on without it, for the host was started again since", error.message)
            return lost
        raise StateDirError(
            f"{error.message}, and {document.copy.name} is no better",
            hint=f"restore {document.path.name}; or make sure that nothing of this node runs, then remove both files",
        ) from None


def _prepare(directory: Path) -> Path:
    """Make the directory, closed to others; return its path without links.

    Raises OSError, UntrustedFile, and StateDirError when others may have put something into it.
    """
    for parent in reversed(directory.parents):
        if not parent.exists():
            parent.mkdir(mode=0o755)  # whatever our umask is
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise StateDirError(f"the state directory {directory} is a file") from None
    directory = check_way(directory, follow=True)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise StateDirError(
            f"the state directory {directory} belongs to uid {status.st_uid}, not to this user",
            hint="give another --state-dir",
        )
    if status.st_mode & 0o077:
        empty = not any(directory.iterdir())
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not empty:
            raise StateDirError(
                f"other users may write to the state directory {directory}: what is in it may be theirs",
                hint="check what it holds, then chmod 700 it; or give another --state-dir",
            )
        # Closing a directory that others use, such as /tmp, would do harm.
        if not empty and not (directory / "node.json").exists():
            raise StateDirError(
                f"the state directory {directory} holds other files and is open to other users",
                hint="give --state-dir a directory of its own, or chmod 700 it",
            )
        directory.chmod(0o700)
        if empty and any(directory.iterdir()):
            raise StateDirError(f"another user has just put something into the state directory {directory}")
    _check_logs(directory / "logs")
    return directory


def _check_logs(path: Path) -> None:
    try:
        status = check_way(path, follow=True).stat()
    except FileNotFoundError:
        return
    danger = find_danger(status, os.geteuid()) if stat.S_ISDIR(status.st_mode) else "it is not a directory"
    if danger:
        raise StateDirError(f"{path} is not trusted: {danger}", hint="check what it holds, then move it away")
