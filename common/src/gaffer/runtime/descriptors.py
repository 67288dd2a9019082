"""The limit on open descriptors (getrlimit(2)): raised for a daemon, but not for the processes that it starts."""

import contextlib
import os
import resource
import threading
from collections.abc import Iterator

_before: tuple[int, int] | None = None
_lock = threading.Lock()
_reserved: list[int] = []  # low descriptors, reserved for those that a spawn opens below the original limit


def raise_descriptors() -> None:
    """Raise the limit of this process to the hard limit, since each supervised process needs a few descriptors."""
    global _before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    # Refused if the hard limit exceeds the kernel's own.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _before = soft, hard
        _reserve()


@contextlib.contextmanager
def original_descriptors() -> Iterator[None]:
    """Restore the original limit in the block, for child processes to inherit: select(2) fails beyond 1024.

    The block may open two descriptors, as subprocess.Popen does, however many are already open.
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
    """Restore the original limit of a process that has not executed its program yet; raises OSError."""
    if _before is not None:
        resource.prlimit(os_pid, resource.RLIMIT_NOFILE, _before)


def _reserve() -> None:
    with contextlib.suppress(OSError):  # none left: the next spawn fails with this error
        _reserved.extend(os.pipe())
