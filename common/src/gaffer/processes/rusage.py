"""The resources that an exited process used, read without reaping it.

As a system call, waitid(2) takes a further argument, a rusage, which it fills for WNOWAIT too. Of a zombie that is not
our child, proc_pid_stat(5) has the times.
"""

import ctypes
import functools
import os
import resource
from collections.abc import Callable

from gaffer.jobs.usage import ResourceUsage
from gaffer.processes import procfs

_SYSTEM_CALLS = {"x86_64": 247, "aarch64": 95, "riscv64": 95, "ppc64le": 272, "s390x": 281}
_INEXACT = 4096  # KiB by which the kernel's counters may be wrong
_FLAGS = os.WEXITED | os.WNOWAIT | os.WNOHANG


class _Usage(ctypes.Structure):
    _fields_ = (
        ("user", ctypes.c_long * 2),  # seconds and microseconds
        ("system", ctypes.c_long * 2),
        ("max_rss", ctypes.c_long),  # KiB
        ("_others", ctypes.c_long * 13),
    )


def usage_of_zombie(os_pid: int) -> ResourceUsage | None:
    """Return what the zombie `os_pid` used with its reaped descendants; None where the system does not tell.

    Until it executes its program, a child counts our memory as its own. So a maximum that is not above ours is unknown,
    as is that of a process that is not our child.
    """
    waitid = _waitid()
    usage = _Usage()
    if waitid is None or waitid(os_pid, None, _FLAGS, ctypes.byref(usage)) != 0:
        times = procfs.read_zombie_times(os_pid)
        return ResourceUsage(*times, None) if times is not None else None
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    max_rss = usage.max_rss * 1024 if usage.max_rss > ours + _INEXACT else None
    return ResourceUsage(_seconds(*usage.user), _seconds(*usage.system), max_rss)


@functools.cache
def _waitid() -> Callable[..., int] | None:
    """Return the system call for a pid, without its first two arguments; None if its number is unknown."""
    number = _SYSTEM_CALLS.get(os.uname().machine)
    if number is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    call = ctypes.CDLL(None).syscall
    call.argtypes = (*[ctypes.c_long] * 3, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p)
    return functools.partial(call, number, os.P_PID)


def _seconds(seconds: int, microseconds: int) -> float:
    return seconds + microseconds / 1e6
