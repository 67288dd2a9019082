"""Layout of plugins: those without `_site` and without Python code are sites as a whole."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from gaffer.runtime.trusted_files import UntrustedFile, check_way, find_danger
from gafferd.plugins.folder import PluginFolder, is_shown

SITE = "_site"
INDEX = "index.html"
MAX_ENTRIES = 1000  # files and directories searched for Python code; a larger plugin needs a _site

_PYTHON = (".py", ".pyc", ".pyi", ".pyw", ".pyx", "pyproject.toml", "setup.cfg")
_STAGING = ".site"  # renamed to _site once complete, so that a crash leaves no partial site

logger = logging.getLogger(__name__)


def is_bare_site(plugin: Path) -> bool:
    """Return whether the plugin has files but neither a `_site` nor Python code. Hidden files don't count."""
    if os.path.lexists(plugin / SITE):
        return False
    count = 0
    try:
        for name in _names_below(plugin):
            count += 1
            if name.endswith(_PYTHON) or count > MAX_ENTRIES:
                return False
    except OSError:
        return False  # unknown content
    return count > 0


def settle_sites(folder: PluginFolder, uid: int) -> None:
    """Move the files of plugins that are sites into `_site`, and log which plugins are not served and why.

    Only plugins with an index.html are changed, to leave a mistakenly chosen directory alone. Files that can't be
    moved stay in place. `uid` is the user of the daemon.
    """
    root = folder.path
    if root is None or not _is_own(root, uid):
        return
    try:
        plugins = folder.plugins()
    except OSError as error:
        logger.warning("can't read the plugins in %s: %s", root, error.strerror)
        return
    for plugin in plugins:
        if _is_own(plugin, uid):
            _settle(plugin)


def _is_own(place: Path, uid: int) -> bool:
    try:
        danger = find_danger(check_way(place, follow=True, strict=True).stat(), uid)
    except UntrustedFile as error:
        danger = error.message
    except OSError as error:
        danger = f"can't be read: {error.strerror}"
    if danger:
        logger.warning("serving no pages of %s: %s; fix it with `chmod go-w` or `chown`", place, danger)
    return danger is None


def _settle(plugin: Path) -> None:
    unfinished = os.path.isdir(plugin / _STAGING) and not os.path.lexists(plugin / SITE)
    if not unfinished and not (os.path.isfile(plugin / INDEX) and is_bare_site(plugin)):
        return
    try:
        _move(plugin)
    except OSError as error:
        logger.warning("can't move the files of the site %s: %s", plugin, error.strerror)
    else:
        logger.info("the plugin %s is a site: moved its files to %s", plugin, plugin / SITE)


def _move(plugin: Path) -> None:
    """Move all files except hidden ones into `_site`; raise OSError, and restore their places, on failure."""
    staging = plugin / _STAGING
    staging.mkdir(0o755, exist_ok=True)  # includes the files of an interrupted move
    moved = []
    try:
        for name in filter(is_shown, os.listdir(plugin)):
            os.rename(plugin / name, staging / name)
            moved.append(name)
        os.rename(staging, plugin / SITE)
    except OSError:
        for name in moved:
            os.rename(staging / name, plugin / name)
        raise


def _names_below(folder: Path) -> Iterator[str]:
    """Yield the names of files and directories at any depth, except hidden ones; raise OSError."""
    with os.scandir(folder) as entries:
        inner = []
        for entry in entries:
            if is_shown(entry.name):
                yield entry.name
                if entry.is_dir(follow_symlinks=False):
                    inner.append(Path(entry.path))
    for each in inner:
        yield from _names_below(each)
