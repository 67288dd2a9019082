"""The applications of a manager: started in order, stopped in reverse; all methods but `start` are optional."""

import asyncio
import inspect
import logging
from collections.abc import Iterable
from typing import Any

log = logging.getLogger("gaffer.manager")

PATIENCE = 2.0  # seconds an application may take for each step of the stop


class Applications:
    """Runs the life-cycle methods of applications on the loop."""

    def __init__(self) -> None:
        self._started: list[Any] = []

    def start(self, apps: Iterable[Any], loop: asyncio.AbstractEventLoop, manager: Any) -> None:
        """Start each; a class given by mistake is instantiated (MGR-05). When one raises, the others are stopped."""
        for app in apps:
            instance = app() if isinstance(app, type) else app
            instance.start(loop, manager)
            self._started.append(instance)

    def restart(self) -> None:
        """Call `restart` of each."""
        for app in self._started:
            self._call(app, "restart")

    async def run(self, step: str, *, reverse: bool = False) -> None:
        """Call the method `step` of each that has it; awaitables it returns are awaited for a bounded time."""
        for app in reversed(self._started) if reverse else self._started:
            result = self._call(app, step)
            if inspect.isawaitable(result):
                # The application is foreign code: whatever it raises must not keep the others from stopping.
                try:
                    await asyncio.wait_for(result, PATIENCE)
                except Exception:
                    log.exception("%s of %r failed", step, app)

    async def stop(self) -> None:
        """Call `stop` of each, the last started first, and forget them."""
        await self.run("stop", reverse=True)
        self._started.clear()

    def _call(self, app: Any, step: str) -> Any:
        method = getattr(app, step, None)
        if method is None:
            return None
        # As above: foreign code.
        try:
            return method()
        except Exception:
            log.exception("%s of %r failed", step, app)
            return None
