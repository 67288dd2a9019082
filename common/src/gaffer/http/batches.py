"""Work that would hold the loop for long, done a little at a time."""

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds of work after which the loop gets its turn


class Batches:
    """Does one such work after the other, so that many don't hold the loop for as long together."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, begin: Callable[[], Generator[None, None, T]]) -> T:
        """Take all steps of the generator that `begin` makes, with pauses; returns its result."""
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
