"""Signal masks and dispositions that a process inherits (signal(7)), kept from the processes it starts."""

import _signal  # type: ignore[import-not-found]
import signal
from types import FrameType

# subprocess restores these itself: Python ignores them in every program.
_RESTORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_CATCHABLE = tuple(sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} - _RESTORED)))


def reset_inherited() -> frozenset[int]:
    """Unblock all signals and let none be ignored across an exec; return those that were ignored.

    A daemon or tool calls this first, in its main thread. Signals stay ignored in this process: their handler does
    nothing. An exec puts handlers back to the default, but keeps SIG_IGN (execve(2)). SIGCHLD gets the default
    disposition: ignored, it would hide how children end (waitpid(2)).
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ignored = frozenset(number for number in _CATCHABLE if signal.getsignal(number) is signal.SIG_IGN)
    for number in ignored:
        signal.signal(number, ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ignored


def ignore(signum: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: unlike SIG_IGN, children do not inherit that."""


def are_default() -> bool:
    """Whether a child of this thread starts with an empty mask and default dispositions.

    Asked before each start of a process: the functions of `signal` make enumerations of all that they return, and take
    ten times as long.
    """
    ignored = _signal.SIG_IGN in map(_signal.getsignal, _CATCHABLE)
    return not ignored and not _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
