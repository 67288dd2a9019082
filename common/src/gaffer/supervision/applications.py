"""The applications of a manager: started in order, stopped in reverse; all methods but `start` are optional.

Each method may be a coroutine function, or return another awaitable.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Iterable
from typing import Any

log = logging.getLogger("gaffer.manager")

STEP_TIMEOUT = 2.0  # seconds that an application has for each step of the stop


class Applications:
    """Runs the life-cycle methods of applications on the loop."""

    def __init__(self) -> None:
        self._started: list[Any] = []
        self._restarts: set[asyncio.Task[None]] = set()

    async def start(self, apps: Iterable[Any], loop: asyncio.AbstractEventLoop, manager: Any) -> None:
        """Start each; a class given by mistake is instantiated (MGR-05). What `start` returns is awaited if it can be.

        Raises what an application raises, and TypeError for an object that is not an application.
        """
        for app in apps:
            instance = _instance(app)
            result = instance.start(loop, manager)
            if inspect.isawaitable(result):
                await result
            self._started.append(instance)

    def start_now(self, apps: Iterable[Any], loop: asyncio.AbstractEventLoop, manager: Any) -> None:
        """Like `start` where nothing can be awaited: raises RuntimeError for an asynchronous application."""
        for app in apps:
            instance = _instance(app)
            if inspect.iscoroutinefunction(instance.start):
                raise RuntimeError(
                    f"{instance!r} has an asynchronous start(), which can't be awaited here: start the manager before"
                    " the loop runs, or from another thread"
                )
            instance.start(loop, manager)
            self._started.append(instance)

    def restart(self) -> None:
        """Call `restart` of each, on the loop; awaitables it returns become tasks."""
        for app in self._started:
            result = self._call(app, "restart")
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(self._finish(result, app, "restart"))
                self._restarts.add(task)
                task.add_done_callback(self._restarts.discard)

    async def run(self, step: str, *, reverse: bool = False) -> None:
        """Call the method `step` of each that has it; awaitables it returns are awaited for a bounded time."""
        for app in reversed(self._started) if reverse else self._started:
            result = self._call(app, step)
            if inspect.isawaitable(result):
                await self._finish(result, app, step)

    async def run_within(self, timeout: float, step: str, *, reverse: bool = False) -> None:
        """Like `run`, but await all together, for at most `timeout` seconds; awaitables that are late are cancelled."""
        late: list[asyncio.Task[None]] = []
        for app in reversed(self._started) if reverse else self._started:
            result = self._call(app, step)
            if inspect.isawaitable(result):
                late.append(asyncio.ensure_future(self._finish(result, app, step, timeout)))
        if late:
            # One that resists its cancellation is left behind.
            await asyncio.wait(late, timeout=2 * timeout)
        if step == "stop":
            self._started.clear()

    async def stop(self) -> None:
        """Call `stop` of each, the last started first, and forget them."""
        await self.run("stop", reverse=True)
        self._started.clear()

    async def _finish(self, result: Awaitable[Any], app: Any, step: str, timeout: float = STEP_TIMEOUT) -> None:
        # The application is foreign code: whatever it raises must not keep the others from stopping.
        try:
            await asyncio.wait_for(result, timeout)
        except Exception:
            log.exception("%s of %r failed", step, app)

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


def _instance(app: Any) -> Any:
    instance = app() if isinstance(app, type) else app
    if not callable(getattr(instance, "start", None)):
        raise TypeError(f"{instance!r} is not an application: it has no method start(loop, manager)")
    return instance
