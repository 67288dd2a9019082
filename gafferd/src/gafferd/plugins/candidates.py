"""Plugins that could be loaded: directories with Python code, and entry points of installed distributions.

Nothing is imported here.
"""

import itertools
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gaffer.errors import GafferError, Problem
from gaffer.plugin import Plugin
from gaffer.runtime.trusted_files import UntrustedFile, check_way, find_danger, read_trusted
from gafferd.plugins.folder import PluginFolder, is_shown
from gafferd.plugins.loading import Modules, PluginUnusable, load_entry_point, load_modules

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "gaffer.plugins"
SITE: Final = "_site"
MAX_FILES: Final = 10_000  # files and directories of a plugin, all of which are checked

_MAX_SOURCE = 1 << 20  # bytes of a module that are searched for __all__
_SUFFIXES = (".py", ".so")
_NONE = "there is no plugin of this name, as a directory or an entry point"

Source = Literal["directory", "entry_point"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A plugin by the name of its directory or entry point; `origin` says where it is from.

    `version` differs once its files were changed. `fault` is why it can't be loaded, else `load` imports it and returns
    its plugins. `source` is None if there is none of this name.
    """

    name: str
    source: Source | None
    origin: str
    version: object = None
    fault: str | None = None
    load: Callable[[], list[Plugin]] = field(default=list, compare=False)


def find_candidates(folder: PluginFolder) -> list[Candidate]:
    """Return the candidates, directories first, and one with a fault for each chosen name that does not exist.

    Of several with one name, the first is used. Unreadable places are logged.
    """
    try:
        directories = folder.plugins()
    except OSError as error:
        logger.warning("can't read the plugins in %s: %s", folder.path, error.strerror)
        directories = []
    found: list[Candidate] = []
    first: dict[str, Candidate] = {}
    for candidate in itertools.chain(filter(None, map(_in_directory, directories)), _entry_points(folder)):
        rival = first.setdefault(candidate.name, candidate)
        found.append(candidate if rival is candidate else replace(candidate, fault=f"{rival.origin} has the same name"))
    missing = {*(folder.chosen or ())} - {directory.name for directory in directories} - first.keys()
    return [*found, *(Candidate(name, None, "", fault=_NONE) for name in sorted(missing))]


def _in_directory(directory: Path) -> Candidate | None:
    """Return the candidate in a directory, None if it has no Python code."""
    try:
        modules, version = _scan(directory)
    except GafferError as error:
        fault = f"{error.message}; {error.hint}" if error.hint else error.message
        return Candidate(directory.name, "directory", str(directory), fault=fault)
    except OSError as error:
        fault = f"can't read {error.filename or directory}: {error.strerror}"
        return Candidate(directory.name, "directory", str(directory), fault=fault)
    if not version:
        return None
    return Candidate(directory.name, "directory", str(directory), version, load=lambda: load_modules(modules))


def _scan(directory: Path) -> tuple[Modules, frozenset[tuple[str, int, int]]]:
    """Return the modules in a directory that have an `__all__`, and the versions of all its code.

    Raises UntrustedFile if other users can change a file, PluginUnusable, and OSError.
    """
    root = check_way(directory, follow=True, strict=True)
    names = []
    version = set()
    for count, (path, status) in enumerate(_files(root)):
        if count == MAX_FILES:
            raise PluginUnusable(f"{directory} has more than {MAX_FILES} files", hint="move its data elsewhere")
        if path.suffix not in _SUFFIXES or not stat.S_ISREG(status.st_mode):
            continue
        relative = path.relative_to(root)
        version.add((str(relative), status.st_mtime_ns, status.st_size))
        if _is_module(root, relative) and b"__all__" in read_trusted(path, _MAX_SOURCE, follow=True).data:
            names.append(".".join(relative.with_suffix("").parts))
    return Modules(directory.name, root, tuple(sorted(names))), frozenset(version)


def _is_module(root: Path, path: Path) -> bool:
    """Return whether a file in the plugin directory, or in a package there, is a Python module."""
    *packages, name = path.with_suffix("").parts
    if path.suffix != ".py" or not all(part.isidentifier() for part in (*packages, name)):
        return False
    return len(packages) < 2 and all((root / package / "__init__.py").is_file() for package in packages)


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what Python could import, at any depth, with its status; raise UntrustedFile and OSError.

    Links are followed. The site, which is not imported, is left out.
    """
    uid = os.geteuid()
    waiting = [root]
    seen = set()
    while waiting:
        place = waiting.pop()
        try:
            status = os.stat(place)
        except FileNotFoundError:
            continue  # a dangling link, or removed in the meantime
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if place.is_symlink():
            check_way(place, follow=True, strict=True)
        if danger := find_danger(status, uid):
            raise UntrustedFile(f"{place} is not trusted: {danger}", hint="fix it with `chmod go-w` or `chown`")
        yield place, status
        if stat.S_ISDIR(status.st_mode):
            names = sorted(name for name in os.listdir(place) if is_shown(name) and (place, name) != (root, SITE))
            waiting += [place / name for name in reversed(names)]


def _entry_points(folder: PluginFolder) -> Iterator[Candidate]:
    """Yield the chosen entry points of the group, sorted by name."""
    if not any(_declares_plugins(Path(place)) for place in sys.path):
        return
    from importlib.metadata import entry_points  # deferred: most nodes have no such plugin

    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, _origin(point))):
        if folder.uses(point.name):
            version = point.dist.version if point.dist else None
            yield Candidate(point.name, "entry_point", _origin(point), version, load=_loader(point))


def _loader(point: "EntryPoint") -> Callable[[], list[Plugin]]:
    return lambda: load_entry_point(point)


def _origin(point: "EntryPoint") -> str:
    return f"{point.value} of {point.dist.name} {point.dist.version}" if point.dist else point.value


def _declares_plugins(place: Path) -> bool:
    """Return whether a distribution installed in a directory of `sys.path` has entry points of the group."""
    try:
        names = [name for name in os.listdir(place or ".") if name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return False
    for name in names:
        try:
            if GROUP.encode() in (place / name / "entry_points.txt").read_bytes():
                return True
        except OSError:
            continue
    return False


def find_faults(candidates: Iterable[Candidate]) -> Iterator[Problem]:
    """Yield why plugins would not be loaded."""
    for candidate in candidates:
        if candidate.fault is not None:
            yield Problem(f"plugin {candidate.name}", candidate.fault)


def comments(candidates: Iterable[Candidate]) -> Iterator[str]:
    """Yield a comment for each plugin with code: where it is from, or why it can't be loaded."""
    for candidate in candidates:
        yield f"# plugin {candidate.name}: {candidate.fault or candidate.origin}\n"
