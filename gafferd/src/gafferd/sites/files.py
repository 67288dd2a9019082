"""Files of plugin sites: maps paths to files, and refuses files that other users can change."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gaffer.http.base import NotFound
from gaffer.http.media_types import media_type
from gaffer.runtime.throttled import ThrottledWarnings
from gaffer.runtime.trusted_files import UntrustedFile, check_way, find_danger
from gafferd.plugins.folder import PluginFolder, is_shown
from gafferd.sites.layout import INDEX, SITE, is_bare_site

# Errors that mean the file does not exist or is not a regular file.
# EINVAL: it was a link, and has just been replaced.
_ABSENT = (
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EACCES, errno.EINVAL,
)  # fmt: skip
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class SiteFile(NamedTuple):
    """A regular file of a site, open for reading; the caller closes it. `modified` in seconds since the epoch."""

    file: BinaryIO
    size: int
    modified: int
    etag: str
    media: str


class Sites:
    """The sites of plugins, looked up for each request.

    They are in the plugin directory, or in the `packages` of plugins without a directory, by name. `uid` is the user of
    the daemon.
    """

    def __init__(self, folder: PluginFolder, uid: int, packages: Callable[[], Mapping[str, Path]] = dict) -> None:
        self._folder = folder
        self._uid = uid
        self._packages = packages
        self._warnings = ThrottledWarnings()
        self._warning = threading.Lock()  # `names` is called in a thread

    def open(self, plugin: str, path: str) -> SiteFile | None:
        """Open the file at `path` in the site of a plugin, `index.html` if `path` is empty or ends with a slash.

        Return None for a directory whose path does not end with a slash. Raises NotFound if the file does not exist,
        is hidden, lies outside the site, or can be changed by other users, which is also logged.
        """
        path += INDEX if path == "" or path.endswith("/") else ""
        absent = NotFound(f"the site of the plugin {plugin!r} has no file {path!r}")
        if not _is_plain(path):
            raise absent
        try:
            base, root = self._find(plugin)
            target = Path(os.path.realpath(root / path))
            if not target.is_relative_to(root) or not all(map(is_shown, target.relative_to(root).parts)):
                raise absent
            descriptor = self._descend(base, target.relative_to(base).parts)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            if error.errno == errno.EACCES:
                self._warn(f"can't read the site of the plugin {plugin!r}: {error}")
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

    def names(self) -> dict[str, Path]:
        """Return the directories of the plugins that have a site which is served, by name; it may take a while."""
        places = dict(self._packages())
        with suppress(OSError):
            places |= {plugin.name: plugin for plugin in self._folder.plugins()}
        found = {}
        for name, place in places.items():
            with suppress(NotFound, OSError):
                self._find(name)
                found[name] = place
        return found

    def _find(self, plugin: str) -> tuple[Path, Path]:
        """Return the real paths of a plugin and of its site; raise NotFound."""
        absent = NotFound(f"no plugin {plugin!r} with a site", hint="put its pages into the plugin's `_site` folder")
        if not _is_plain(plugin) or "/" in plugin:
            raise absent
        folder = self._folder.path
        if folder is not None and self._folder.uses(plugin):
            self._require_own_way(folder)
            self._require_own(folder, folder.stat())
            base = Path(os.path.realpath(folder / plugin))
            if found := _site_in(base):
                return base, found
            if os.path.isdir(base) and is_bare_site(base):
                return base, base
        if package := self._packages().get(plugin):
            self._require_own_way(package)
            base = Path(os.path.realpath(package))
            if found := _site_in(base):
                return base, found
        raise absent

    def _descend(self, base: Path, parts: Sequence[str]) -> int:
        """Open the path `parts` below `base`; raise OSError, or NotFound if other users can change a part.

        No links are followed, so that the path can't be redirected after it was checked.
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
            self._warn(f"serving no pages: {error.message}; {error.hint}")
            raise NotFound("not served: other users can change it", hint="see the log of the node") from None

    def _require_own(self, place: Path, status: os.stat_result) -> None:
        if danger := find_danger(status, self._uid):
            self._warn(f"not serving {place}: {danger}; fix it with `chmod go-w` or `chown`")
            raise NotFound("not served: other users can change it", hint="see the log of the node")

    def _warn(self, text: str) -> None:
        with self._warning:
            self._warnings.warn(text, time.monotonic())


def _site_in(base: Path) -> Path | None:
    """Return the real path of the site in the directory of a plugin, None if there is none inside."""
    root = Path(os.path.realpath(base / SITE))
    return root if root.is_relative_to(base) and os.path.isdir(root) else None


def _is_plain(path: str) -> bool:
    """Return whether the path is a valid relative path without hidden parts, `.` and `..`."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return "\0" not in path and all(part and is_shown(part) for part in path.split("/"))
