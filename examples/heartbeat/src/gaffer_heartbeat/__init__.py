"""Plugin of gafferd that touches a file as long as the node runs, for a monitor that looks at its age.

In the configuration file of gafferd:

    [plugin:heartbeat]
    file = /run/gaffer/heartbeat
    interval = 5
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gaffer import Manager, Plugin

__all__ = ["HeartbeatPlugin"]


class HeartbeatPlugin(Plugin):
    """Makes the application from the section of the plugin."""

    name = "heartbeat"
    version = "1.0"
    description = "touches a file as long as the node runs"

    def app(self, cfg: Mapping[str, Any]) -> "Heartbeat | None":
        """Return the application, or None if no file is configured."""
        section = cfg.get("plugin:heartbeat", {})
        if "file" not in section:
            return None
        return Heartbeat(Path(section["file"]), float(section.get("interval", 5)))


class Heartbeat:
    """Touches `file` every `interval` seconds, in a thread because a disk can be slow; removes it at the end."""

    def __init__(self, file: Path, interval: float) -> None:
        self._file = file
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    async def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Touch the file, so that a wrong path is a failure of the plugin, and go on doing so."""
        await asyncio.to_thread(self._file.touch)
        self._task = loop.create_task(self._beat())

    async def stop(self) -> None:
        """Remove the file."""
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self._file.unlink, missing_ok=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await asyncio.to_thread(self._file.touch)
