"""What the kernel counts of processes that it killed because memory ran out.

The counter `oom_kill` is in memory.events of a control group (version 2, with the memory controller), which includes
the groups below it, in memory.oom_control (version 1), and in /proc/vmstat for the whole host.
"""

import re
from pathlib import Path

from gaffer.processes import procfs

HOST = Path("/proc/vmstat")

_OOM_KILL = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_LATELY = 1.0  # seconds


def parse_count(text: bytes) -> int | None:
    """The value of the line `oom_kill N`; None when there is none."""
    found = _OOM_KILL.search(text)
    return int(found[1]) if found else None


def read_count(path: Path) -> int | None:
    """The counter in a file; None when it has none or can't be read."""
    text = procfs.read(str(path), several=True)
    return parse_count(text) if text is not None else None


def own_counter(membership: str, root: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """The file that counts for our control group, of which `membership` is the text of /proc/self/cgroup.

    None where the memory controller is missing.
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
    """Detects that memory ran out: in our control group, whose counter is `own`, or at least somewhere on the host."""

    def __init__(self, own: Path | None, host: Path = HOST) -> None:
        self._here = _Counter(own)
        self._anywhere = _Counter(host)

    @classmethod
    def of_this_process(cls) -> "OomCounters":
        """Those of our control group, as far as there are any."""
        try:
            return cls(own_counter(Path("/proc/self/cgroup").read_text()))
        except OSError:
            return cls(None)

    def was_short(self, now: float) -> bool | None:
        """Whether the kernel killed a process of our group since the last call, or in the second before `now`.

        False when it killed none on the host; None when it killed some other process, or nothing counts.
        """
        # The host counts ours too, so that most often one file is enough.
        if self._anywhere.grew(now) is False:
            return False
        return True if self._here.grew(now) else None


class _Counter:
    """A counter that grew lately, has not grown, or is unknown: several that are killed at once are seen in turn."""

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
        return now - self._grew_at <= _LATELY
