"""The files of running programs, and whether they have changed on disk since the start."""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

# Programs whose first argument that is not an option can be a file with the actual program.
_INTERPRETER = re.compile(
    r"(?:python|pypy|node|nodejs|bun|ruby|perl|php|lua|java|Rscript|bash|dash|ksh|sh|zsh)[0-9.]*", re.ASCII
)
_DELETED = " (deleted)"


class FileMark(NamedTuple):
    """A file, and what changes when it is written or replaced."""

    path: str
    device: int
    inode: int
    modified: int


def mark_files(argv: Sequence[str], path: str, cwd: str | None) -> tuple[FileMark, ...]:
    """Return the marks of the program that `argv` runs in `cwd`: its file and, for an interpreter, that of the script.

    `path` is the variable PATH. Files that are not found are left out.
    """
    return tuple(_marks(argv, path, cwd or ""))


def _marks(argv: Sequence[str], path: str, cwd: str) -> Iterator[FileMark]:
    program = argv[0]
    folders = [""] if os.path.dirname(program) else path.split(os.pathsep)
    found = (_mark(os.path.join(cwd, folder, program), executable=True) for folder in folders)
    yield from islice(filter(None, found), 1)
    if _INTERPRETER.fullmatch(os.path.basename(program)):
        script = next((word for word in argv[1:] if not word.startswith("-")), None)
        if script is not None and (mark := _mark(os.path.join(cwd, script))):
            yield mark


def _mark(path: str, *, executable: bool = False) -> FileMark | None:
    """Return the mark of a regular file, None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode) or (executable and not status.st_mode & 0o111):
        return None
    return FileMark(path, status.st_dev, status.st_ino, status.st_mtime_ns)


Programs = Mapping[int, tuple[int, Sequence[FileMark]]]
"""The system's pids of processes, and the marks of their programs at the start, by any key."""


def find_changed(processes: Programs) -> dict[int, str]:
    """Return the changed files of programs, by the keys of their processes.

    An executable counts as changed too when another file has taken its place, which shows programs that a shell or
    wrapper has started in its own place. Removed files do not count. Blocks while files are looked up.
    """
    changed: dict[int, str] = {}
    marks: dict[str, FileMark | None] = {}
    for key, (os_pid, before) in processes.items():
        for mark in before:
            if mark.path not in marks:
                marks[mark.path] = _mark(mark.path)
            if marks[mark.path] not in (mark, None):
                changed[key] = mark.path
        if key not in changed and (replaced := _replaced_executable(os_pid)):
            changed[key] = replaced
    return changed


def _replaced_executable(os_pid: int) -> str | None:
    """Return the path of the executable of a process if another file is there now."""
    try:
        path = os.readlink(f"/proc/{os_pid}/exe")
    except OSError:  # it has exited, or belongs to another user
        return None
    found = path.removesuffix(_DELETED)
    return found if found != path and not os.path.exists(path) and os.path.exists(found) else None
