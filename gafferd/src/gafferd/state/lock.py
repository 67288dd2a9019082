"""The lock of a state directory: limits it to one gafferd, and distinguishes the directory from copies.

The file records the gafferd that holds or last held it, and its own inode. A copy has a different inode, and while a
gafferd holds the lock of the original, no other file can have the same inode. The records of the directory therefore
apply only if the inode matches.
"""

import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gaffer.errors import GafferError
from gaffer.processes import procfs

logger = logging.getLogger(__name__)

_OWNER = re.compile(r"([0-9]{1,10})(?: ([0-9]{1,20}) (\S{1,64}) ([0-9]{1,20}) ([0-9]{1,20}))?\n?", re.ASCII)


class StateDirError(GafferError):
    """The state directory can't be used."""

    reason = "state_dir"


class Owner(NamedTuple):
    """A gafferd and the lock that it holds; earlier versions recorded only `pid`, and the rest is None.

    `start_time` is in clock ticks since boot, `boot_id` that of its boot; `device` and `inode` are those of the lock.
    """

    pid: int
    start_time: int | None = None
    boot_id: str | None = None
    device: int | None = None
    inode: int | None = None

    def write(self) -> bytes:
        """Return the content of the lock file."""
        return " ".join(map(str, self)).encode() + b"\n"


def parse_owner(content: bytes) -> Owner | None:
    """Parse the output of `Owner.write`, or a single pid; return None for anything else."""
    match = _OWNER.fullmatch(content.decode("ascii", errors="replace"))
    if match is None:
        return None
    if match[2] is None:
        return Owner(int(match[1]))
    return Owner(int(match[1]), int(match[2]), match[3], int(match[4]), int(match[5]))


def find_owner(lock: int) -> procfs.Stat | None:
    """Return the gafferd that a lock names, if it runs; `lock` is a descriptor of the file."""
    owner = parse_owner(os.pread(lock, 256, 0))
    process = procfs.read_stat(owner.pid) if owner is not None else None
    if owner is None or process is None or process.state in "ZX" or process.start_time != owner.start_time:
        return None
    return process


def is_original(last: Owner | None, now: Owner, last_runs: bool) -> bool:
    """Return whether the directory whose lock records `last` is the one that `last` used, not a copy.

    `now` is the new owner, `last_runs` whether `last` still runs.
    """
    if last is None or last_runs:
        return False
    if last.inode is None:
        return True
    # The device number may change at a reboot, but not within a boot.
    return last.inode == now.inode and (last.device == now.device or last.boot_id != now.boot_id)


class StateLock:
    """The lock of the state directory `directory`, held until `close`.

    `keeper` is the process id of the keeper, which may have been the last owner itself; `kept` are descriptors of the
    lock that it held while there was no gafferd, which are closed here or with the lock.

    `last` is the owner recorded in the file before `mark`, `last_runs` whether it still runs, and `original` whether
    the directory is the one that it used.
    """

    def __init__(self, directory: Path, keeper: int | None = None, kept: Sequence[int] = ()) -> None:
        """Take the lock; raise StateDirError if another gafferd holds it, or OSError."""
        self._keeper = keeper
        self.directory = directory
        self._descriptor = _open(directory / "lock")
        for each in kept:
            if os.path.sameopenfile(each, self._descriptor):  # not so if the directory was changed or replaced
                os.dup2(each, self._descriptor, inheritable=False)
            os.close(each)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = parse_owner(os.pread(self._descriptor, 256, 0))
            os.close(self._descriptor)
            if error.errno != errno.EWOULDBLOCK:
                raise
            user, hint = f"another gafferd (pid {holder.pid})" if holder else "another gafferd", "stop it"
            if holder is not None and procfs.read_stat(holder.pid) is None:
                user, hint = (
                    f"the keeper of gafferd (pid {holder.pid}), which has died",
                    "let it start gafferd, or end it",
                )
            raise StateDirError(
                f"the state directory {directory} is in use by {user}",
                hint=f"{hint}, or use another --state-dir",
            ) from None
        status, own = os.fstat(self._descriptor), procfs.read_stat(os.getpid())
        start_time = own.start_time if own else 0
        self._owner = Owner(os.getpid(), start_time, procfs.boot_id() or "-", status.st_dev, status.st_ino)
        self.last = parse_owner(os.pread(self._descriptor, 256, 0))
        self.last_runs = self.last is not None and self._runs(self.last)
        self.original = is_original(self.last, self._owner, self.last_runs)

    def fileno(self) -> int:
        """Return the descriptor: whoever has a duplicate of it holds the lock too."""
        return self._descriptor

    def check(self) -> None:
        """Raise OSError (ESTALE) if the directory was removed or replaced, so that another gafferd may use it."""
        try:
            now = os.stat(self.directory / "lock", follow_symlinks=False)
        except FileNotFoundError:
            now = None
        if now is None or (now.st_dev, now.st_ino) != (self._owner.device, self._owner.inode):
            raise OSError(errno.ESTALE, "the state directory was removed or replaced: restart gafferd")

    @property
    def same_boot(self) -> bool:
        """Whether the host was not rebooted since, so that processes of the last owner may still run."""
        return self.last is None or self.last.boot_id in (None, self._owner.boot_id)

    def mark(self) -> None:
        """Write the owner into the file."""
        content = self._owner.write()
        try:
            os.pwrite(self._descriptor, content, 0)  # before truncating: a full disk then keeps the last owner
            os.ftruncate(self._descriptor, len(content))
        except OSError as error:
            logger.warning("can't write the pid to the lock file: %s", error.strerror)

    def close(self) -> None:
        """Release the lock, if that was not done yet."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _runs(self, owner: Owner) -> bool:
        if owner.pid in (self._owner.pid, self._keeper) or owner.boot_id not in (None, self._owner.boot_id):
            return False
        process = procfs.read_stat(owner.pid)
        return process is not None and process.state not in "ZX" and owner.start_time in (None, process.start_time)


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _not_ours(path, "symbolic link") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(descriptor)
        raise _not_ours(path, "not a regular file of this user")
    return descriptor


def _not_ours(path: Path, why: str) -> StateDirError:
    return StateDirError(
        f"{path} is not trusted: {why}", hint=f"check the other files in {path.parent}, then remove it"
    )
