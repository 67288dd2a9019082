"""The state directory of a node: its identity and its processes."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from gaffer.errors import BadRequest
from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.failures import Failures
from gaffer.jobs.names import parse_job_name
from gaffer.jobs.recorder import Recorder
from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gaffer.runtime.trusted_files import UntrustedFile, check_way, find_danger
from gaffer.schemas.messages import node_id
from gafferd.state import documents, jobs_file, leftovers
from gafferd.state.jobs_file import JobsFile
from gafferd.state.lock import StateDirError, StateLock
from gafferd.state.past import PastFile

__all__ = ["Node", "State", "StateDir", "StateDirError", "default_path", "lock_directory"]

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

_ENDED_DELAY = 0.1  # seconds before the end of a process is written


class Node(msgspec.Struct, frozen=True):
    """The identity of a node: `id` is bound to host name and machine id, `incarnation` grows at each start.

    `id` is the hash of `secret`, which proves the identity; nodes of earlier versions have no secret. Raises ValueError
    if the two don't match.
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
        """The prefix of the process cookies of this start. It can't be forged without `secret`."""
        start = f"{self.id}:{self.incarnation}"
        return f"{start}:{self._proof(start)}"

    def made(self, cookie: str) -> bool:
        """Return whether any start of this node made the cookie; users can forge environments, but not the proof."""
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


class _Format1(msgspec.Struct, frozen=True):
    """The content of `state.json` in format 1: what `processes.json` has now."""

    processes: list[ProcessRecord] = []


class _StoredState(State, frozen=True):
    """The state read from a file. Raises ValueError for an invalid job name or a duplicate process."""

    def __post_init__(self) -> None:
        for record in self.processes:
            try:
                parse_job_name(record.job)
            except BadRequest as error:
                raise ValueError(error.message) from None
        if len({record.os_pid for record in self.processes}) < len(self.processes):
            raise ValueError("a process is recorded twice")


def default_path(root: bool, home: Path, xdg_state_home: str | None) -> Path:
    """Return the default path of the state directory."""
    if root:
        return Path("/var/lib/gaffer")
    base = Path(xdg_state_home) if xdg_state_home else home / ".local/state"
    return base / "gaffer"


