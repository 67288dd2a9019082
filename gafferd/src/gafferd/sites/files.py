"""The sites of plugins: which file a path means, and that nobody else can have put it there (PLG-10, PLG-11)."""

import errno
import mimetypes
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gaffer.http.base import NotFound
from gaffer.runtime.throttled import ThrottledWarnings
from gaffer.runtime.trusted_files import UntrustedFile, check_way, find_danger
from gafferd.sites.layout import INDEX, SITE, is_bare_site
from gafferd.sites.plugins import PluginFolder, is_shown

# What O_NOFOLLOW, O_NONBLOCK and the path itself may meet.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EACCES)
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

_TYPES = mimetypes.MimeTypes()  # those of Python, not of the host: the same on each
_NEWER_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".md": "text/markdown",
}
for _suffix, _type in _NEWER_TYPES.items():
    _TYPES.add_type(_type, _suffix)
_TEXTS = ("application/json", "application/javascript", "image/svg+xml")


class SiteFile(NamedTuple):
    """A regular file of a site, open for reading: who gets it closes it. `modified` in seconds since the epoch."""

    file: BinaryIO
    size: int
    modified: int
    etag: str
    media: str


class Sites:
    """The sites in a folder of plugins, looked up anew for each request. `uid` is the user of the daemon."""

    def __init__(self, folder: PluginFolder, uid: int) -> None:
        self._folder = folder
        self._uid = uid
        self._complaints = ThrottledWarnings()

    def open(self, plugin: str, path: str) -> SiteFile | None:
        """The file at `path` in the site of a plugin, `index.html` for a path that is empty or ends with a slash.

        None for a folder whose path doesn't end with a slash. Raises NotFound for what is not there, hidden, outside
        of the site, or may be changed by others; the log says so of the last.
        """
        path += INDEX if path == "" or path.endswith("/") else ""
        absent = NotFound(f"the site of the plugin {plugin!r} has no {path!r}")
        if not _is_plain(path):
            raise absent
        base, root = self._find(plugin)
        target = Path(os.path.realpath(root / path))
        if not target.is_relative_to(root) or not all(map(is_shown, target.relative_to(root).parts)):
            raise absent
        try:
            descriptor = self._descend(base, target.relative_to(base).parts)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            if error.errno == errno.EACCES:
                self._complain(f"{target} can't be read: {error.strerror}")
            raise absent from None
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
            file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
            return SiteFile(file, status.st_size, int(status.st_mtime), etag, media_type(target.name))
        os.close(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return None
        raise absent

    def _find(self, plugin: str) -> tuple[Path, Path]:
        """The folders of a plugin and of its site, without symbolic links in them; raises NotFound."""
        folder = self._folder.path
        absent = NotFound(
            f"there is no plugin {plugin!r} with a site", hint="its pages are in the folder `_site` of it"
        )
        if folder is None or not _is_plain(plugin) or "/" in plugin:
            raise absent
        self._require_own_way(folder)
        self._require_own(folder, folder.stat())
        base = Path(os.path.realpath(folder / plugin))
        root = Path(os.path.realpath(base / SITE))
        if root.is_relative_to(base) and os.path.isdir(root):
            return base, root
        if os.path.isdir(base) and is_bare_site(base):
            return base, base
        raise absent

    def _descend(self, base: Path, parts: Sequence[str]) -> int:
        """A descriptor of what is below `base`; raises OSError, and NotFound when others may change what is on the way.

        It follows no link, so that nothing can be put in the way after the path was looked at.
        """
        place, descriptor = base, os.open(base, _OPEN | os.O_DIRECTORY)
        try:
            self._require_own(place, os.fstat(descriptor))
            for part in parts:
                place /= part
                inner = os.open(part, _OPEN, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
                self._require_own(place, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_own_way(self, folder: Path) -> None:
        try:
            check_way(folder, follow=True, strict=True)
        except UntrustedFile as error:
            self._complain(f"no page is served: {error.message}; {error.hint}")
            raise NotFound("this is not served: others may change it", hint="the log of the node says why") from None

    def _require_own(self, place: Path, status: os.stat_result) -> None:
        if danger := find_danger(status, self._uid):
            self._complain(f"{place} is not served: {danger}; `chmod go-w` and `chown` mend that")
            raise NotFound("this is not served: others may change it", hint="the log of the node says where and why")

    def _complain(self, text: str) -> None:
        self._complaints.warn(text, time.monotonic())


def media_type(name: str) -> str:
    """The content type of a file of that name, with UTF-8 for texts."""
    found, encoding = _TYPES.guess_type(name)
    if encoding is not None:
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if found is None:
        return "application/octet-stream"
    return f"{found}; charset=UTF-8" if found.startswith("text/") or found in _TEXTS else found


def _is_plain(path: str) -> bool:
    """Whether it is a path that a file can have, without hidden parts, `.` and `..`, from a folder on downwards."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return "\0" not in path and all(part and is_shown(part) for part in path.split("/"))
