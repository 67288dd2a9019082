"""Opens files that decide what Gaffer does: keys, configuration, state, certificates.

Such a file must belong to root or to our own user and be writable by nobody else, as must symbolic links on the way to
it. A directory on the way that others can write to is logged: they can move the file away, but what they put in its
place is theirs, and refused. For programs and pages, and for sockets, such a directory is refused, too. A directory
with the sticky bit (/tmp) is no danger: everybody may create files there, but not replace those of others.
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

_MAX_LINKS = 40  # what the kernel follows, path_resolution(7)
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})|/dev/(stdin|stdout|stderr)")
_STANDARD = ("stdin", "stdout", "stderr")
logger = logging.getLogger(__name__)

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UntrustedFile(GafferError):
    """Somebody else can change a file that decides what Gaffer does, or has put it there."""

    errno = 400
    reason = "untrusted_file"


class Content(NamedTuple):
    """What a file holds, and its `st_mode`."""

    data: bytes
    mode: int


def find_danger(status: os.stat_result, uid: int) -> str | None:
    """Who else than root and the user `uid` may change a file or folder with that status; None when nobody may."""
    if status.st_uid not in (0, uid):
        return f"it belongs to the user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return "everybody may write to it"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, uid):
        return "its group may write to it"
    return None


@lru_cache(maxsize=64)
def _is_private_group(gid: int, uid: int) -> bool:
    """Whether a group is that of an ordinary user alone, to which some systems let it write by default (umask 002).

    It has the name of the user and no other member, as useradd(8) makes it.
    """
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return uid != 0 and user.pw_gid == gid and user.pw_name == group.gr_name and {*group.gr_mem} <= {user.pw_name}


def inherited_descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of the open descriptor that `path` names (`/dev/fd/63`, `/dev/stdin`); None for any other path.

    Shells pass `<(command)` that way. Whoever started us opened it, so there is nothing to check.
    """
    match = _DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None:
        return None
    return int(match[1]) if match[1] else _STANDARD.index(match[2])


def read_trusted(
    path: str | os.PathLike[str], limit: int = -1, *, descriptors: bool = False, follow: bool = False
) -> Content:
    """Read a file, at most `limit` bytes of it when that is not negative.

    `descriptors` also takes what `inherited_descriptor` knows; for the rest see `open_trusted`.
    """
    number = inherited_descriptor(path) if descriptors else None
    descriptor = open_trusted(path, follow=follow) if number is None else os.dup(number)
    with open(descriptor, "rb") as file:
        return Content(file.read(limit), os.fstat(descriptor).st_mode)


def open_trusted(path: str | os.PathLike[str], *, follow: bool = False) -> int:
    """A descriptor to read the regular file at `path`.

    `follow` takes a symbolic link there when only root and our own user can change it. Raises UntrustedFile, and
    OSError as open(2) does.
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
    """A descriptor to append to the file at `path`, which is made with `mode` when it is missing.

    Follows no link and waits for no reader. Raises UntrustedFile for anything but a file or terminal device of root or
    our own user, and for a second name (link(2)) that others may have given to one of our files; OSError as open(2)
    does. The directories on the way are not checked: others who can move a log away gain nothing by it.
    """
    number = inherited_descriptor(path)
    if number is not None:
        return os.dup(number)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _OPEN, mode)
    except OSError:
        if fault := _what_is_there(path):
            raise _untrusted(path, fault, "remove it, or give another path") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            raise _untrusted(path, "it is not a regular file", "remove it, or give another path")
        if status.st_uid not in (0, os.geteuid()):
            raise _untrusted(path, f"it belongs to the user {status.st_uid}", "remove it, or give another path")
        if status.st_nlink > 1 and os.stat(Path(path).parent).st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            raise _untrusted(path, "it is a hard link to another file", "remove it, or give another path")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_way(path: str | os.PathLike[str], *, follow: bool = False, strict: bool = False) -> Path:
    """The absolute path without symbolic links on the way, nor at its end with `follow`.

    Raises UntrustedFile for a link of another user on the way, with `strict` also for a directory that others can write
    to, which is logged otherwise; OSError when a part is missing. The end itself is not checked unless it is a link to
    follow.
    """
    uid = os.geteuid()
    place = Path("/")
    waiting = [part for part in reversed(os.path.join(os.getcwd(), path).split("/")) if part not in ("", ".")]
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


def check_directory(path: str | os.PathLike[str], place: Path) -> None:
    """Raise UntrustedFile when others can replace what is in the directory `place`, such as `path`."""
    status = os.stat(place, follow_symlinks=False)
    if danger := _danger_in(status):
        raise UntrustedFile(
            f"{os.fspath(path)} is not trusted because of the directory {place}: {danger}",
            hint=_what_to_do(place, status),
        )


def _warn_of_directory(path: str | os.PathLike[str], place: Path) -> None:
    status = os.stat(place, follow_symlinks=False)
    if danger := _danger_in(status):
        message = f"others can move {os.fspath(path)} away, because of the directory {place}: {danger}"
        _warn_once(f"{message}; {_what_to_do(place, status)}")


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _danger_in(status: os.stat_result) -> str | None:
    """Why others can replace what is in a directory with this status; None when they can't."""
    uid = os.geteuid()
    if status.st_mode & stat.S_ISVTX and status.st_uid in (0, uid, _unmapped_uid()):
        return None
    return find_danger(status, status.st_uid if status.st_uid == _unmapped_uid() else uid)


@cache
def _unmapped_uid() -> int | None:
    """The uid that users outside of our user namespace have in it (user_namespaces(7)); None outside of one.

    Root of the host, to whom `/` belongs, is one of them.
    """
    try:
        if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except OSError:
        return None


def _what_is_there(path: str | os.PathLike[str]) -> str | None:
    """Why what is at `path` can't be opened as a log: a link, a pipe, a socket."""
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


def _untrusted(path: str | os.PathLike[str], why: str, hint: str) -> UntrustedFile:
    return UntrustedFile(f"{os.fspath(path)} is not trusted: {why}", hint=hint)


def existing_file(text: str) -> str:
    """The rule of a setting: the path of a regular file; raises InvalidValue."""
    if not os.path.isfile(text):
        raise InvalidValue(f"there is no file {text!r}")
    return text


def trusted_file(text: str) -> str:
    """The rule of a setting: a file that can be read and that nobody else may change; links to it are followed."""
    try:
        os.close(open_trusted(existing_file(text), follow=True))
    except UntrustedFile as error:
        raise InvalidValue(error.message, error.hint) from None
    except OSError as error:
        raise InvalidValue(f"can't read {text}: {error.strerror}") from None
    return text
