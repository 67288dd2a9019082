"""What /proc tells of processes (proc_pid_stat(5)); None or nothing where a process is gone or /proc is missing."""

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
    """Whether files of /proc can be opened now: false when descriptors ran out, and then all processes seem gone."""
    try:
        os.close(os.open("/proc/self/stat", os.O_RDONLY))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True


def read_stat(pid: int) -> Stat | None:
    """The state of process `pid`, or None when there is none."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def _stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the third, the state, to the 24th, the resident memory."""
    text = read(f"/proc/{pid}/stat")
    # The program's name is in parentheses and may contain any character.
    return text[text.rindex(b")") + 2 :].split(None, 22) if text else None


def read(path: str, *, several: bool = False) -> bytes | None:
    """The content of a file of /proc or /sys; None when it can't be read. A third of the time that `open` takes.

    `several`: it has several records. Then a short read is not the last one: each returns as many as fit in a page.
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
    except OSError:  # the process ended meanwhile
        return None
    finally:
        os.close(descriptor)


class Times(NamedTuple):
    """What a process uses itself, and whose child it is.

    `cpu` (user and system) and `start_time` (since boot) are in clock ticks, `resident` in pages, `virtual` in bytes.
    """

    state: str
    ppid: int
    cpu: int
    nice: int
    start_time: int
    virtual: int
    resident: int


def read_times(pid: int) -> Times | None:
    """What process `pid` uses, or None when there is none."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    return Times(
        fields[0].decode(),
        int(fields[1]),
        int(fields[11]) + int(fields[12]),
        int(fields[16]),
        int(fields[19]),
        int(fields[20]),
        int(fields[21]),
    )


def read_uid(pid: int) -> int | None:
    """The real user id of process `pid`, or None when there is none."""
    status = read(f"/proc/{pid}/status")
    found = re.search(rb"^Uid:\t(\d+)", status, re.MULTILINE) if status else None
    return int(found[1]) if found else None


def read_cmdline(pid: int) -> str | None:
    """The command line of process `pid`, arguments joined by blanks; None when there is no process.

    Arguments are bytes; those that are not text have replacement characters.
    """
    text = read(f"/proc/{pid}/cmdline")
    return text.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace") if text is not None else None


def age(start_time: int) -> float:
    """How many seconds ago `start_time` was, in clock ticks since boot."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start_time / os.sysconf("SC_CLK_TCK"))


def clock_ticks() -> int:
    """Now, as start times of processes are given: in clock ticks since boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def owner(pid: int) -> int | None:
    """The effective uid of process `pid`, or None when there is none."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def read_environ(pid: int) -> dict[str, str] | None:
    """The environment that process `pid` was started with; None when it has none any more or may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    pairs = (item.partition("=") for item in text.split("\0") if item)
    return {name: value for name, _, value in pairs} or None


def all_pids() -> Iterator[int]:
    """Every process there is."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            yield int(name)


def children(pid: int | None = None) -> set[int]:
    """The children of process `pid`, by default of this one, zombies and adopted ones included."""
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
    """The identity of this boot of the kernel; empty where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
