"""Daemon processes: going to the background, the process title, the working directory."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from gaffer.errors import ConfigError, Problem
from gaffer.runtime.startup import QUIT_SIGNALS

_PID_SIZE = 4  # bytes


def getcwd() -> str:
    """Return the working directory, as $PWD (with symbolic links) if that is the same directory."""
    cwd = os.getcwd()
    spelled = os.environ.get("PWD", "")
    try:
        same = os.path.isabs(spelled) and os.path.samefile(spelled, cwd)
    except OSError:
        same = False
    return spelled if same else cwd


def setproctitle_(title: str) -> None:
    """Set the title that `ps` shows, if the setproctitle package is installed."""
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(title)


class ProcessTitle:
    """The title of a daemon that `ps` shows, `NAME: STATUS (ARGUMENTS)`, if the setproctitle package is installed.

    The name of the process stays NAME, by which tools such as `pkill` find it. Create the object before variables are
    removed from the environment: the title has only the space that the arguments and the variables before them used.
    """

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self._name = name
        self._arguments = f" ({shlex.join(argv)})" if argv else ""
        with contextlib.suppress(ImportError):
            from setproctitle import getproctitle

            getproctitle()  # finds the space

    def show(self, status: str) -> None:
        """Show the title with this status."""
        with contextlib.suppress(ImportError):
            from setproctitle import setproctitle, setthreadtitle

            setproctitle(f"{self._name}: {status}{self._arguments}")
            setthreadtitle(self._name)


def _wait_for_start(reader: int) -> bool:
    """Wait for the pid of the daemon and the byte that it writes once it has started; return whether it came."""

    def pass_on(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    pid = int.from_bytes(os.read(reader, _PID_SIZE))
    if pid:
        for signum in QUIT_SIGNALS:
            signal.signal(signum, pass_on)
    return bool(os.read(reader, 1))


def daemonize(wait: bool = False) -> Callable[[], None]:
    """Go to the background: a new session without a terminal, umask 022, standard streams on /dev/null.

    The calling process exits with status 0. With `wait`, it waits until the daemon calls the returned function, and
    exits with status 1 if the daemon ends before that; until then the standard streams are kept, and signals that end a
    daemon are passed on to it. Call it before starting threads or a loop.

    Raises ConfigError for process 1, whose end would end all processes of its container.
    """
    if os.getpid() == 1:
        message = "this is process 1, and the container would end when it goes to the background"
        raise ConfigError([Problem("--daemon", message, "leave the flag out in a container")])
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writer)
        started = _wait_for_start(reader)
        os._exit(0 if started or not wait else 1)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(0o022)
    os.write(writer, os.getpid().to_bytes(_PID_SIZE))

    def leave() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if null > 2:
            os.close(null)
        with contextlib.suppress(BrokenPipeError):
            os.write(writer, b"\0")
        os.close(writer)

    if not wait:
        leave()
        return lambda: None
    return leave
