"""When os.fork was used in this process: distinguishes its own children without a Popen object from adopted ones."""

import os
from collections import deque

from gaffer.processes import procfs

_TOLERANCE = 100  # clock ticks: the fork of a large process takes its time

_since: int | None = None  # when we began to watch, in clock ticks since boot
_forks: deque[int] = deque(maxlen=256)


def watch() -> None:
    """Note each os.fork from now on; subprocess uses another call."""
    global _since
    if _since is None:
        _since = procfs.clock_ticks()
        os.register_at_fork(after_in_parent=lambda: _forks.append(procfs.clock_ticks()))


def may_have_made(start_time: int) -> bool:
    """Whether os.fork here may have made a child that started at `start_time`, in clock ticks since boot."""
    forgotten = _forks[0] if len(_forks) == _forks.maxlen else 0
    return (
        _since is None
        or start_time <= max(_since, forgotten)
        or any(made - _TOLERANCE <= start_time <= made for made in _forks)
    )
