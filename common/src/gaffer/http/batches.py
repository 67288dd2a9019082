"""Long computations, split into batches so that they do not block the event loop."""

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds of work between two turns of the loop


class Batches:
    """A queue of generators, run one after the other, with turns of the loop between their steps."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, begin: Callable[[], Generator[None, None, T]]) -> T:
        """Run the generator that `begin` returns to its end, with pauses, and return its result."""
        async with self._lock:
            steps = begin()
            turn_ends = time.monotonic() + SLICE
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                if time.monotonic() >= turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = time.monotonic() + SLICE
