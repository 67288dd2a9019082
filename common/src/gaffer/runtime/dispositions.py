"""Inherited signal masks and dispositions (signal(7)), and how child processes are protected from them."""

import _signal  # type: ignore[import-not-found]
import signal
from types import FrameType

# Python ignores these in every program, and subprocess restores them itself.
_RESTORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_CATCHABLE = tuple(sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} - _RESTORED)))


def reset_inherited() -> frozenset[int]:
    """Unblock all signals and stop children from inheriting ignored ones; return those that were ignored.

    A daemon or tool calls this first, in its main thread. Ignored signals stay without effect here, through a handler
    that does nothing: an exec resets handlers, but keeps SIG_IGN (execve(2)). SIGCHLD gets the default disposition,
    because ignoring it discards the exit status of children (waitpid(2)).
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ignored = frozenset(number for number in _CATCHABLE if signal.getsignal(number) is signal.SIG_IGN)
    for number in ignored:
        signal.signal(number, ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ignored


def ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing: a handler that, unlike SIG_IGN, children do not inherit."""


def are_default() -> bool:
    """Return whether children of this thread start with an empty mask and default dispositions.

    Called before each start of a process, so it avoids the functions of `signal`, which convert their results to enums
    and take ten times as long.
    """
    ignored = _signal.SIG_IGN in map(_signal.getsignal, _CATCHABLE)
    return not ignored and not _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
