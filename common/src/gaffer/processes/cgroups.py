"""A control group for each process, if ours may be subdivided (cgroups(7), version 2).

Members can't leave it by themselves, however they fork, so it finds and kills descendants that left the process group
and dropped its cookie. Moving a process into it takes up to a millisecond. Processes are not moved while we are in the
root group, which is shared. A process is moved before it executes its program, so everything it forks is inside.
"""

import contextlib
import glob
import logging
import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from gaffer.processes.oom import read_count

log = logging.getLogger("gaffer.processes.cgroups")

_MOUNT = re.compile(r"^\S+ \S+ \S+ (?P<root>\S+) (?P<point>\S+) .*? - cgroup2 ", re.MULTILINE)


def own_cgroup(*, mountinfo: str | None = None, membership: str | None = None) -> Path | None:
    """Return the directory of this process's control group, or None if that is the root group or not writable.

    The arguments replace the contents of /proc/self/mountinfo (proc_pid_mountinfo(5)) and /proc/self/cgroup.
    """
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
        membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
    except OSError:
        return None
    mount = _MOUNT.search(mountinfo)
    group = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    if mount is None or group == "/":
        return None
    path = Path(mount["point"]) / os.path.relpath(group, mount["root"])
    return path if os.access(path, os.W_OK) and os.access(path / "cgroup.procs", os.W_OK) else None


class Cgroups:
    """The control groups below `base`, one for each process, by OS pid.

    Other programs may also create groups in `base`: another gafferd, `gaffer start` in the same terminal. So the names
    of our groups begin with `owner`, a unique id; the default is a new random one, for which `clean` finds nothing.
    """

    def __init__(self, base: Path, owner: str = "", adopted: Iterable[int] = ()) -> None:
        self._base = base
        self._prefix = f"gaffer-{owner or uuid.uuid4().hex}-"
        self._groups = {os_pid: group for os_pid in adopted if (group := self._group(os_pid)).exists()}

    def clean(self) -> None:
        """Kill and remove the groups that an earlier daemon with the same owner left, except of adopted processes."""
        for group in set(self._base.glob(f"{glob.escape(self._prefix)}*")).difference(self._groups.values()):
            _kill(group)
            self._remove(group)

    def _group(self, os_pid: int) -> Path:
        return self._base / f"{self._prefix}{os_pid}"

    def add(self, os_pid: int) -> None:
        """Move a newly started process into its own group."""
        group = self._group(os_pid)
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os_pid))
        except OSError as error:
            log.warning("can't move process %d into a control group: %s", os_pid, error.strerror)
            self._remove(group)
            return
        self._groups[os_pid] = group

    def members(self, os_pid: int) -> set[int]:
        """Return the living processes in the group of `os_pid`."""
        group = self._groups.get(os_pid)
        return set() if group is None else _members(group)

    def kill(self, os_pid: int) -> None:
        """Kill every member of the group of `os_pid` at once."""
        group = self._groups.get(os_pid)
        if group is not None:
            _kill(group)

    def oom_kills(self, os_pid: int) -> int:
        """Return how many processes the kernel killed in the group of `os_pid` because memory ran out; 0 if unknown."""
        group = self._groups.get(os_pid)
        return (group is not None and read_count(group / "memory.events")) or 0

    def remove(self, os_pid: int) -> None:
        """Remove the group of `os_pid`, which must be empty."""
        group = self._groups.pop(os_pid, None)
        if group is not None:
            self._remove(group)

    def _remove(self, group: Path) -> None:
        # Fails while the kernel is still emptying it; the next start removes it then.
        with contextlib.suppress(OSError):
            group.rmdir()


def _members(group: Path) -> set[int]:
    try:
        return {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def _kill(group: Path) -> None:
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:
        # Before Linux 5.14: frozen members can't fork, and SIGKILL still ends them.
        _freeze(group, "1")
        for pid in _members(group):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)
        _freeze(group, "0")


def _freeze(group: Path, frozen: str) -> None:
    with contextlib.suppress(OSError):
        (group / "cgroup.freeze").write_text(frozen)
