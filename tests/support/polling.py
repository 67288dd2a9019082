"""Waiting for something to become true, with a deadline instead of a sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.02


def eventually(check: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call `check` until it gives a true value, which is returned; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := check()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not hold within {timeout} s; last value: {value!r}")
        time.sleep(INTERVAL)
    return value


async def eventually_async(
    check: Callable[[], T | Awaitable[T]], timeout: float = 10.0, what: str = "the condition"
) -> T:
    """Like `eventually`, with the event loop running between the calls; `check` may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        result = check()
        value: T = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not hold within {timeout} s; last value: {value!r}")
        await asyncio.sleep(INTERVAL)
