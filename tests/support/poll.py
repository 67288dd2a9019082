"""Wait for something to become true, with a deadline: what tests use in place of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, overload

T = TypeVar("T")
NotYet = Literal[False] | None  # what a predicate may return besides a T; it never comes out

INTERVAL = 0.01
DEADLINE = 10.0


def eventually(
    predicate: Callable[[], T | NotYet],
    timeout: float = DEADLINE,
    *,
    message: str = "the condition did not become true",
    retry_on: tuple[type[Exception], ...] = (),
) -> T:
    """Call `predicate` until it returns something true, and return that.

    An AssertionError, or one of `retry_on`, counts as "not yet". After `timeout` seconds an AssertionError says
    what was waited for (`message`) and what came last.
    """
    deadline = time.monotonic() + timeout
    not_yet: tuple[type[Exception], ...] = (AssertionError, *retry_on)
    while True:
        last: object
        try:
            if value := predicate():
                return value
            last = value
        except not_yet as error:
            last = error
        if time.monotonic() >= deadline:
            raise _late(timeout, message, last)
        time.sleep(INTERVAL)


@overload
async def eventually_async(
    predicate: Callable[[], Awaitable[T | NotYet]],
    timeout: float = ...,
    *,
    message: str = ...,
    retry_on: tuple[type[Exception], ...] = ...,
) -> T: ...


@overload
async def eventually_async(
    predicate: Callable[[], T | NotYet],
    timeout: float = ...,
    *,
    message: str = ...,
    retry_on: tuple[type[Exception], ...] = ...,
) -> T: ...


async def eventually_async(
    predicate: Callable[[], T | NotYet | Awaitable[T | NotYet]],
    timeout: float = DEADLINE,
    *,
    message: str = "the condition did not become true",
    retry_on: tuple[type[Exception], ...] = (),
) -> T:
    """`eventually` on the event loop, which runs on between two tries; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout
    not_yet: tuple[type[Exception], ...] = (AssertionError, *retry_on)
    while True:
        last: object
        try:
            result = predicate()
            if value := (await result if isinstance(result, Awaitable) else result):
                return value
            last = value
        except not_yet as error:
            last = error
        if time.monotonic() >= deadline:
            raise _late(timeout, message, last)
        await asyncio.sleep(INTERVAL)


def _late(timeout: float, message: str, last: object) -> AssertionError:
    return AssertionError(f"after {timeout:g} s: {message}; the last answer was {last!r}")
