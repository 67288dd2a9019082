"""Open files that control Gaffer: keys, configuration, state, certificates.

Such a file must belong to root or our own user and be writable by nobody else; the same goes for symbolic links in its
path. A warning is logged for a directory in its path that other users can write to: they can move the file away, but a
replacement would belong to them and be refused. For programs, pages and sockets, such a directory is refused too. A
directory with the sticky bit (/tmp) is safe: everyone may create files there, but not replace those of others.
"""

import errno
import grp
import logging
import os
import pwd
import re
import stat
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from gaffer.errors import GafferError, InvalidValue

_MAX_LINKS = 40  # the kernel's limit, path_resolution(7)
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})|/dev/(stdin|stdout|stderr)")
_STANDARD = ("stdin", "stdout", "stderr")
logger = logging.getLogger(__name__)

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UntrustedFile(GafferError):
    """A file that controls Gaffer and belongs to, or can be changed by, another user."""

    errno = 400
    reason = "untrusted_file"


class Content(NamedTuple):
    """The content of a file and its `st_mode`."""

    data: bytes
    mode: int


def find_danger(status: os.stat_result, uid: int) -> str | None:
    """Return why users other than root and `uid` can change a file or folder with this status, or None."""
    if status.st_uid not in (0, uid):
        return f"it belongs to the user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return "everyone can write to it"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, uid):
        return "its group can write to it"
    return None


@lru_cache(maxsize=64)
def _is_private_group(gid: int, uid: int) -> bool:
    """Return whether a group belongs to an ordinary user alone; some systems make it writable by default (umask 002).

    Such a group has the name of the user and no other members, as created by useradd(8).
    """
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return uid != 0 and user.pw_gid == gid and user.pw_name == group.gr_name and {*group.gr_mem} <= {user.pw_name}


def inherited_descriptor(path: str | os.PathLike[str]) -> int | None:
    """Return the open descriptor that `path` refers to (`/dev/fd/63`, `/dev/stdin`), or None for other paths.

    Shells pass `<(command)` this way. Our parent opened it, so it needs no checks.
    """
    match = _DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None:
        return None
    return int(match[1]) if match[1] else _STANDARD.index(match[2])


def read_trusted(
    path: str | os.PathLike[str], limit: int = -1, *, descriptors: bool = False, follow: bool = False
) -> Content:
    """Read a file, up to `limit` bytes unless that is negative.

    `descriptors` also accepts paths of inherited descriptors; otherwise like `open_trusted`.
    """
    number = inherited_descriptor(path) if descriptors else None
    descriptor = open_trusted(path, follow=follow) if number is None else os.dup(number)
    with open(descriptor, "rb") as file:
        return Content(file.read(limit), os.fstat(descriptor).st_mode)


def open_trusted(path: str | os.PathLike[str], *, follow: bool = False) -> int:
    """Return a descriptor for reading the regular file at `path`.

    `follow` allows `path` to be a symbolic link that only root and our own user can change. Raises UntrustedFile, and
    OSError like open(2).
    """
    uid = os.geteuid()
    resolved = check_way(path, follow=follow)
    try:
        descriptor = os.open(resolved, os.O_RDONLY | _OPEN)
    except OSError:
        if resolved.is_symlink():
            raise _untrusted(path, "it is a symbolic link", "give the path of the file itself") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _untrusted(path, "it is not a regular file", "give the path of a file")
        if danger := find_danger(status, uid):
            raise _untrusted(path, danger, _what_to_do(resolved, status))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_log(path: str | os.PathLike[str], mode: int = 0o600) -> int:
    """Return a descriptor for appending to the file at `path`, which is created with `mode` if missing.

    Links are not followed, and it never waits for a reader. Raises UntrustedFile for anything but a file or terminal
    device of root or our own user, and for a hard link that other users may have made to one of our files; OSError like
    open(2). Directories in the path are not checked, since other users gain nothing by moving a log away.
    """
    number = inherited_descriptor(path)
    if number is not None:
        return os.dup(number)
    return _open_log(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)


def open_log_to_read(path: str | os.PathLike[str]) -> int:
    """Return a descriptor for reading the log at `path`, under the conditions of `open_log`; raises the same."""
    return _open_log(path, os.O_RDONLY)


