"""Watches the files that patterns name, and reports changes of them to the loop."""

import asyncio
import fnmatch
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_DIRECTORIES = 4096
"""The maximum number of directories that are watched at a time, each by one inotify watch."""

_QUIET = 200  # milliseconds without a further change after which changes are reported
_LONGEST = 2000  # milliseconds after which they are reported anyway
_STARTS = 5  # attempts to watch directories that vanish meanwhile

_IGNORED = frozenset(("__pycache__", "node_modules"))
_TEMPORARY = re.compile(r".*~|#.*#|4913|.*___jb_(?:tmp|old)___")  # of Emacs, vim and JetBrains
_WILDCARD = re.compile(r"[*?\[]")
_ANY = "**"

States = frozenset[int]


class Pattern:
    """A pattern of paths, relative to `cwd`: `*`, `?` and `[...]` within a name, `**` for any directories.

    A directory stands for all files below it. As in a shell, wildcards match no name that begins with a dot. They don't
    match `node_modules`, `__pycache__` and temporary files of editors either, unless the pattern has that name.

    A path is matched name by name: `advance(states, name)` returns the states after a name; it begins with `first`, in
    the directory `base`.
    """

    def __init__(self, pattern: str, cwd: str) -> None:
        names = os.path.normpath(os.path.join(cwd, pattern)).split("/")
        if not _WILDCARD.search(names[-1]) and os.path.isdir("/".join(names)):
            names.append(_ANY)
        fixed = next((at for at, name in enumerate(names) if _WILDCARD.search(name)), len(names) - 1)
        self.base = "/".join(names[:fixed]) or "/"
        self._rest = names[fixed:]
        self._ignored = _IGNORED.difference(names)
        self._matches = [re.compile(fnmatch.translate(name)).fullmatch for name in self._rest]
        self.first = self._closed({0})

    def advance(self, states: States, name: str) -> States:
        """Return the states after `name`."""
        return self._closed({after for state in states for after in self._after(state, name)})

    def goes_on(self, states: States) -> bool:
        """Return whether more names can follow."""
        return any(state < len(self._rest) for state in states)

    def matches(self, path: str) -> bool:
        """Return whether it matches the absolute path."""
        below = path.removeprefix(self.base.rstrip("/") + "/")
        if below == path:
            return False
        states = self.first
        for name in below.split("/"):
            states = self.advance(states, name)
        return len(self._rest) in states

    def _after(self, state: int, name: str) -> Iterable[int]:
        if state == len(self._rest):
            return
        wanted = self._rest[state]
        if name == wanted:
            yield state + 1
        elif self._visible(name, wanted):
            if wanted == _ANY:
                yield state
            elif self._matches[state](name):
                yield state + 1

    def _visible(self, name: str, wanted: str) -> bool:
        """Return whether the wildcards in `wanted` may match a name at all."""
        if name.startswith(".") and not wanted.startswith("."):
            return False
        return name not in self._ignored and not _TEMPORARY.fullmatch(name)

    def _closed(self, states: set[int]) -> States:
        """Return the states and those that follow because `**` also stands for no directory."""
        for state in sorted(states):
            while state < len(self._rest) and self._rest[state] == _ANY:
                state += 1
                states.add(state)
        return frozenset(states)


def find_directories(patterns: Iterable[Pattern], limit: int = MAX_DIRECTORIES) -> tuple[set[str], str | None]:
    """Return the directories to watch for `patterns`, and the first one left out beyond `limit`, or None.

    They include those where a missing directory of a pattern would appear. Directories near the base come first.
    """
    found: set[str] = set()
    todo: deque[tuple[Pattern, str, States]] = deque()
    for pattern in patterns:
        if os.path.isdir(pattern.base):
            todo.append((pattern, pattern.base, pattern.first))
        parent = os.path.dirname(pattern.base)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        if os.access(parent, os.R_OK):
            found.add(parent)
    while todo:
        pattern, directory, states = todo.popleft()
        if directory not in found and len(found) >= limit:
            return found, directory
        try:
            names = _subdirectories(directory)
        except OSError:  # vanished or unreadable
            continue
        found.add(directory)
        for name in names:
            after = pattern.advance(states, name)
            if pattern.goes_on(after):
                todo.append((pattern, os.path.join(directory, name), after))
    return found, None


