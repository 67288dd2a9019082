"""Read /proc (proc_pid_stat(5)); results are None or empty if a process is gone or /proc is missing."""

import errno
import os
import re
import time
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

_CHUNK = 4096


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that Gaffer needs; `start_time` in clock ticks since boot."""

    pid: int
    state: str
    ppid: int
    pgrp: int
    session: int
    start_time: int


def is_readable() -> bool:
    """Return whether files of /proc can be opened; false if out of descriptors, when all processes seem gone."""
    try:
        os.close(os.open("/proc/self/stat", os.O_RDONLY))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True


def read_stat(pid: int) -> Stat | None:
    """Return the state of process `pid`, or None if it does not exist."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def pid_of(pidfd: int) -> int | None:
    """Return the pid of the process that a pidfd refers to; None if it was reaped or is not a pidfd."""
    found = re.search(rb"^Pid:\s*(\d+)$", read(f"/proc/self/fdinfo/{pidfd}") or b"", re.MULTILINE)
    return int(found[1]) if found else None


def _stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the third (the state) to the 24th (the resident memory)."""
    text = read(f"/proc/{pid}/stat")
    # The program's name is in parentheses and may contain any character.
    return text[text.rindex(b")") + 2 :].split(None, 22) if text else None


def read(path: str, *, several: bool = False) -> bytes | None:
    """Return the content of a file of /proc or /sys, or None if it can't be read. Three times as fast as `open`.

    `several`: it has several records. A short read is not the last one then: each returns as many as fit into a page.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = part = os.read(descriptor, _CHUNK)
        while len(part) == _CHUNK or (several and part):
            part = os.read(descriptor, _CHUNK)
            text += part
        return text
    except OSError:  # the process has exited
        return None
    finally:
        os.close(descriptor)


class Times(NamedTuple):
    """The resources that a process itself uses, its parent and its process group.

    `cpu` (user and system) and `start_time` (since boot) are in clock ticks, `resident` in pages, `virtual` in bytes.
    """

    state: str
    ppid: int
    pgrp: int
    cpu: int
    nice: int
    start_time: int
    virtual: int
    resident: int


def read_times(pid: int) -> Times | None:
    """Return the resources that process `pid` uses, or None if it does not exist."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    return Times(
        fields[0].decode(),
        int(fields[1]),
        int(fields[2]),
        int(fields[11]) + int(fields[12]),
        int(fields[16]),
        int(fields[19]),
        int(fields[20]),
        int(fields[21]),
    )


def read_zombie_times(pid: int) -> tuple[float, float] | None:
    """Return the user and system time in seconds of a zombie and its reaped descendants; None if it is not one."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] != b"Z":
        return None
    user, system, children_user, children_system = map(int, fields[11:15])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + children_user) / ticks, (system + children_system) / ticks


def read_uid(pid: int) -> int | None:
    """Return the real uid of process `pid`, or None if it does not exist."""
    status = read(f"/proc/{pid}/status")
    found = re.search(rb"^Uid:\t(\d+)", status, re.MULTILINE) if status else None
    return int(found[1]) if found else None


def read_cmdline(pid: int) -> str | None:
    """Return the command line of process `pid`, joined by spaces, or None if it does not exist.

    Bytes that are not UTF-8 become replacement characters.
    """
    text = read(f"/proc/{pid}/cmdline")
    return text.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace") if text is not None else None


def age(start_time: int) -> float:
    """Return how many seconds ago `start_time` was, which is in clock ticks since boot."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start_time / os.sysconf("SC_CLK_TCK"))


def clock_ticks() -> int:
    """Return the current time in clock ticks since boot, the unit of start times."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def owner(pid: int) -> int | None:
    """Return the effective uid of process `pid`, or None if it does not exist."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def read_variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment that process `pid` was started with, "" if it is unset.

    None if the process is gone, its environment is empty or can't be read.
    """
    text = read(f"/proc/{pid}/environ")
    if not text:
        return None
    _, found, rest = (b"\0" + text).partition(f"\0{name}=".encode())
    return rest.partition(b"\0")[0].decode(errors="replace") if found else ""


def all_pids() -> Iterator[int]:
    """Yield the pid of every process."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            yield int(name)


def children(pid: int | None = None) -> set[int]:
    """Return the children of process `pid`, by default of this one, including zombies and adopted ones."""
    found: set[int] = set()
    folder = f"/proc/{pid or 'self'}/task"
    try:
        tasks = os.listdir(folder)
    except OSError:
        return found
    for task in tasks:
        found.update(map(int, (read(f"{folder}/{task}/children", several=True) or b"").split()))
    return found


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot, or an empty string."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