def _open_log(path: str | os.PathLike[str], flags: int, mode: int = 0) -> int:
    try:
        descriptor = os.open(path, flags | _OPEN, mode)
    except OSError:
        if fault := _what_is_there(path):
            raise _untrusted(path, fault, "remove it, or use another path") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            raise _untrusted(path, "it is not a regular file", "remove it, or use another path")
        if status.st_uid not in (0, os.geteuid()):
            raise _untrusted(path, f"it belongs to the user {status.st_uid}", "remove it, or use another path")
        if status.st_nlink > 1 and os.stat(Path(path).parent).st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            raise _untrusted(path, "it is a hard link to another file", "remove it, or use another path")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_way(path: str | os.PathLike[str], *, follow: bool = False, strict: bool = False) -> Path:
    """Return the absolute path with its directories resolved, and with `follow` also its last component.

    Raises UntrustedFile for a link of another user in the path, with `strict` also for a directory that other users can
    write to (otherwise logged); OSError if a component is missing. The last component is not checked unless it is a
    link to follow.
    """
    uid = os.geteuid()
    place = Path("/")
    # The working directory may have been removed, which must not matter to an absolute path.
    full = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    waiting = [part for part in reversed(os.fspath(full).split("/")) if part not in ("", ".")]
    links = 0
    check = check_directory if strict else _warn_of_directory
    check(path, place)
    while waiting:
        part = waiting.pop()
        if part == "..":
            place = place.parent
            continue
        inner = place / part
        if not waiting and not follow:
            return inner
        status = os.lstat(inner)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
            if status.st_uid not in (0, uid):
                raise _untrusted(path, f"the symbolic link {inner} belongs to the user {status.st_uid}", "remove it")
            target = os.readlink(inner)
            waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            place = Path("/") if target.startswith("/") else place
        elif waiting:
            place = inner
            check(path, place)
        else:
            return inner
    return place


def check_directory(path: str | os.PathLike[str], place: Path, uid: int | None = None) -> None:
    """Raise UntrustedFile if other users can replace files in the directory `place`, such as `path`.

    `uid` is a user that may, besides root and our own.
    """
    status = os.stat(place, follow_symlinks=False)
    danger = _danger_in(status)
    if danger and (uid is None or find_danger(status, uid)):
        raise UntrustedFile(
            f"{os.fspath(path)} is not trusted because of the directory {place}: {danger}",
            hint=_what_to_do(place, status),
        )


def _warn_of_directory(path: str | os.PathLike[str], place: Path) -> None:
    status = os.stat(place, follow_symlinks=False)
    if danger := _danger_in(status):
        message = f"other users can move {os.fspath(path)} away, because of the directory {place}: {danger}"
        _warn_once(f"{message}; {_what_to_do(place, status)}")


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _danger_in(status: os.stat_result) -> str | None:
    """Return why other users can replace files in a directory with this status, or None."""
    uid = os.geteuid()
    if status.st_mode & stat.S_ISVTX and status.st_uid in (0, uid, _unmapped_uid()):
        return None
    return find_danger(status, status.st_uid if status.st_uid == _unmapped_uid() else uid)


@cache
def _unmapped_uid() -> int | None:
    """Return the uid of users outside our user namespace (user_namespaces(7)), or None if we are not in one.

    Root of the host, the owner of `/`, is one of them.
    """
    try:
        if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except OSError:
        return None


def _what_is_there(path: str | os.PathLike[str]) -> str | None:
    """Return why the file at `path` can't be opened as a log (a link, a pipe, a socket), or None."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return "it is a symbolic link"
    return None if stat.S_ISREG(mode) else "it is not a regular file"


def _what_to_do(place: Path, status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"check what it holds, then `chown` {place} to the user of this program"
    return f"check what it holds, then `chmod go-w {place}`"


def _untrusted(path: str | os.PathLike[str], reason: str, hint: str) -> UntrustedFile:
    return UntrustedFile(f"{os.fspath(path)} is not trusted: {reason}", hint=hint)


def existing_file(text: str) -> str:
    """Rule of a setting: return the path of a regular file; raises InvalidValue."""
    if not os.path.isfile(text):
        raise InvalidValue(f"there is no file {text!r}")
    return text


def trusted_file(text: str) -> str:
    """Rule of a setting: a readable file that no other user can change; links to it are followed."""
    try:
        os.close(open_trusted(existing_file(text), follow=True))
    except UntrustedFile as error:
        raise InvalidValue(error.message, error.hint) from None
    except OSError as error:
        raise InvalidValue(f"can't read {text}: {error.strerror}") from None
    return text
