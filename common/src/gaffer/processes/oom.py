"""The kernel's counters of processes that it killed because memory ran out.

The counter `oom_kill` of a control group is in memory.events (version 2, with the memory controller; includes the
groups below it) or memory.oom_control (version 1), that of the whole host in /proc/vmstat.
"""

import re
from pathlib import Path

from gaffer.processes import procfs

HOST = Path("/proc/vmstat")

_OOM_KILL = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_RECENT = 1.0  # seconds


def parse_count(text: bytes) -> int | None:
    """Return the value of the line `oom_kill N`, or None."""
    found = _OOM_KILL.search(text)
    return int(found[1]) if found else None


def read_count(path: Path) -> int | None:
    """Return the counter in a file, or None if it has none or can't be read."""
    text = procfs.read(str(path), several=True)
    return parse_count(text) if text is not None else None


def own_counter(membership: str, root: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """Return the file with the counter of our control group, or None if the memory controller is missing.

    `membership` is the text of /proc/self/cgroup.
    """
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        path = root / "memory" / group[1:] / "memory.oom_control"
        if not controllers:
            path = root / group[1:] / "memory.events"
        if (not controllers or "memory" in controllers.split(",")) and path.exists():
            return path
    return None


class OomCounters:
    """A detector of memory exhaustion, in our control group (whose counter is `own`) or anywhere on the host."""

    def __init__(self, own: Path | None, host: Path = HOST) -> None:
        self._here = _Counter(own)
        self._anywhere = _Counter(host)

    @classmethod
    def of_this_process(cls) -> "OomCounters":
        """Return the counters of our control group and host, as far as they exist."""
        try:
            return cls(own_counter(Path("/proc/self/cgroup").read_text()))
        except OSError:
            return cls(None)

    def was_short(self, now: float) -> bool | None:
        """Return whether the kernel killed a process of our group since the last call, or in the second before `now`.

        False if it killed none on the host; None if it killed some other process, or there is no counter.
        """
        # The host's counter includes ours, so one file is usually enough.
        if self._anywhere.grew(now) is False:
            return False
        return True if self._here.grew(now) else None


class _Counter:
    """A counter. An increase counts for a second, since several processes killed at once are examined in turn."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last = None if path is None else read_count(path)
        self._grew_at = float("-inf")

    def grew(self, now: float) -> bool | None:
        count = None if self._path is None else read_count(self._path)
        if count is None or self._last is None:
            self._last = count
            return None
        if count > self._last:
            self._grew_at = now
        self._last = count
        return now - self._grew_at <= _RECENT
