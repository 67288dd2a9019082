"""Pidfile: tells other programs the process id of a daemon."""

import contextlib
import os


class Pidfile:
    """A file that holds the process id of one running daemon.

    Without `fname`, `create` makes a temporary file and keeps its path in `fname`.
    """

    def __init__(self, fname: str | os.PathLike[str] | None = None) -> None:
        self.fname = os.fspath(fname) if fname is not None else None
        self.pid: int | None = None

    def create(self, pid: int) -> None:
        """Write `pid`; does nothing when the file already holds it.

        Raises RuntimeError when the file names another live process or its directory is missing.
        """
        if (owner := self.validate()) is not None and owner != pid:
            raise RuntimeError(f"already running with pid {owner} (pidfile {self.fname})")
        self.pid = pid
        if owner == pid:
            return
        import tempfile  # late: it brings in archive formats, half a megabyte

        directory = os.path.dirname(self.fname or "") or ("." if self.fname else tempfile.gettempdir())
        if not os.path.isdir(directory):
            raise RuntimeError(f"can't create the pidfile {self.fname}: there is no directory {directory}")
        descriptor, temporary = tempfile.mkstemp(prefix="gaffer-", suffix=".pid", dir=directory)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{pid}\n")
                os.fchmod(descriptor, 0o644)
            if self.fname is None:
                self.fname = temporary
            else:
                os.replace(temporary, self.fname)
        except BaseException:
            os.unlink(temporary)
            raise

    def rename(self, path: str | os.PathLike[str]) -> None:
        """Move the pidfile to `path`. Raises RuntimeError as `create` does."""
        if self.pid is None:
            raise RuntimeError("the pidfile was not created yet")
        self.unlink()
        self.fname = os.fspath(path)
        self.create(self.pid)

    def unlink(self) -> None:
        """Delete the file when it still holds the pid that `create` wrote."""
        if self.fname is not None and self.pid is not None and self._read() == self.pid:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.fname)

    def validate(self) -> int | None:
        """The pid of the live process that the file names, or None when there is none."""
        pid = self._read()
        if pid is None:
            return None
        try:
            os.kill(pid, 0)
        except PermissionError:
            return pid
        except (ProcessLookupError, OverflowError):
            return None
        return pid

    def _read(self) -> int | None:
        if self.fname is None:
            return None
        try:
            with open(self.fname, encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except FileNotFoundError:
            return None
        return int(text) if text.isdecimal() and int(text) > 0 else None
