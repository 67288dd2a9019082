"""Loads plugins and runs their applications; none of them can keep the node from running."""

import asyncio
import copy
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gaffer import Manager
from gaffer.plugin import Plugin
from gaffer.runtime.ini import Section
from gaffer.supervision.applications import STEP_TIMEOUT
from gafferd.config.file import is_plugin_section
from gafferd.plugins import foreign
from gafferd.plugins.candidates import Candidate, find_candidates
from gafferd.plugins.dependencies import Named, resolve
from gafferd.plugins.folder import PluginFolder
from gafferd.plugins.foreign import PluginFailed
from gafferd.plugins.loading import directory_of, package_of, unload

LOAD_TIMEOUT: Final = 10.0  # seconds to import a plugin
START_TIMEOUT: Final = 15.0  # seconds that the start of the node waits for all plugins

_STOP_TIME = STEP_TIMEOUT * 0.7  # seconds that all plugins have for each step of the stop
_CANCEL_TIME = STEP_TIMEOUT * 0.1  # seconds that plugins have to handle a cancellation
_MAX_TEXT = 200  # characters of a name, a version or a description

logger = logging.getLogger(__name__)

Sections = Mapping[str, Section]


class State(StrEnum):
    """The state of a plugin. `loaded`: it has no application."""

    STARTING = "starting"
    RUNNING = "running"
    LOADED = "loaded"
    FAILED = "failed"


class Hosted(Struct, eq=False):
    """A plugin and its application. `reason` is why it failed, or what is wrong with it although it runs."""

    candidate: Candidate
    name: str
    version: str = ""
    description: str = ""
    mandatory: tuple[str, ...] = ()
    plugin: Plugin | None = None
    package: Path | None = None  # the directory of its top-level package
    config: Mapping[str, Any] | None = None  # what it was made for, see _own_config
    app: Any = None
    state: State = State.STARTING
    reason: str | None = None
    starting: asyncio.Task[None] | None = None

    @property
    def works(self) -> bool:
        """Whether it runs, or has no application to run."""
        return self.state in (State.RUNNING, State.LOADED)

    def is_of(self, candidate: Candidate) -> bool:
        """Return whether it is from the same directory or entry point."""
        return (self.candidate.name, self.candidate.source) == (candidate.name, candidate.source)

    def fail(self, reason: str, error: PluginFailed | None = None) -> None:
        """Make it failed, and log why; `error` has the exception."""
        self.state, self.reason = State.FAILED, reason
        logger.error("the plugin %s failed: %s", self.name, reason, exc_info=error.shown if error else None)


