"""Checks of the host of a node, if it is this host: limits, files and room of its process."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gaffer_client.cli.findings import Finding, used
from gaffer_client.cli.output import size

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_PIPE_PAGES = 16  # of a new pipe, pipe(7)
_NO_LIMIT = ("unlimited", "max")
_LITTLE, _TOO_LITTLE = 256 * 1024 * 1024, 16 * 1024 * 1024  # bytes of room for state and logs
_FEW_FILES = 4096
_SECRETS = ("keys.json", "state.json", "processes.json")


def check_host(pid: int | None, *, same_host: bool) -> Iterator[Finding]:
    """Yield what is found about the process of gafferd and its state directory."""
    folder = _PROC / str(pid)
    if not same_host or pid is None or not _is_gafferd(folder):
        yield Finding("host", "skip", "the node is not a process of this host: limits, files and disk are not checked")
        return
    try:
        descriptors = list(_descriptors(folder))
        limits = (folder / "limits").read_text()
        uid = folder.stat().st_uid
    except OSError as error:
        yield Finding("host", "skip", f"can't look into process {pid}: {error.strerror}", "run as the user of gafferd")
        return
    yield _files(limits, len(descriptors))
    yield from _processes(folder, limits, uid)
    yield from check_pipes(descriptors, uid)
    state = next((Path(link).parent for link in descriptors if link.endswith("/lock") and _is_state(link)), None)
    if state is not None:
        yield from check_state(state, uid)


def check_state(folder: Path, uid: int) -> Iterator[Finding]:
    """Yield what is found about a state directory of the user `uid`."""
    wrong = [
        str(path) for path in (folder, *(folder / name for name in _SECRETS)) if path.exists() and _is_open(path, uid)
    ]
    hint = f"chmod go-rwx and chown them to the user of gafferd: {', '.join(wrong)}"
    if wrong:
        yield Finding("permissions", "fail", f"others can read or change {', '.join(wrong)}", hint)
    else:
        yield Finding("permissions", "ok", f"only the user of gafferd can read {folder}")
    yield _room(folder)


def _descriptors(folder: Path) -> Iterator[str]:
    """Yield what the descriptors of a process are."""
    for link in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(link)


def _is_gafferd(folder: Path) -> bool:
    try:
        # The daemon rewrites its command line as its title.
        return any(b"gafferd" in (folder / name).read_bytes() for name in ("comm", "cmdline"))
    except OSError:
        return False


def _is_state(lock: str) -> bool:
    return Path(lock).with_name("node.json").exists()


def _is_open(path: Path, uid: int) -> bool:
    found = path.stat()
    return found.st_uid != uid or bool(stat.S_IMODE(found.st_mode) & 0o077)


def _room(folder: Path) -> Finding:
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    text = f"{size(free)} free for {folder}"
    hint = "free some room: without it, changes of jobs are refused and output is lost"
    if room.f_files and room.f_favail < 1000:
        return Finding(
            "disk", "fail" if room.f_favail < 50 else "warn", f"{room.f_favail} files left for {folder}", hint
        )
    if free >= _LITTLE:
        return Finding("disk", "ok", text)
    return Finding("disk", "warn" if free >= _TOO_LITTLE else "fail", text, hint)


def _files(limits: str, number: int) -> Finding:
    match = re.search(r"^Max open files +(\S+) +(\S+)", limits, re.MULTILINE)
    if match is None or match[1] in _NO_LIMIT:
        return Finding("open files", "ok", f"{number} used, no limit")
    hint = "raise LimitNOFILE of the service, or `ulimit -n`; a process needs about 3"
    found = used("open files", "open files", number, int(match[1]), hint)
    if found.verdict == "ok" and int(match[1]) < _FEW_FILES:
        return Finding("open files", "warn", f"at most {match[1]} open files", hint)
    return found


def _processes(folder: Path, limits: str, uid: int) -> Iterator[Finding]:
    match = re.search(r"^Max processes +(\S+)", limits, re.MULTILINE)
    if match is not None and match[1] not in _NO_LIMIT and uid != 0:
        hint = "raise LimitNPROC of the service, or `ulimit -u`"
        yield used("processes", "processes and threads of the user", _threads_of(uid), int(match[1]), hint)
    group = _group_limit(folder)
    if group is not None:
        yield used("processes", "tasks of the control group", *group, "raise TasksMax of the service")
    elif match is None or match[1] in _NO_LIMIT or uid == 0:
        yield Finding("processes", "ok", "no limit of the user or the control group")


def _threads_of(uid: int) -> int:
    number = 0
    for folder in _PROC.glob("[0-9]*"):
        try:
            if folder.stat().st_uid == uid:
                number += len(os.listdir(folder / "task"))
        except OSError:  # it has ended
            continue
    return number


def _group_limit(folder: Path) -> tuple[int, int] | None:
    """Return the tasks of the control group of a process and their limit: of the one that is closest to its limit."""
    try:
        lines = (folder / "cgroup").read_text().splitlines()
    except OSError:
        return None
    found: list[tuple[int, int]] = []
    for line in lines:
        hierarchy, _, path = line.partition("::")
        if hierarchy != "0":
            continue
        place = _CGROUPS / path.lstrip("/")
        for group in (place, *place.parents):
            try:
                limit = (group / "pids.max").read_text().strip()
                if limit not in _NO_LIMIT:
                    found.append((int((group / "pids.current").read_text()), int(limit)))
            except (OSError, ValueError):
                continue
    return max(found, key=lambda pair: pair[0] / pair[1] if pair[1] else 1.0, default=None)


def check_pipes(descriptors: list[str], uid: int) -> Iterator[Finding]:
    """Yield how much of the pipe buffers of a user the outputs of jobs take, pipe(7)."""
    if uid == 0:
        yield Finding("pipes", "ok", "the pipes of root have no limit")
        return
    try:
        limit = int((_PROC / "sys/fs/pipe-user-pages-soft").read_text())
    except (OSError, ValueError):
        return
    if limit == 0:
        yield Finding("pipes", "ok", "the pipes of a user have no limit")
        return
    pages = _PIPE_PAGES * len({link for link in descriptors if link.startswith("pipe:")})
    hint = "raise the sysctl fs.pipe-user-pages-soft: beyond it, new pipes are tiny, and output is slow"
    found = used("pipes", "pages of pipe buffers", pages, limit, hint)
    yield found._replace(verdict="warn") if found.verdict == "fail" else found
