"""A loop whose clock can be turned forward, and that shows the timers waiting on it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TurnableLoop(asyncio.SelectorEventLoop):
    """Time passes as usual, and `turn` adds to it."""

    _turned = 0.0

    def time(self) -> float:
        return super().time() + self._turned

    def turn(self, seconds: float) -> None:
        """Let what is due in that time happen in the next iterations."""
        self._turned += seconds

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are to fire."""
        return [handle for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a TurnableLoop of its own."""
    with asyncio.Runner(loop_factory=TurnableLoop) as runner:
        return runner.run(main)


def turn(seconds: float) -> None:
    """Turn the clock of the running loop forward."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurnableLoop)
    loop.turn(seconds)


def timers() -> list[asyncio.TimerHandle]:
    """The timers on the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurnableLoop)
    return loop.timers