class Plugins:
    """The application that runs those of the plugins."""

    def __init__(self, folder: PluginFolder, sections: Sections) -> None:
        self._folder = folder
        self._sections = sections  # of the configuration file
        self._hosted: list[Hosted] = []  # in the order of their start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._manager: Manager | None = None
        self._loading: asyncio.Task[None] | None = None
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def hosted(self) -> Sequence[Hosted]:
        """The plugins that were found, but for sites without code."""
        return tuple(self._hosted)

    def packages(self) -> dict[str, Path]:
        """Return the directories of the packages that the working plugins of entry points are in, by name."""
        return {
            hosted.candidate.name: hosted.package
            for hosted in self._hosted
            if hosted.candidate.source == "entry_point" and hosted.works and hosted.package is not None
        }

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to load and start the plugins; `ready` waits for them."""
        self._loop, self._manager = loop, manager
        self._loading = loop.create_task(self._apply(None, self._sections))

    async def ready(self, required: Collection[str] = ()) -> list[str]:
        """Wait until the plugins have started, for at most START_TIMEOUT; return the `required` ones that don't work.

        Those still starting are logged.
        """
        assert self._loop is not None
        end = self._loop.time() + START_TIMEOUT
        await _wait([self._loading], START_TIMEOUT)
        await _wait([hosted.starting for hosted in self._hosted], end - self._loop.time())
        for hosted in self._hosted:
            if hosted.state is State.STARTING:
                hosted.reason = f"it has not started after {START_TIMEOUT:g} seconds"
                logger.warning("the plugin %s: %s; going on without waiting for it", hosted.name, hosted.reason)
        working = {hosted.name for hosted in self._hosted if hosted.works}
        return sorted({*required} - working)

    def reload(self, sections: Sections) -> None:
        """Apply changed directories, distributions and sections of the configuration file, soon.

        New plugins start, changed ones are replaced, removed ones stop, and all others restart. If a plugin that runs
        would lack one that it needs, nothing changes.
        """
        if self._loop is not None and self._manager is not None and self._manager.active:
            self._loading = self._loop.create_task(self._apply(self._loading, sections))

    def restart(self) -> None:
        """Call `restart` of each application."""
        for hosted in self._hosted:
            if hosted.state is State.RUNNING:
                self._restart(hosted)

    async def quiesce(self) -> None:
        """Call `quiesce` of each application: the node begins to stop."""
        await self._step("quiesce")

    async def drain(self) -> None:
        """Call `drain` of each application."""
        await self._step("drain")

    async def resume(self) -> None:
        """Call `resume` of each application."""
        await self._step("resume")

    async def leave(self) -> None:
        """Call `leave` of each application, the last started first: all processes have exited."""
        await self._step("leave", self._hosted[::-1])

    async def stop(self) -> None:
        """Stop the applications, the last started first."""
        await _cancel([self._loading, *self._restarts])
        await self._stop(self._hosted)

    # Loading

    async def _apply(self, before: asyncio.Task[None] | None, sections: Sections) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            search = partial(find_candidates, self._folder)
            candidates = await foreign.in_thread("looking for plugins", search, LOAD_TIMEOUT)
        except PluginFailed as error:
            logger.error("the plugins stay as they are: %s", error.message, exc_info=error.shown)
            return
        config = {name: section.texts() for name, section in sections.items()}
        found: list[Hosted] = []
        for candidate in candidates:
            found += await self._find(candidate, config)
        usable = [hosted for hosted in found if hosted.state is not State.FAILED]
        named = [Named(hosted.name, hosted.mandatory, hosted.candidate.origin) for hosted in usable]
        failed = {hosted.name: hosted.reason or "" for hosted in found if hosted.state is State.FAILED}
        order, faults = resolve(named, failed)
        if broken := [index for index in faults if usable[index].works]:
            for index in broken:
                logger.error("the plugins stay as they are: %s can't go on: %s", usable[index].name, faults[index])
            self._unload(found)
            return
        for index, fault in faults.items():
            usable[index].fail(fault)
        await self._replace(found, [usable[index] for index in order], config)

    async def _find(self, candidate: Candidate, config: Mapping[str, Any]) -> list[Hosted]:
        """Return the plugins of a candidate: those that the node has, if nothing has changed, or new ones."""
        own = _own_config(candidate.name, config)
        current = [each for each in self._hosted if each.is_of(candidate) and each.state is not State.FAILED]
        if current and candidate.source == "entry_point" and candidate.version != current[0].candidate.version:
            return _outdated(current, candidate)  # its modules are imported already
        if current and all(each.candidate == candidate and each.config == own for each in current):
            for each in current:
                each.reason = None
            return current
        new = await self._load(candidate, own)
        failed = next((each for each in new if each.state is State.FAILED), None)
        if failed is None or not current:
            return new
        for each in current:
            each.reason = f"its former version runs: {failed.reason}"
        return current

    async def _load(self, candidate: Candidate, own: Mapping[str, Any]) -> list[Hosted]:
        if candidate.fault is not None:
            hosted = Hosted(candidate, candidate.name)
            hosted.fail(candidate.fault)
            return [hosted]
        try:
            plugins = await foreign.in_thread("importing it", candidate.load, LOAD_TIMEOUT)
            return [foreign.call("describing it", _describe, candidate, plugin, own) for plugin in plugins]
        except PluginFailed as error:
            hosted = Hosted(candidate, candidate.name)
            hosted.fail(error.message, error)
            return [hosted]

    # Starting and stopping

    async def _replace(self, found: Sequence[Hosted], ordered: Sequence[Hosted], config: Mapping[str, Any]) -> None:
        """Make the plugins in `found` those of the node, and start the `ordered` ones in this order."""
        kept = [hosted for hosted in ordered if hosted in self._hosted]
        gone = [hosted for hosted in self._hosted if hosted not in kept]
        await self._stop(gone)
        self._hosted = [*ordered, *(hosted for hosted in found if hosted not in ordered)]
        for hosted in ordered:
            if hosted not in kept:
                assert self._loop is not None
                hosted.starting = self._loop.create_task(self._start(hosted, config))
            elif hosted.state is State.RUNNING:
                self._restart(hosted)
        self._unload(gone)

    def _unload(self, unused: Iterable[Hosted]) -> None:
        """Forget the modules of plugins, but for those that the node has."""
        for package in set(map(_package, unused)) - set(map(_package, self._hosted)):
            if package is not None:
                unload(package)

    async def _start(self, hosted: Hosted, config: Mapping[str, Any]) -> None:
        for needed in hosted.mandatory:
            other = next(each for each in self._hosted if each.name == needed)
            if other.starting is not None:
                await asyncio.wait({other.starting})
            if not other.works:
                hosted.fail(f"it needs the plugin {needed!r}, which failed")
                return
        assert hosted.plugin is not None
        try:
            hosted.app = foreign.call("app()", _make_app, hosted.plugin, copy.deepcopy(config))
            if hosted.app is not None:
                await foreign.finish("start()", foreign.call("start()", hosted.app.start, self._loop, self._manager))
        except PluginFailed as error:
            hosted.fail(error.message, error)
            return
        hosted.state, hosted.reason = State.RUNNING if hosted.app is not None else State.LOADED, None
        what = "runs" if hosted.app is not None else "is loaded, without an application"
        logger.info("the plugin %s %s %s (%s)", hosted.name, hosted.version, what, hosted.candidate.origin)

    async def _stop(self, gone: Iterable[Hosted]) -> None:
        stopping = list(gone)[::-1]
        await _cancel(hosted.starting for hosted in stopping)
        await self._step("stop", stopping)

    async def _step(self, step: str, those: Sequence[Hosted] | None = None) -> None:
        """Call a method of applications that have it, one after the other; all have _STOP_TIME together."""
        assert self._loop is not None
        end = self._loop.time() + _STOP_TIME
        for hosted in self._hosted if those is None else those:
            if hosted.state is State.FAILED or hosted.app is None:
                continue
            task = self._loop.create_task(self._call(hosted, step))
            await asyncio.wait({task}, timeout=max(0.0, end - self._loop.time()))
            if not task.done():
                task.cancel()
                logger.error("the plugin %s: %s() has not finished in time", hosted.name, step)

    async def _call(self, hosted: Hosted, step: str) -> None:
        try:
            await foreign.finish(f"{step}()", foreign.call(f"{step}()", _take_step, hosted.app, step))
        except PluginFailed as error:
            hosted.reason = error.message
            logger.error("the plugin %s: %s", hosted.name, error.message, exc_info=error.shown)

    def _restart(self, hosted: Hosted) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._call(hosted, "restart"))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)


def _package(hosted: Hosted) -> str | None:
    return package_of(hosted.plugin) if hosted.plugin is not None else None


def _take_step(app: Any, step: str) -> Any:
    method = getattr(app, step, None)
    return method() if method is not None else None


def _outdated(current: list[Hosted], candidate: Candidate) -> list[Hosted]:
    for each in current:
        each.reason = f"{candidate.origin} is installed: restart gafferd to use it"
        logger.warning("the plugin %s: %s", each.name, each.reason)
    return current


def _describe(candidate: Candidate, plugin: Plugin, config: Mapping[str, Any]) -> Hosted:
    name, mandatory = plugin.name, plugin.mandatory
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{type(plugin).__name__} has no name")
    if isinstance(mandatory, str) or not all(isinstance(each, str) for each in mandatory):
        raise ValueError(f"mandatory of {type(plugin).__name__} is not a list of names: {mandatory!r}")
    return Hosted(
        candidate,
        name[:_MAX_TEXT],
        version=str(plugin.version)[:_MAX_TEXT],
        description=str(plugin.description)[:_MAX_TEXT],
        mandatory=tuple(mandatory),
        plugin=plugin,
        package=directory_of(plugin),
        config=config,
    )


def _make_app(plugin: Plugin, config: Mapping[str, Any]) -> Any:
    made = plugin.app(config)
    app = made() if isinstance(made, type) else made
    if app is not None and not callable(getattr(app, "start", None)):
        raise TypeError(f"{app!r} is not an application: it has no method start(loop, manager)")
    return app


async def _cancel(tasks: Iterable[asyncio.Task[None] | None]) -> None:
    found = [task for task in tasks if task is not None]
    for task in found:
        task.cancel()
    await _wait(found, _CANCEL_TIME)


async def _wait(tasks: Iterable[asyncio.Task[None] | None], timeout: float) -> None:
    if pending := [task for task in tasks if task is not None and not task.done()]:
        await asyncio.wait(pending, timeout=max(0.0, timeout))


def _own_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections that concern a plugin: its own, and those that gafferd does not know."""
    return {title: values for title, values in config.items() if is_plugin_section(title, name)}
