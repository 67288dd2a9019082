"""Startup of a command: standard streams, signals before its own handlers are installed, the garbage collector.

Python's handlers would end it with a traceback, the system's with the exit status of a signal. A daemon goes through
these phases:

1. `run_daemon`: nothing needs cleaning up yet, so a signal exits at once.
2. `raise_signals`: a signal raises Interrupted, so that files and locks are released.
3. `hold_signals`: signals are held until the handlers of `gaffer.sig_handler` are installed and process them.
4. `ignore_signals`: the daemon is exiting, and signals no longer change its exit status.

SIGHUP and SIGUSR1 do not end a daemon in any phase: they are held in all phases but the last.
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

REOPEN_SIGNAL = signal.SIGUSR1

# In the order of their handlers: once SIGTERM, which others wait for, has its own, all have.
_SIGNALS = (signal.SIGHUP, REOPEN_SIGNAL, signal.SIGQUIT, signal.SIGINT, signal.SIGTERM)

_pending: list[int] = []

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal that ends a daemon before it has started, with the exit status `status`."""

    def __init__(self, signum: int) -> None:
        self.status = _status_after(signum)
        super().__init__(signum)


def run_command(module: str, function: str) -> None:
    """Import `module` and exit with the status its `function` returns, or 130 on Ctrl-C, also during the import."""
    open_standard_streams()
    caught = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # otherwise ignored, as by nohup(1)
    if os.getpid() == 1:
        # The kernel drops signals whose default action would end an init process.
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
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # in __set_name__, Python 3.11 wraps it
            raise
        status = INTERRUPTED
    except MemoryError:
        _exit_without_memory()
    finally:
        if caught:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


def run_daemon(module: str) -> NoReturn:
    """Import `module` and exit with the status its `command(argv, environ)` returns.

    From here on, QUIT, TERM and INT exit at once. The garbage collector is off until `spare_collector`: imports leave
    almost no garbage.
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
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed, so that no other file gets its number.

    Writing to a closed standard output still fails.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        # The lowest free descriptor is used.
        if os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR) == fd:
            os.set_inheritable(fd, True)
        setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def spare_collector() -> None:
    """Exempt all current objects from garbage collection, and collect less often from now on.

    A daemon calls this once, after its imports and before it starts processes: a full collection would block its loop
    for longer than it takes to stop a hundred of them.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)
    gc.enable()


def exit_on_signals() -> None:
    """Exit at once on QUIT, TERM and INT: with 130 after SIGINT, otherwise with 0."""
    _install(_exit_now)
    dispositions.reset_inherited()


def raise_signals() -> None:
    """Raise Interrupted on QUIT, TERM and INT, or now if one is held; after the first, hold signals."""
    _install(_raise)
    for signum in _pending:
        if signum in QUIT_SIGNALS:
            _raise(signum, None)


def hold_signals() -> None:
    """Hold signals for `take_pending`."""
    _install(_hold)


def take_pending() -> list[int]:
    """Return the held signals, each once, and clear them."""
    pending = list(dict.fromkeys(_pending))
    _pending.clear()
    return pending


def ignore_signals() -> None:
    """Ignore all signals of a daemon until the process exits."""
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
        signal.signal(signum, handler if signum in QUIT_SIGNALS else _hold)


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
