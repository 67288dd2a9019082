"""Pidfile: the file with the process id of a daemon."""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import struct
import time
from collections.abc import Iterator

from gaffer.errors import GafferError

log = logging.getLogger("gaffer.pidfile")

# struct flock: type, whence, start, length (0: all), pid; see "Open file description locks" in fcntl(2).
_FLOCK = "hhqqi4x"
_TIMEOUT = 1.0  # seconds to wait for another process that creates a pidfile in the directory
_MAX_SIZE = 64  # bytes of a pidfile
_HAS_LOCKS = hasattr(fcntl, "F_OFD_SETLK")


@contextlib.contextmanager
def hold_pidfile(path: str | None, pid: int | None = None) -> Iterator[None]:
    """Hold the pidfile of a daemon at `path`, if given, while the block runs; it contains `pid`, by default our own.

    On a full disk, log an error and run the block without a pidfile. Raises GafferError (`bad_pidfile`) if the file
    can't be created for any other reason. The file is deleted in the end, unless another one has taken its place.
    """
    pidfile = Pidfile(path, lock=True)
    if path is not None:
        try:
            pidfile.create(pid or os.getpid())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise GafferError(
                    f"can't write the pidfile {path}: {error.strerror}",
                    reason="bad_pidfile",
                    hint="set --pidfile to a file in a directory that this user can write to",
                ) from None
            log.error("can't write the pidfile %s: %s; continuing without it", path, error.strerror)
        except RuntimeError as error:
            raise GafferError(str(error), reason="bad_pidfile") from None
    try:
        yield
    finally:
        pidfile.unlink()


class Pidfile:
    """A file that holds the process id of a running daemon.

    Without `fname`, `create` makes a temporary file and sets `fname` to its path. With `lock`, the daemon holds a lock
    on the file while it runs, so that a pid reused after a crash is not mistaken for it; Gaffer's own daemons do this.
    Without `lock`, and on systems that lack such locks, any live process with that pid counts as the daemon.
    """

    def __init__(self, fname: str | os.PathLike[str] | None = None, *, lock: bool = False) -> None:
        self.fname = os.fspath(fname) if fname is not None else None
        self.pid: int | None = None
        self._locks = lock and _HAS_LOCKS
        self._lock: int | None = None

    def create(self, pid: int) -> None:
        """Write `pid`; do nothing if the file already holds it.

        An existing file or link is replaced, never written to; of several processes that do so at once, one succeeds.
        Raises RuntimeError if the file belongs to another live process, is too large to be a pidfile, or its directory
        is missing, and OSError if it can't be written.
        """
        with _alone_in(os.path.dirname(self.fname) or ".") if self.fname else contextlib.nullcontext():
            self._create(pid)

    def _create(self, pid: int) -> None:
        owner = self.validate()
        if owner == pid and (self._lock is not None or not self._locks):
            self.pid = pid
            return
        if owner is not None:
            raise RuntimeError(f"already running with pid {owner} (pidfile {self.fname})")
        import tempfile  # deferred: it imports archive formats, half a megabyte

        directory = os.path.dirname(self.fname or "") or ("." if self.fname else tempfile.gettempdir())
        if not os.path.isdir(directory):
            raise RuntimeError(f"can't create the pidfile {self.fname}: no directory {directory}")
        if self.fname is not None and (size := _file_size(self.fname)) > _MAX_SIZE:  # a mistake in a command line
            raise RuntimeError(f"{self.fname} is not a pidfile: it has {size} bytes")
        descriptor, temporary = tempfile.mkstemp(prefix="gaffer-", suffix=".pid", dir=directory)
        try:
            os.write(descriptor, f"{pid}\n".encode())
            os.fchmod(descriptor, 0o644)
            if self._locks:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
            if self.fname is None:
                self.fname = temporary
            else:
                os.replace(temporary, self.fname)
        except BaseException:
            os.close(descriptor)
            os.unlink(temporary)
            raise
        self.pid = pid
        if self._locks:
            self._lock = descriptor
        else:
            os.close(descriptor)

    def rename(self, path: str | os.PathLike[str]) -> None:
        """Move the pidfile to `path`. Raises like `create`, and RuntimeError if the file was not created yet."""
        if self.pid is None:
            raise RuntimeError("the pidfile was not created yet")
        self.unlink()
        self.fname = os.fspath(path)
        self.create(self.pid)

    def unlink(self) -> None:
        """Delete the file if it is still the one that `create` wrote."""
        if self.fname is not None and self.pid is not None and self._is_ours(self.fname):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.fname)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def validate(self) -> int | None:
        """Return the pid of the live process that owns the file, or None."""
        pid = self._read(self.fname or "")
        if pid is None or self._locks:  # the lock ends with the process, whose pid may be that of another container
            return pid
        try:
            os.kill(pid, 0)
        except PermissionError:
            return pid
        except (ProcessLookupError, OverflowError):
            return None
        return pid

    def _is_ours(self, path: str) -> bool:
        if self._lock is None:
            return self._read(path) == self.pid
        try:
            return os.path.samestat(os.lstat(path), os.fstat(self._lock))
        except OSError:
            return False

    def _read(self, path: str) -> int | None:
        """Return the pid in the file; with `lock`, only while its daemon runs."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return None  # missing, a link, or not readable: `create` fails if it can't be replaced
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or (self._locks and not _is_held(descriptor, status)):
                return None
            text = os.read(descriptor, _MAX_SIZE).decode("ascii", errors="replace").strip()
        finally:
            os.close(descriptor)
        return int(text) if text.isdecimal() and int(text) > 0 else None


def _file_size(path: str) -> int:
    """Return the size of a regular file, 0 for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Exclude other processes that create a pidfile in `directory` at the same time.

    Other programs can lock the directory, too: after a timeout, or where it can't be locked, go on without the lock.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + _TIMEOUT
        while not _try_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno != errno.EWOULDBLOCK
    return True


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def _is_held(descriptor: int, status: os.stat_result) -> bool:
    """Return whether a daemon of our user or root holds the write lock, which requires write access."""
    if status.st_uid not in (0, os.geteuid()):
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    except OSError:
        return False  # a file system without locks
    return bool(struct.unpack(_FLOCK, found)[0] == fcntl.F_WRLCK)