def lock_directory(path: str | os.PathLike[str], keeper: int | None = None, kept: Sequence[int] = ()) -> StateLock:
    """Create the state directory at `path` if it is missing, and lock it; nothing else in it is changed.

    `keeper` is the process id of our keeper, `kept` the descriptors of the lock that it held.

    Raises StateDirError if another gafferd uses the directory, if other users may have changed it, or if it is not
    usable.
    """
    directory = Path(path).absolute()
    with _explained(directory):
        return StateLock(_prepare(directory), keeper, kept)


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Raise StateDirError for errors of the file system."""
    try:
        yield
    except OSError as error:
        raise StateDirError(
            f"can't use the state directory {directory}: {error.strerror}",
            hint="use a --state-dir that this user can write to",
        ) from None
    except UntrustedFile as error:
        raise StateDirError(error.message, hint=error.hint) from None


def _machine_id() -> str:
    return _read_line("/etc/machine-id") or _read_line("/var/lib/dbus/machine-id")


def _read_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


class StateDir(Recorder):
    """An open state directory, which is also the process recorder of the manager.

    Create one with `open` and `close` it. `path` contains `lock`, `node.json`, `processes.json`, and also `state.json`,
    `gafferd.sock`, `keys.json` and `logs/`. `node` is the identity for this run, a new one in a copy of another
    directory; `jobs` is the file with what is desired of the jobs, `past` what is known of their earlier processes.
    """

    def __init__(self, path: Path, lock: StateLock) -> None:
        self.path = path
        self.detached: list[ProcessRecord] = []
        self.orphans: list[ProcessRecord] = []
        self._spared: list[ProcessRecord] = []
        self._lost: list[ProcessRecord] = []
        self._lock = lock
        self._nodes: list[Node] = []  # this one, and the one before its id changed
        self._records: dict[int, ProcessRecord] = {}
        self._dirty = False  # changes are waiting to be written
        self._soon = False  # ... without delay
        self._write_seconds = 0.0
        self._failing = False
        self._node_file = documents.Document(path / "node.json", Node)
        self._state_file = documents.Document[State](path / "processes.json", _StoredState)
        self._past_file = PastFile(path)
        self.past = self._past_file.load()
        last = _load(self._node_file)
        state = _load(self._state_file, lost=None if lock.same_boot else State([]))
        if state is None:
            state = _load_format_1(path)
        copied = (last is not None or state is not None) and not lock.original
        if copied:
            self._refuse_to_share(state)
        self._left = None if copied else state
        # The jobs of a copy run elsewhere as long as the original does.
        self.jobs = JobsFile(path, discard=copied and lock.last_runs, check=lock.check)
        self.node = self._next_node(last, copied)
        if copied or state is None:
            self._save_state(State([]))
        lock.mark()

    @classmethod
    def open(cls, path: str | os.PathLike[str], lock: StateLock | None = None) -> "StateDir":
        """Start a new incarnation of the node in the directory, whose lock is `lock` or acquired here.

        Raises StateDirError like `lock_directory`, and if its files are so damaged that running processes can't be
        determined.
        """
        lock = lock or lock_directory(path)
        try:
            with _explained(lock.directory):
                return cls(lock.directory, lock)
        except BaseException:
            lock.close()
            raise

    @property
    def socket_path(self) -> Path:
        """The path of the socket for local clients."""
        return self.path / "gafferd.sock"

    def close(self) -> None:
        """Write pending changes and release the lock."""
        self._write()
        self._past_file.close()
        self._lock.close()

    def advance(self, incarnation: int) -> None:
        """Store a later incarnation of the running node; raise OSError."""
        self.node = msgspec.structs.replace(self.node, incarnation=incarnation)
        self._node_file.save(self.node, sync=True)

    # The recorder

    def spawned(self, record: ProcessRecord) -> None:
        """Record a process that was started, or a detached one that is watched again; called on the loop."""
        self._records[record.pid] = record
        for left in (self.detached, self.orphans, self._spared):
            left[:] = [each for each in left if each.os_pid != record.os_pid]
        if record.detach:
            self._dirty = True
            self._write()  # immediately: without its record the next gafferd would treat it as a leftover
        else:
            self._write_soon()

    def ended(self, pid: int) -> None:
        """Record the end of the process with Gaffer's pid `pid`; called on the loop."""
        if self._records.pop(pid, None) is not None and not self._dirty:
            # A stale record is harmless: readers verify that the process is the recorded one.
            self._dirty = True
            self._write_in(_ENDED_DELAY)

    def exited(self, job: str, exits: Iterable[ExitRecord], restarts: int, failures: Failures | None) -> None:
        """Record the last exits of a job, the number of its restarts and its failures; called on the loop."""
        self._past_file.exited(job, exits, restarts, failures)

    def unloaded(self, job: str) -> None:
        """Forget the exits and the restarts of a job; called on the loop."""
        self._past_file.forget(job)

    def ran(self, job: str, at: float) -> None:
        """Record a scheduled run; called on the loop."""
        self._past_file.ran(job, at)

    def armed(self, job: str, at: float) -> None:
        """Record from when the runs of a job are counted; called on the loop."""
        self._past_file.armed(job, at)

    def when_stored(self, callback: Callable[[], object]) -> None:
        """Call `callback()` on the loop once all exits that were recorded so far are in their file."""
        self._past_file.when_stored(callback)

    # Leftovers

    def end_leftovers(
        self,
        spare_pids: Collection[int] = (),
        spare_cookies: Collection[str] = (),
        orphans: str = "adopt",
        waiting: Callable[[], object] = lambda: None,
    ) -> int:
        """End the processes that an earlier gafferd on this directory left running; return their number.

        Blocks until they are gone, up to the longest graceful timeout, and calls `waiting()` meanwhile. Processes with
        these pids and cookies are left alone, with the members of their groups. Others that keep running are to be
        adopted by their jobs: `detached` has the detached ones and those that changed to another user, which can't be
        signalled, `orphans` those that need nothing of the earlier gafferd, if the policy of their jobs is `adopt`;
        `orphans` is that of jobs without one. Raises leftovers.LeftoverError if a process can't be ended.
        """
        boot_id = procfs.boot_id()
        records = [r for r in self._left.processes if r.boot_id == boot_id] if self._left is not None else []
        self._refuse_the_unknown({record.cookie for record in records}.union(spare_cookies), frozenset(spare_pids))
        self._spared = [record for record in records if record.cookie in spare_cookies]
        records = [record for record in records if record.cookie not in spare_cookies]
        self.detached = [record for record in records if record.detach and leftovers.is_alive(record)]
        self.orphans = [r for r in records if not r.detach and (r.orphans or orphans) == "adopt" and self._is_whole(r)]
        left = [*self.detached, *self.orphans]
        ended, refused = leftovers.end_leftovers(
            [record for record in records if not record.detach and record not in self.orphans],
            self._made,
            {record.cookie for record in left}.union(spare_cookies),
            spare_pids,
            waiting,
        )
        self.detached += refused
        kept = {record.cookie for record in (*self.detached, *self.orphans)}
        self._lost = [record for record in records if record.cookie not in kept and self._made(record.cookie)]
        self._dirty = True
        self._write()
        return ended

    def add_lost_exits(self, *, only_detached: bool) -> None:
        """Add to `past` the exits of recorded processes that are gone, which nobody saw; blocks.

        A keeper knows what became of all but detached ones; the records are up to a second older than that.
        """
        if lost := [record for record in self._lost if record.detach or not only_detached]:
            self.past = self._past_file.lost(lost)

    def _is_whole(self, record: ProcessRecord) -> bool:
        """Return whether a process is the recorded one of this node, and lost nothing with its gafferd."""
        try:
            loss = leftovers.find_loss(record) if self._made(record.cookie) else "its mark is not that of this node"
        except LookupError:
            return False
        if loss is not None:
            logger.info(
                "process %d of %s is not adopted: %s", record.os_pid, record.job, loss, extra={"job": record.job}
            )
        return loss is None

    def _refuse_to_share(self, state: State | None) -> None:
        """Leave the processes recorded in a copied directory to their own gafferd; raise if it does not run."""
        boot_id = procfs.boot_id()
        alive = [r for r in state.processes if r.boot_id == boot_id and leftovers.is_alive(r)] if state else []
        if not alive:
            return
        pids = ", ".join(str(record.os_pid) for record in alive)
        if not self._lock.last_runs:
            raise StateDirError(
                f"{self.path} is a copy of another state directory, or its lock was removed,"
                f" and processes recorded in it are still running: {pids}",
                hint="start gafferd on the original directory, or end the processes, or remove processes.json and"
                " processes.json.copy here to leave the processes alone",
            )
        logger.warning("this state directory is a copy: leaving its recorded processes to their own gafferd: %s", pids)

    def _made(self, cookie: str) -> bool:
        return any(node.made(cookie) for node in self._nodes)

    def _refuse_the_unknown(self, known: Collection[str], known_pids: Collection[int]) -> None:
        """Raise if processes of this node may be detached and are not recorded: their cookies are not in `known`."""
        marked = [each for each in leftovers.find_marked(self._made, known_pids) if each.cookie not in known]
        if lost := [each.pid for each in marked if each.detached or self._left is None]:
            pids = ", ".join(map(str, lost))
            raise StateDirError(
                f"running processes of this node are missing from {self.path / 'processes.json'}: {pids}",
                hint="the file is missing or outdated: restore it or end the processes, then restart gafferd",
            )

    # Files

    def _next_node(self, last: Node | None, copied: bool) -> Node:
        hostname, machine_id = socket.gethostname(), _machine_id()
        at_home = last is not None and not copied and (last.hostname, last.machine_id) == (hostname, machine_id)
        if last is not None and at_home and last.secret:
            node = msgspec.structs.replace(last, incarnation=last.incarnation + 1)
        else:
            if copied:
                logger.warning("this state directory is a copy: the node gets a new id")
            elif last is not None:
                if at_home:
                    logger.warning("this node can't prove its id, which lookupds now require: the node gets a new id")
                else:
                    logger.warning("this state directory was created on %s: the node gets a new id", last.hostname)
                self._nodes.append(last)
            secret = secrets.token_hex(32)
            node = Node(node_id(secret), 1, hostname, machine_id, secret)
        self._nodes.append(node)
        try:
            self._node_file.save(node, sync=True)
        except OSError as error:
            if node.incarnation == 1:
                raise
            # A full disk must not prevent the jobs from starting.
            logger.error("can't write %s: %s", self.path / "node.json", error.strerror)
        return node

    def _write_soon(self) -> None:
        """Write in the next iteration of the loop."""
        if not self._soon:
            self._soon = self._dirty = True
            self._write_in(0.0)

    def _write_in(self, delay: float) -> None:
        """Write after `delay` seconds, or later if writing would take over a tenth of the time."""
        asyncio.get_running_loop().call_later(max(delay, min(10 * self._write_seconds, 1.0)), self._write)

    def _write(self) -> None:
        if not self._dirty:
            return
        self._dirty = self._soon = False
        begin = time.monotonic()
        try:
            self._lock.check()
            self._save_state(State([*self.detached, *self.orphans, *self._spared, *self._records.values()]))
        except OSError as error:
            if not self._failing:
                logger.error("can't write %s: %s", self.path / "processes.json", error.strerror)
            self._failing = True
        else:
            self._failing = False
        self._write_seconds = time.monotonic() - begin

    def _save_state(self, state: State) -> None:
        # No fsync: the records are meaningless after a crash of the host.
        self._state_file.save(state, sync=False)


