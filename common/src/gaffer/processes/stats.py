"""Resource usage of OS processes and their descendants.

Read from /proc, or through psutil on systems without it. Importing psutil takes a megabyte, so it is done on first use.
"""

import functools
import os
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from gaffer.processes import procfs

if TYPE_CHECKING:
    import psutil

T = TypeVar("T")

_KEYS = ("mem_info1", "mem_info2", "cpu", "mem", "ctime", "username", "nice", "cmdline")
_LEAST_SPAN = 0.01  # seconds; the kernel counts CPU time in such steps
_IDENTITY_KEPT = 1.0  # seconds
_MOST_IDENTITIES = 4096


class Usage(NamedTuple):
    """The resources that a process itself uses: CPU time in seconds, resident memory in bytes."""

    cpu_seconds: float
    resident_bytes: int


class Watchable(Protocol):
    """A process of a manager: `pid` is Gaffer's, `os_pid` the system's."""

    pid: int
    os_pid: int

    @property
    def active(self) -> bool:
        """Whether it is running."""


def get_process_stats(process: "int | psutil.Process | None" = None, interval: float = 0) -> dict[str, Any]:
    """Return the stats of a process, by OS pid, by default of this one; inaccessible values are `"N/A"`.

    `mem_info1` and `mem_info2` are the resident and virtual size in human-readable form, `cpu` and `mem` percentages,
    `ctime` the CPU time as minutes:seconds.hundredths, `children` a list of the same for each descendant. `cpu` is
    measured over `interval` seconds, which this call then takes, or since the start of the process if that is 0.
    """
    pid = os.getpid() if process is None else process if isinstance(process, int) else process.pid
    gauges = Gauges()
    result = gauges.measure_all([pid])[0]
    if interval and result is not None:
        time.sleep(interval)
        result = gauges.measure_all([pid])[0]
    return result or nothing()


def stats_of(processes: Iterable[Watchable]) -> list[dict[str, Any]]:
    """Return the stats of each process with its `pid` and `os_pid`; the values are `"N/A"` if it has exited."""
    return finish(measuring(processes))


def measuring(processes: Iterable[Watchable]) -> Generator[None, None, list[dict[str, Any]]]:
    """Do the same as `stats_of`, as a generator that yields after each step."""
    gauges = Gauges()
    yield from gauges.look()
    found = []
    for process in processes:
        stats = (yield from gauges.measure(process.os_pid)) if process.active else None
        found.append(labelled(process, stats or nothing()))
        yield
    return found


def labelled(process: Watchable, stats: dict[str, Any]) -> dict[str, Any]:
    """Return `stats` with both ids of their process."""
    return {**stats, "pid": process.pid, "os_pid": process.os_pid}


def nothing() -> dict[str, Any]:
    """Return the stats of a process that is gone."""
    return {**dict.fromkeys(_KEYS, "N/A"), "children": []}


class ProcessTable:
    """A reading of every process of the host, by OS pid, and their descent. Not thread-safe."""

    def __init__(self) -> None:
        self.readings: dict[int, Reading] = {}
        self._children: dict[int, list[int]] = {}

    def read(self) -> Iterator[None]:
        """Read the usage and the parent of every process; yields after each, and replaces the readings at the end."""
        readings: dict[int, Reading] = {}
        children: dict[int, list[int]] = {}
        for reading in _everyone():
            readings[reading.os_pid] = reading
            children.setdefault(reading.parent, []).append(reading.os_pid)
            yield
        self.readings, self._children = readings, children

    def children(self, os_pid: int) -> list[int]:
        """Return the children of a process."""
        return self._children.get(os_pid, [])

    def trees(self, roots: Iterable[int]) -> list[int]:
        """Return `roots` and all their descendants, each once, parents first."""
        found = list(dict.fromkeys(roots))
        # Pids reused during `read` might make a process its own ancestor.
        seen = set(found)
        for parent in found:  # grows in the loop
            fresh = [child for child in self.children(parent) if child not in seen]
            seen.update(fresh)
            found += fresh
        return found


class Gauges:
    """Repeated measurements of processes: first `look`, then `measure` each. Not thread-safe.

    `cpu` is the share since the process was last measured, or since its start the first time. Both methods are
    generators that yield after each process.
    """

    def __init__(self) -> None:
        self._table = ProcessTable()
        # At the last measurement: the start of the process, its CPU seconds, and the time of measurement.
        self._counted: dict[int, tuple[float, float, float]] = {}

    def measure_all(self, os_pids: Iterable[int | None]) -> list[dict[str, Any] | None]:
        """Look, then measure all of `os_pids`, at once."""
        finish(self.look())
        return [None if pid is None else finish(self.measure(pid)) for pid in os_pids]

    def look(self) -> Iterator[None]:
        """Read the usage and the parent of every process."""
        yield from self._table.read()
        found = self._table.readings
        self._counted = {
            pid: counted for pid, counted in self._counted.items() if pid in found and found[pid].birth == counted[0]
        }

    def measure(self, os_pid: int) -> Generator[None, None, dict[str, Any] | None]:
        """Return the stats of a process that `look` found, and of its descendants; None if it is gone."""
        found = self._describe(os_pid)
        if found is not None:
            for descendant in self._table.trees([os_pid])[1:]:
                yield
                stats = self._describe(descendant)
                if stats is not None:
                    found["children"].append({**stats, "os_pid": descendant})
        return found

    def _describe(self, os_pid: int) -> dict[str, Any] | None:
        reading = self._table.readings.get(os_pid)
        identity = _identities.of(reading) if reading is not None else None
        if reading is None or identity is None:
            return None
        return {
            "mem_info1": "N/A" if reading.resident is None else bytes2human(reading.resident),
            "mem_info2": "N/A" if reading.virtual is None else bytes2human(reading.virtual),
            "cpu": "N/A" if reading.cpu_seconds is None else self._share(reading, reading.cpu_seconds),
            "mem": "N/A" if reading.resident is None else round(100 * reading.resident / _memory_of_machine(), 2),
            "ctime": "N/A" if reading.cpu_seconds is None else format_ctime(reading.cpu_seconds),
            "username": identity.username,
            "nice": "N/A" if reading.nice is None else reading.nice,
            "cmdline": identity.cmdline,
            "children": [],
        }

    def _share(self, reading: "Reading", used: float) -> float:
        _, before, since = self._counted.get(reading.os_pid, (0.0, 0.0, reading.birth))
        self._counted[reading.os_pid] = (reading.birth, used, reading.at)
        return round(100 * (used - before) / max(reading.at - since, _LEAST_SPAN), 1)


