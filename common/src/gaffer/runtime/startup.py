"""The start of a command: standard streams, the signals before its own handlers are in place, the garbage collector.

Python's handlers would end it with a traceback, and the system's with the status of a signal. A daemon goes through
these phases:

1. `run_daemon`: nothing has to be undone yet, a signal exits at once.
2. `raise_signals`: a signal raises Interrupted, so that files and locks are given back.
3. `hold_signals`: signals wait until the handlers of `gaffer.sig_handler` are in place, which handle them first.
4. `ignore_signals`: the daemon is on its way out, and nothing changes its exit status any more.

SIGHUP ends none of them: it waits in every phase but the last one.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType, ModuleType
from typing import NoReturn

from gaffer.runtime import dispositions

QUIT_SIGNALS = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130  # the exit status after Ctrl-C: 128 + SIGINT, as shells have it

_SIGNALS = (*QUIT_SIGNALS, signal.SIGHUP)

_pending: list[int] = []

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal ends a daemon that has not started yet, with the exit status `status`."""

    def __init__(self, signum: int) -> None:
        self.status = _status_after(signum)
        super().__init__(signum)


def run_command(module: str, function: str) -> None:
    """Import `module` and exit with what its `function` returns; Ctrl-C exits with 130, also during the import."""
    open_standard_streams()
    caught = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, as by nohup(1)
    if os.getpid() == 1:
        # The kernel drops what would end an init process by default.
        for signum in _SIGNALS:
            if signal.getsignal(signum) is signal.SIG_DFL:
                signal.signal(signum, _exit_as_a_shell)
    if caught:
        signal.signal(signal.SIGINT, _exit_now)
    command = getattr(_import(module), function)
    try:
        if caught:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = command()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except MemoryError:
        _exit_without_memory()
    finally:
        if caught:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


def run_daemon(module: str) -> NoReturn:
    """Import `module` and exit with what its `command(argv, environ)` returns.

    A signal that ends daemons exits at once from here on. Garbage is not collected before `spare_collector`: imports
    leave next to none.
    """
    open_standard_streams()
    exit_on_signals()
    gc.disable()
    command = _import(module).command
    try:
        status = command(sys.argv[1:], os.environ)
    finally:
        ignore_signals()
    sys.exit(status)


def open_standard_streams() -> None:
    """Open /dev/null as each of the descriptors 0, 1 and 2 that the caller closed, so that no other file becomes one.

    Writing to a closed standard output still fails.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        # Descriptors are given out from the lowest on.
        if os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR) == fd:
            os.set_inheritable(fd, True)
        setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def spare_collector() -> None:
    """Exempt the objects that exist now from garbage collection, and collect seldom from here on.

    A daemon calls this once, when it has its modules and before it starts processes: a full collection would hold its
    loop for longer than it takes to stop a hundred of them.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)
    gc.enable()


def exit_on_signals() -> None:
    """Exit at once when a signal ends the daemon: with 130 after SIGINT, else with 0."""
    _install(_exit_now)
    dispositions.reset_inherited()


def raise_signals() -> None:
    """Raise Interrupted when a signal ends the daemon, or has been held; that happens once, then signals are held."""
    _install(_raise)
    for signum in _pending:
        if signum in QUIT_SIGNALS:
            _raise(signum, None)


def hold_signals() -> None:
    """Let signals wait for `take_pending`."""
    _install(_hold)


def take_pending() -> list[int]:
    """The signals that have waited, each once."""
    pending = list(dict.fromkeys(_pending))
    _pending.clear()
    return pending


def ignore_signals() -> None:
    """Ignore the signals of a daemon from here to the end of the process."""
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except MemoryError:
        _exit_without_memory()


def _exit_without_memory() -> NoReturn:
    os.write(2, b"out of memory\n")
    os._exit(1)


def _install(handler: Handler) -> None:
    for signum in _SIGNALS:
        signal.signal(signum, handler if signum != signal.SIGHUP else _hold)


def _exit_now(signum: int, frame: FrameType | None) -> None:
    os._exit(_status_after(signum))


def _exit_as_a_shell(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


def _raise(signum: int, frame: FrameType | None) -> None:
    hold_signals()
    raise Interrupted(signum)


def _hold(signum: int, frame: FrameType | None) -> None:
    if signum not in _pending:
        _pending.append(signum)


def _status_after(signum: int) -> int:
    return INTERRUPTED if signum == signal.SIGINT else 0
