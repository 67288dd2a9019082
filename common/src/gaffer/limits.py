"""The limit on open descriptors: raised for a daemon, as it was for the processes it starts (getrlimit(2))."""

import contextlib
import resource

_before: tuple[int, int] | None = None


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


def restore_descriptors(os_pid: int) -> None:
    """Give a process that was started just now the limit from before: what uses select(2) breaks beyond 1024."""
    if _before is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(os_pid, resource.RLIMIT_NOFILE, _before)