def _load(document: documents.Document[T], lost: T | None = None) -> T | None:
    """Return a document, None if it is missing, or `lost` if it and its copy are damaged.

    Raises StateDirError if it is not trusted or readable, or if it is damaged and `lost` is None.
    """
    try:
        return document.load_either()
    except UntrustedFile as error:
        raise StateDirError(error.message, hint="check the file and its owner, then remove it") from None
    except documents.NewerFile as error:
        raise StateDirError(error.message, hint=error.hint) from None
    except documents.DamagedFile as error:
        if lost is not None:
            logger.error("%s: continuing without it, because the host has been rebooted", error.message)
            return lost
        raise StateDirError(
            f"{error.message}, and {document.copy.name} is missing or damaged too",
            hint=f"restore {document.path.name}, or make sure that no processes of this node run and remove both files",
        ) from None


def _load_format_1(path: Path) -> State | None:
    """Return the processes that an earlier version of gafferd recorded in `state.json`; None if there are none."""
    document = documents.Document(path / "state.json", _Format1, format=jobs_file.FORMAT)
    try:
        content = document.load_either()
        return _StoredState(content.processes) if content is not None and content.processes else None
    except UntrustedFile as error:
        raise StateDirError(error.message, hint="check the file and its owner, then remove it") from None
    except documents.NewerFile as error:
        raise StateDirError(error.message, hint=error.hint) from None
    except (documents.DamagedFile, ValueError):
        return None  # running processes are found by their marks


