"""Memory, CPU time and the like of OS processes and their descendants, through psutil (STAT rows).

psutil is imported where it is used: a node that nobody asks for stats does without its megabyte.
"""

import functools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from gaffer import procfs
from gaffer.util import bytes2human

if TYPE_CHECKING:
    import psutil

T = TypeVar("T")

_KEYS = ("mem_info1", "mem_info2", "cpu", "mem", "ctime", "username", "nice", "cmdline")
_LEAST_SPAN = 0.01  # seconds; the kernel counts CPU time in such steps


class Usage(NamedTuple):
    """What a process uses itself: CPU time in seconds, resident memory in bytes."""

    cpu_seconds: float
    resident_bytes: int


class Watchable(Protocol):
    """A process of a manager, as far as its stats go: `pid` is the internal id."""

    pid: int
    os_pid: int

    @property
    def active(self) -> bool:
        """Whether it runs."""


def get_process_stats(process: "int | psutil.Process | None" = None, interval: float = 0) -> dict[str, Any]:
    """The stat dict of a process, given by OS pid, of this one without; every value it may not see is `"N/A"`.

    `mem_info1` and `mem_info2` are resident and virtual size for people, `cpu` and `mem` percentages, `ctime` the CPU
    time as minutes:seconds.hundredths, `children` the same dict for each descendant. `cpu` is measured over `interval`
    seconds, which this call then takes, or since the process began when that is 0.
    """
    pid = os.getpid() if process is None else process if isinstance(process, int) else process.pid
    gauges = Gauges()
    result = gauges.measure_all([pid])[0]
    if interval and result is not None:
        time.sleep(interval)
        result = gauges.measure_all([pid])[0]
    return result or nothing()


def stats_of(processes: Iterable[Watchable]) -> list[dict[str, Any]]:
    """The stat dict of each process with its `pid` and `os_pid`; the values are `"N/A"` where it has ended."""
    return finish(measuring(processes))


def measuring(processes: Iterable[Watchable]) -> Generator[None, None, list[dict[str, Any]]]:
    """Does and returns what `stats_of` does, in steps between which the caller may do something else."""
    gauges = Gauges()
    yield from gauges.look()
    found = []
    for process in processes:
        stats = (yield from gauges.measure(process.os_pid)) if process.active else None
        found.append(labelled(process, stats or nothing()))
        yield
    return found


def labelled(process: Watchable, stats: dict[str, Any]) -> dict[str, Any]:
    """`stats` with the two ids of the process they are of."""
    return {**stats, "pid": process.pid, "os_pid": process.os_pid}


def nothing() -> dict[str, Any]:
    """The stat dict of a process that is gone."""
    return {**dict.fromkeys(_KEYS, "N/A"), "children": []}


class Gauges:
    """Measures processes again and again: first `look`, then `measure` each. Not thread-safe.

    `cpu` is the share since the process was measured last, at first since it began. Both methods are generators that
    stop after each process they look at, so that the caller may do something else in between.
    """

    def __init__(self) -> None:
        self._births: dict[int, float] = {}
        self._children: dict[int, list[int]] = {}
        self._gauges: dict[int, _Gauge] = {}

    def measure_all(self, os_pids: Iterable[int | None]) -> list[dict[str, Any] | None]:
        """Look, then measure all of `os_pids`, at once."""
        finish(self.look())
        return [None if pid is None else finish(self.measure(pid)) for pid in os_pids]

    def look(self) -> Iterator[None]:
        """Find out which processes there are and who started whom."""
        births: dict[int, float] = {}
        children: dict[int, list[int]] = {}
        for pid, parent, birth in _everyone():
            births[pid] = birth
            children.setdefault(parent, []).append(pid)
            yield
        self._births, self._children = births, children
        self._gauges = {pid: gauge for pid, gauge in self._gauges.items() if births.get(pid) == gauge.birth}

    def measure(self, os_pid: int) -> Generator[None, None, dict[str, Any] | None]:
        """Return the stats of a process that `look` has found and of its descendants, None when it is gone."""
        found = self._read(os_pid)
        if found is not None:
            for descendant in self._descendants(os_pid):
                yield
                stats = self._read(descendant)
                if stats is not None:
                    found["children"].append({**stats, "os_pid": descendant})
        return found

    def _descendants(self, os_pid: int) -> list[int]:
        found = [os_pid]
        for parent in found:  # grows meanwhile
            # Ids that were used again during the look might make a process its own ancestor.
            found += [child for child in self._children.get(parent, ()) if child != os_pid]
        return found[1:]

    def _read(self, os_pid: int) -> dict[str, Any] | None:
        if os_pid not in self._births:
            return None
        import psutil

        try:
            gauge = self._gauges.get(os_pid)
            if gauge is None:
                gauge = self._gauges[os_pid] = _Gauge(os_pid, self._births[os_pid])
            return gauge.read()
        except psutil.NoSuchProcess:
            return None