def _subdirectories(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


class Watched(Struct, frozen=True):
    """The patterns of a job, relative to `cwd`."""

    patterns: Sequence[str]
    cwd: str


class FileWatcher(Generic[T]):
    """Calls `on_change(job, paths)` on the loop when files of a job were created, changed or deleted.

    Changes are reported once none has followed for 200 ms, or after 2 s. `warn` is called on the loop when not all
    files can be watched. A thread does the work; nothing blocks the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        jobs: Mapping[T, Watched],
        on_change: Callable[[T, list[str]], object],
        warn: Callable[[str], object] = logger.warning,
    ) -> None:
        self._loop = loop
        self._jobs = jobs
        self._on_change = on_change
        self._warn = warn
        self._stopping = threading.Event()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="file watcher", daemon=True)
        self._patterns: dict[T, list[Pattern]] = {}

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    async def ready(self) -> None:
        """Wait until changes are noticed, or watching turned out to be impossible."""
        await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """Stop watching; neither `on_change` nor `warn` is called after that."""
        if not self._thread.ident:
            return
        self._stopping.set()
        await asyncio.shield(self._ended)
        self._thread.join()

    def _run(self) -> None:
        self._patterns = {
            job: [Pattern(each, watched.cwd) for each in watched.patterns] for job, watched in self._jobs.items()
        }
        known: set[str] | None = None
        vanished = 0
        try:
            while not self._stopping.is_set():
                directories, omitted = self._find()
                if omitted is not None and known is None:
                    message = f"watch: {omitted} and others are not watched: the limit is {MAX_DIRECTORIES} directories"
                    self._loop.call_soon_threadsafe(self._warn, f"{message}; use patterns that name fewer directories")
                try:
                    known = self._watch(directories, known)
                    vanished = 0
                except FileNotFoundError:  # a directory, before it could be watched
                    vanished += 1
                    if vanished == _STARTS:
                        raise
        except (OSError, RuntimeError) as error:  # watchfiles raises both when a limit of inotify is reached
            self._loop.call_soon_threadsafe(self._warn, f"watch: no files are watched: {_explain(error)}")
        finally:
            self._loop.call_soon_threadsafe(_resolve, self._ready)
            self._loop.call_soon_threadsafe(_resolve, self._ended)

    def _find(self) -> tuple[set[str], str | None]:
        return find_directories(each for patterns in self._patterns.values() for each in patterns)

    def _watch(self, directories: set[str], known: set[str] | None) -> set[str]:
        """Watch until there are other directories to watch, or the watcher stops.

        All files in directories that are not in `known`, unless it is None, are reported as changes. Returns the
        directories that were there all the time.
        """
        import watchfiles  # late: few jobs watch files, and it takes 0.1 s

        changes = watchfiles.watch(
            *directories,
            watch_filter=None,
            debounce=_LONGEST,
            step=_QUIET,
            stop_event=self._stopping,
            rust_timeout=1,  # the first round shows that watching has begun
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=False,  # else it ignores the limits of inotify too
        )
        new = set() if known is None else directories - known
        try:
            for found in changes:
                self._loop.call_soon_threadsafe(_resolve, self._ready)
                self._report({path for _, path in found}.union(*map(_files, new)))
                new = set()
                moved = {path for change, path in found if change is not watchfiles.Change.modified}
                if moved & directories or (any(map(os.path.isdir, moved)) and self._find()[0] != directories):
                    return directories - moved
        finally:
            changes.close()
        return directories

    def _report(self, paths: set[str]) -> None:
        files = sorted(path for path in paths if not os.path.isdir(path))
        for job, patterns in self._patterns.items():
            if changed := [path for path in files if any(pattern.matches(path) for pattern in patterns)]:
                self._loop.call_soon_threadsafe(self._on_change, job, changed)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _files(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if not entry.is_dir()]
    except OSError:  # vanished or unreadable
        return []


def _explain(error: Exception) -> str:
    if "limit reached" in str(error):
        return "the limit of inotify watches is reached; raise it: sysctl fs.inotify.max_user_watches=524288"
    if "Too many open files" in str(error):
        return "the limit of inotify instances is reached; raise it: sysctl fs.inotify.max_user_instances=1024"
    return str(error)