def _prepare(directory: Path) -> Path:
    """Create the directory, accessible only to this user; return its real path.

    Raises OSError, UntrustedFile, and StateDirError if other users may have changed its content.
    """
    for parent in reversed(directory.parents):
        if not parent.exists():
            parent.mkdir(mode=0o755)  # regardless of our umask
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
            hint="use another --state-dir",
        )
    if status.st_mode & 0o077:
        empty = not any(directory.iterdir())
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not empty:
            raise StateDirError(
                f"the state directory {directory} is writable by other users: its content can't be trusted",
                hint="check its content, then chmod 700 it; or use another --state-dir",
            )
        # Restricting a directory that others use, such as /tmp, would do harm.
        if not empty and not (directory / "node.json").exists():
            raise StateDirError(
                f"the state directory {directory} contains other files and is accessible to other users",
                hint="use an empty directory as --state-dir, or chmod 700 this one",
            )
        directory.chmod(0o700)
        if empty and any(directory.iterdir()):
            raise StateDirError(f"another user has just created a file in the state directory {directory}")
    _check_logs(directory / "logs")
    return directory


def _check_logs(path: Path) -> None:
    try:
        status = check_way(path, follow=True).stat()
    except FileNotFoundError:
        return
    danger = find_danger(status, os.geteuid()) if stat.S_ISDIR(status.st_mode) else "not a directory"
    if danger:
        raise StateDirError(f"{path} is not trusted: {danger}", hint="check its content, then move it away")
