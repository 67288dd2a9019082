"""Put a process above pytest that receives, and shows, what daemons under test leave behind.

When a daemon dies, its children go to the nearest child subreaper among its ancestors. That must not be the pytest
process itself: the dead would stay its zombies, and a test that waits for a pid to vanish would wait for ever. So
pytest goes on in a forked child and the process that was started waits here, reaps what it inherits at once and
ends as pytest ended.

A worker of pytest-xdist has threads by the time that plugins are loaded, and a fork would lose them. Workers are
started through this file instead: `python subreaper.py ARGUMENT...` runs `python ARGUMENT...` below such a process.
"""

import ctypes
import os
import signal
import sys

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Set for a worker: the pid of the process above it.
_VARIABLE = "GAFFER_TEST_SUBREAPER"

_main_pid: int | None = None


def install() -> None:
    """Fork: return in the child, where pytest goes on. Does nothing the second time, or where there is no prctl."""
    global _main_pid
    if _main_pid is not None or sys.platform != "linux":
        return
    if os.environ.pop(_VARIABLE, None) != str(os.getppid()):
        _fork()
    _main_pid = os.getpid()


def _fork() -> None:
    """Return in a child of this process, which reaps until the child ends, and ends as it did."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    parent = os.getpid()
    child = os.fork()
    if child:
        _reap_until_exit_of(child)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def orphans() -> list[psutil.Process]:
    """The processes whose parent died and left them to us; none in a process that pytest itself forked."""
    if _main_pid != os.getpid():
        return []
    return [process for process in psutil.Process(os.getppid()).children() if process.pid != _main_pid]


def _reap_until_exit_of(child: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to pytest as well
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _frame: os.kill(child, number))
    pid = 0
    while pid != child:
        pid, status = os.wait()
    for orphan in psutil.Process().children(recursive=True):
        try:
            orphan.kill()
        except psutil.NoSuchProcess:
            continue
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)  # not sys.exit: what pytest registered to run at exit runs in the child


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    if sys.platform == "linux":
        _fork()
        os.environ[_VARIABLE] = str(os.getppid())
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