class Reading(NamedTuple):
    """A reading of the resources of a process, in seconds and bytes; None if not accessible.

    `birth` and `at`, the time of the reading, are seconds on the same clock.
    """

    os_pid: int
    parent: int
    group: int | None
    birth: float
    at: float
    cpu_seconds: float | None
    resident: int | None
    virtual: int | None
    nice: int | None


class Identity(NamedTuple):
    """The user and command line of a process; "N/A" if not accessible."""

    username: str
    cmdline: str


class _Identities:
    """A cache of identities, each read at most once a second: they rarely change, and are expensive to read."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, float, Identity]] = {}

    def of(self, reading: Reading) -> Identity | None:
        """Return the identity of a process, or None if it is gone."""
        birth, at, identity = self._known.get(reading.os_pid, (None, 0.0, None))
        if birth == reading.birth and reading.at - at < _IDENTITY_KEPT:
            return identity
        identity = _identify(reading.os_pid)
        self._known.pop(reading.os_pid, None)
        if identity is not None:
            self._known[reading.os_pid] = (reading.birth, reading.at, identity)
            if len(self._known) > _MOST_IDENTITIES:
                del self._known[next(iter(self._known))]  # the one that was read first
        return identity


_identities = _Identities()


def finish(generator: Generator[None, None, T] | Iterator[None]) -> T:
    """Run a generator to its end and return its result."""
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
        """Return the usage of a process without its descendants; None if it is gone. Faster than psutil."""
        times = procfs.read_times(os_pid)
        return Usage(times.cpu / _TICKS, times.resident * _PAGE) if times is not None else None

    def _everyone() -> Iterator[Reading]:
        """Yield a reading of every process that is not a zombie. Faster than psutil."""
        for pid in procfs.all_pids():
            times = procfs.read_times(pid)
            if times is not None and times.state not in "ZX":
                _, ppid, pgrp, cpu, nice, start, virtual, resident = times
                now = time.clock_gettime(time.CLOCK_BOOTTIME)
                yield Reading(pid, ppid, pgrp, start / _TICKS, now, cpu / _TICKS, resident * _PAGE, virtual, nice)

    def _identify(os_pid: int) -> Identity | None:
        uid, cmdline = procfs.read_uid(os_pid), procfs.read_cmdline(os_pid)
        if uid is None or cmdline is None:
            return None
        return Identity(_name_of(uid), cmdline)

    def _name_of(uid: int) -> str:
        import pwd

        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)

else:

    def usage(os_pid: int) -> Usage | None:
        """Return the usage of a process without its descendants; None if it is gone."""
        import psutil

        try:
            process = psutil.Process(os_pid)
            times = process.cpu_times()
            return Usage(times.user + times.system, process.memory_info().rss)
        except psutil.Error:
            return None

    def _group_of(os_pid: int) -> int | None:
        try:
            return os.getpgid(os_pid)
        except OSError:
            return None

    def _everyone() -> Iterator[Reading]:
        import psutil

        for process in psutil.process_iter(["ppid", "create_time", "cpu_times", "memory_info", "nice"]):
            of = process.info
            times, memory = of["cpu_times"], of["memory_info"]
            yield Reading(
                process.pid,
                of["ppid"],
                _group_of(process.pid),
                of["create_time"],
                time.time(),
                times and times.user + times.system,
                memory and memory.rss,
                memory and memory.vms,
                of["nice"],
            )

    def _identify(os_pid: int) -> Identity | None:
        import psutil

        try:
            of = psutil.Process(os_pid).as_dict(["username", "cmdline"], ad_value="N/A")
        except psutil.NoSuchProcess:
            return None
        return Identity(of["username"], of["cmdline"] if of["cmdline"] == "N/A" else " ".join(of["cmdline"]))


def format_ctime(seconds: float) -> str:
    """Return CPU time as `minutes:seconds.hundredths`."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"


def bytes2human(n: int) -> str:
    """Return a number of bytes in the largest fitting unit (powers of 1024), rounded down: `9K`, `12M`, `100B`."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"expected a number of bytes as int, got {type(n).__name__}")
    power = min((n.bit_length() - 1) // 10, 8) if n > 0 else 0
    return f"{n >> 10 * power}{'BKMGTPEZY'[power]}"
