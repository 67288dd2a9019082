"""The limit on open descriptors: raised for a daemon, as it was for the processes it starts (getrlimit(2))."""

import contextlib
import os
import resource
import threading
from collections.abc import Iterator

_before: tuple[int, int] | None = None
_lock = threading.Lock()
_reserved: list[int] = []  # low descriptors, kept free for what a spawn opens below the original limit


def raise_descriptors() -> None:
    """Let this process open as many descriptors as the hard limit allows: each process it watches takes a few."""
    global _before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    # Refused where the hard limit is beyond what the kernel allows anybody.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _before = soft, hard
        _reserve()


@contextlib.contextmanager
def original_descriptors() -> Iterator[None]:
    """Have the limit from before in the block: what is started inherits it, and select(2) breaks beyond 1024.

    The block may open two descriptors, as subprocess.Popen does, however many are open.
    """
    if _before is None:
        yield
        return
    with _lock:
        while _reserved:
            os.close(_reserved.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, _before)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_before[1], _before[1]))
            _reserve()


def restore_descriptors(os_pid: int) -> None:
    """Give a process that waits to execute its program the limit from before; raises OSError."""
    if _before is not None:
        resource.prlimit(os_pid, resource.RLIMIT_NOFILE, _before)


def _reserve() -> None:
    with contextlib.suppress(OSError):  # none are left: the next spawn fails with that error
        _reserved.extend(os.pipe())
