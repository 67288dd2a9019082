"""A control group for each process, where we have one of our own to divide (cgroups(7), version 2).

Members can't leave it by themselves, however they fork, so it finds and kills what left the process group and shed its
cookie. It costs most of a millisecond a process, for moving it there; so nobody is moved in the root group, which is
not ours alone. A process is moved before it executes its program, so nothing that it forks stays outside.
"""

import contextlib
import glob
import logging
import os
import re
import uuid
from pathlib import Path

from gaffer.processes.oom import read_count

log = logging.getLogger("gaffer.processes.cgroups")

_MOUNT = re.compile(r"^\S+ \S+ \S+ (?P<root>\S+) (?P<point>\S+) .*? - cgroup2 ", re.MULTILINE)


def own_cgroup(*, mountinfo: str | None = None, membership: str | None = None) -> Path | None:
    """The directory of the control group this process is in, when it is not the root group and may be divided.

    The arguments stand for /proc/self/mountinfo (proc_pid_mountinfo(5)) and /proc/self/cgroup.
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
    """The control groups below `base`, one a process, by OS pid.

    Others may divide `base` too: another gafferd, `gaffer start` in the same terminal. So the names of the groups begin
    with `owner`, a random id that nobody else has; without one it is made here, and then nothing is left to clean.
    """

    def __init__(self, base: Path, owner: str = "") -> None:
        self._base = base
        self._prefix = f"gaffer-{owner or uuid.uuid4().hex}-"
        self._groups: dict[int, Path] = {}

    def clean(self) -> None:
        """Kill and remove what an earlier daemon of the same owner left here."""
        for group in self._base.glob(f"{glob.escape(self._prefix)}*"):
            _kill(group)
            self._remove(group)

    def add(self, os_pid: int) -> None:
        """Put a process that was started just now in a group of its own."""
        group = self._base / f"{self._prefix}{os_pid}"
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os_pid))
        except OSError as error:
            log.warning("process %d gets no control group: %s", os_pid, error.strerror)
            self._remove(group)
            return
        self._groups[os_pid] = group

    def members(self, os_pid: int) -> set[int]:
        """The living processes in the group of `os_pid`."""
        group = self._groups.get(os_pid)
        return set() if group is None else _members(group)

    def kill(self, os_pid: int) -> None:
        """Kill every member of the group of `os_pid` at once."""
        group = self._groups.get(os_pid)
        if group is not None:
            _kill(group)

    def oom_kills(self, os_pid: int) -> int:
        """How many processes the kernel killed in the group of `os_pid` because memory ran out; 0 if unknown."""
        group = self._groups.get(os_pid)
        return (group is not None and read_count(group / "memory.events")) or 0

    def remove(self, os_pid: int) -> None:
        """Forget the group of `os_pid`, in which nothing lives any more."""
        group = self._groups.pop(os_pid, None)
        if group is not None:
            self._remove(group)

    def _remove(self, group: Path) -> None:
        # Busy while the kernel is still at it; what stays is removed at the next start.
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
        # Before Linux 5.14: frozen members fork no more, and SIGKILL ends them all the same.
        _freeze(group, "1")
        for pid in _members(group):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)
        _freeze(group, "0")


def _freeze(group: Path, frozen: str) -> None:
    with contextlib.suppress(OSError):
        (group / "cgroup.freeze").write_text(frozen)
