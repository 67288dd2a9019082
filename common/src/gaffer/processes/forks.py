"""Records of os.fork in this process, which tell forked children without a Popen object from adopted ones."""

import os
from collections import deque

from gaffer.processes import procfs

_TOLERANCE = 100  # clock ticks; forking a large process takes time

_since: int | None = None  # the time of `watch`, in clock ticks since boot
_forks: deque[int] = deque(maxlen=256)


def watch() -> None:
    """Record each os.fork from now on; subprocess uses a different call."""
    global _since
    if _since is None:
        _since = procfs.clock_ticks()
        os.register_at_fork(after_in_parent=lambda: _forks.append(procfs.clock_ticks()))


def may_have_made(start_time: int) -> bool:
    """Return whether os.fork may have created a child that started at `start_time`, in clock ticks since boot."""
    forgotten = _forks[0] if len(_forks) == _forks.maxlen else 0
    return (
        _since is None
        or start_time <= max(_since, forgotten)
        or any(made - _TOLERANCE <= start_time <= made for made in _forks)
    )
