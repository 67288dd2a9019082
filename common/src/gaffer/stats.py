"""Memory, CPU time and the like of OS processes, through psutil (STAT rows)."""

import time
from typing import Any

import psutil

from gaffer.util import bytes2human

_KEYS = ("mem_info1", "mem_info2", "cpu", "mem", "ctime", "username", "nice", "cmdline")


def nothing() -> dict[str, Any]:
    """The stat dict of a process that is gone."""
    return {**dict.fromkeys(_KEYS, "N/A"), "children": []}


def get_process_stats(process: "int | psutil.Process | None" = None, interval: float = 0) -> dict[str, Any]:
    """The stat dict of a process, given by OS pid; every value it may not see or that is gone is `"N/A"`.

    `mem_info1` and `mem_info2` are resident and virtual size for people, `cpu` and `mem` percentages, `ctime` the CPU
    time as minutes:seconds.hundredths, `children` the same dict for each descendant. `cpu` is measured over `interval`
    seconds, or since the process began when that is 0.
    """
    try:
        if not isinstance(process, psutil.Process):
            process = psutil.Process(process)
        return _stats(process, interval, with_children=True)
    except psutil.Error:
        return nothing()


def _stats(process: psutil.Process, interval: float, *, with_children: bool) -> dict[str, Any]:
    result = nothing()
    with process.oneshot():
        memory = _ask(process.memory_info)
        if memory is not None:
            result["mem_info1"] = bytes2human(memory.rss)
            result["mem_info2"] = bytes2human(memory.vms)
        times = _ask(process.cpu_times)
        if times is not None:
            result["ctime"] = format_ctime(times.user + times.system)
            result["cpu"] = _percent(process, interval, times.user + times.system)
        share = _ask(process.memory_percent)
        if share is not None:
            result["mem"] = round(share, 2)
        for key, method in (("username", process.username), ("nice", process.nice)):
            value = _ask(method)
            result[key] = "N/A" if value is None else value
        cmdline = _ask(process.cmdline)
        if cmdline is not None:
            result["cmdline"] = " ".join(cmdline)
    if with_children:
        descendants = _ask(lambda: process.children(recursive=True)) or []
        result["children"] = [
            {**_stats(child, interval, with_children=False), "os_pid": child.pid} for child in descendants
        ]
    return result


def _percent(process: psutil.Process, interval: float, used: float) -> float:
    if interval:
        return float(_ask(lambda: process.cpu_percent(interval)) or 0.0)
    age = max(time.time() - process.create_time(), 0.01)
    return round(100 * used / age, 1)


def _ask(method: Any) -> Any:
    try:
        return method()
    except (psutil.Error, OSError, KeyError):
        return None


def format_ctime(seconds: float) -> str:
    """CPU time as `minutes:seconds.hundredths` (STAT-09)."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"
