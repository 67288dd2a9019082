"""Runs a command in the foreground of the terminal, as `gaffer run` does."""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

# The shell's statuses for a command that was not found, and for one that can't be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126

_LEFT_TO_CHILDREN = (signal.SIGINT, signal.SIGQUIT)  # the terminal sends them to the children as well
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)

Children = list["subprocess.Popen[bytes]"]


def run_command(words: Sequence[str], cwd: str, env: Mapping[str, str], copies: int = 1) -> int:
    """Run `copies` of a command at once, with this process's terminal and streams, and wait for all.

    Returns the first status that is not 0, 128 + N for signal N. Raises OSError when it can't be started.
    """
    children: Children = []
    with _signals_for(children) as received:
        try:
            for _ in range(copies):
                child = subprocess.Popen(words, cwd=cwd, env=dict(env))
                children.append(child)
                for signum in received:  # while it was started
                    child.send_signal(signum)
        except OSError:
            for child in children:
                child.terminate()
            raise
        finally:
            codes = [child.wait() for child in children]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


@contextmanager
def _signals_for(children: Children) -> Iterator[list[int]]:
    """Let the children decide what signals mean while the block runs; it gets those that were passed on so far."""
    received: list[int] = []

    def leave(signum: int, frame: FrameType | None) -> None:
        pass

    def pass_on(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for child in children:
            child.send_signal(signum)

    # Handlers, not SIG_IGN: children would inherit that.
    previous = {
        **{signum: signal.signal(signum, leave) for signum in _LEFT_TO_CHILDREN},
        **{signum: signal.signal(signum, pass_on) for signum in _PASSED_ON},
    }
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