class _Gauge:
    """Reads one OS process that began at `birth`, in seconds on our clock; raises NoSuchProcess once it is gone."""

    def __init__(self, os_pid: int, birth: float) -> None:
        import psutil

        self.birth = birth
        self._process = psutil.Process(os_pid)
        self._used = 0.0  # CPU seconds, at the time _at
        self._at = birth

    def read(self) -> dict[str, Any]:
        process = self._process
        result = nothing()
        with process.oneshot():
            memory = _ask(process.memory_info)
            if memory is not None:
                result["mem_info1"] = bytes2human(memory.rss)
                result["mem_info2"] = bytes2human(memory.vms)
                result["mem"] = round(100 * memory.rss / _memory_of_machine(), 2)
            times = _ask(process.cpu_times)
            if times is not None:
                used = times.user + times.system
                result["ctime"] = format_ctime(used)
                result["cpu"] = self._share(used)
            for key, method in (("username", process.username), ("nice", process.nice)):
                value = _ask(method)
                result[key] = "N/A" if value is None else value
            cmdline = _ask(process.cmdline)
            if cmdline is not None:
                # Arguments are bytes; those that are no text must not keep the stats from being JSON.
                result["cmdline"] = " ".join(cmdline).encode(errors="surrogateescape").decode(errors="replace")
        return result

    def _share(self, used: float) -> float:
        now = _now()
        share = 100 * (used - self._used) / max(now - self._at, _LEAST_SPAN)
        self._used, self._at = used, now
        return round(share, 1)


def _ask(method: Callable[[], T]) -> T | None:
    import psutil

    try:
        return method()
    except (psutil.AccessDenied, OSError):
        return None


def finish(generator: Generator[None, None, T] | Iterator[None]) -> T:
    """Take all steps of a generator at once and return its result."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


@functools.cache
def _memory_of_machine() -> int:
    import psutil

    return psutil.virtual_memory().total


if hasattr(time, "CLOCK_BOOTTIME") and any(procfs.all_pids()):
    _TICKS = os.sysconf("SC_CLK_TCK")
    _PAGE = os.sysconf("SC_PAGE_SIZE")

    def usage(os_pid: int) -> Usage | None:
        """What a process uses, without its descendants; None when it is gone. One read, which psutil does slower."""
        times = procfs.read_times(os_pid)
        return Usage(times.cpu / _TICKS, times.resident * _PAGE) if times is not None else None

    def _now() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _everyone() -> Iterator[tuple[int, int, float]]:
        """Pid, parent and birth of every process that is not a zombie; one read each, which psutil does slower."""
        for pid in procfs.all_pids():
            stat = procfs.read_stat(pid)
            if stat is not None and stat.state not in "ZX":
                yield pid, stat.ppid, stat.start_time / _TICKS

else:

    def usage(os_pid: int) -> Usage | None:
        """What a process uses, without its descendants; None when it is gone."""
        import psutil

        try:
            process = psutil.Process(os_pid)
            times = process.cpu_times()
            return Usage(times.user + times.system, process.memory_info().rss)
        except psutil.Error:
            return None

    def _now() -> float:
        return time.time()

    def _everyone() -> Iterator[tuple[int, int, float]]:
        import psutil

        for process in psutil.process_iter(["ppid", "create_time"]):
            yield process.pid, process.info["ppid"], process.info["create_time"]


def format_ctime(seconds: float) -> str:
    """CPU time as `minutes:seconds.hundredths` (STAT-09)."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"
