"""Restart jobs when the files that their setting `watch` names change; off unless the daemon is told to watch."""

import asyncio
import logging
import os
from collections.abc import Sequence

from gaffer import Manager
from gaffer.errors import GafferError
from gaffer.supervision.file_watch import FileWatcher, Watched

logger = logging.getLogger(__name__)


class Watching:
    """Application that follows the files of all jobs that are loaded, also of those that come later."""

    def __init__(self) -> None:
        self._manager: Manager | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: dict[str, Watched] = {}
        self._watcher: FileWatcher[str] | None = None
        self._changing: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to watch."""
        self._loop, self._manager = loop, manager
        manager.on_change(self._update)

    async def stop(self) -> None:
        """Stop watching."""
        if self._manager is not None:
            self._manager.off_change(self._update)
        if self._changing is not None:
            await asyncio.wait([self._changing])
        if self._watcher is not None:
            await self._watcher.stop()

    def _update(self) -> None:
        """Watch other files if the jobs have changed."""
        if self._changing is None and self._wanted() != self._jobs:
            assert self._loop is not None
            self._changing = self._loop.create_task(self._change())
            self._changing.add_done_callback(self._changed)

    def _changed(self, task: "asyncio.Task[None]") -> None:
        self._changing = None
        if not task.cancelled():
            task.result()  # raises its exception, which the loop logs
            self._update()

    async def _change(self) -> None:
        assert self._loop is not None
        if self._watcher is not None:
            await self._watcher.stop()
        self._watcher, self._jobs = None, self._wanted()
        if self._jobs:
            self._watcher = FileWatcher(self._loop, self._jobs, self._on_files)
            self._watcher.start()

    def _wanted(self) -> dict[str, Watched]:
        assert self._manager is not None
        if not self._manager.active:
            return self._jobs
        configs = {name: self._manager.get(name) for name in self._manager.jobs()}
        return {name: Watched(each.watch, each.cwd or os.getcwd()) for name, each in configs.items() if each.watch}

    def _on_files(self, name: str, paths: Sequence[str]) -> None:
        assert self._manager is not None
        logger.info("%s: restarting, %s changed", name, paths[0], extra={"job": name})
        try:
            self._manager.restart_job(name)
        except GafferError as error:  # unloaded meanwhile, or the manager stops
            logger.info("%s is not restarted: %s", name, error.message, extra={"job": name})
