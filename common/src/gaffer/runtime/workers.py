"""Threads for calls that may block, such as reads from a disk. A blocked one does not keep the program from exiting."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from gaffer.errors import GafferError

T = TypeVar("T")

_Call = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Workers:
    """At most `count` threads that make calls in the order in which they were requested.

    The first one starts with `start`, the others when needed. Start early: once memory has run out,
    threading.Thread.start may wait for ever for a thread that has ended in its first steps.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, name: str) -> None:
        self._loop = loop
        self._count = count
        self._name = name
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()

    def start(self) -> None:
        """Start the first thread unless it runs; raises GafferError 503 (`no_thread`) if that fails."""
        if not self._threads:
            self._start()

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call()`, made in a thread. Raises GafferError 503 (`no_thread`) if none can start."""
        if self._busy == len(self._threads) < self._count:
            self._start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._busy += 1
        try:
            self._calls.put((call, future))
            return await future
        finally:
            self._busy -= 1

    def close(self) -> None:
        """End the threads after the calls that were requested, without waiting for them."""
        for _ in self._threads:
            self._calls.put(None)
        self._threads.clear()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise GafferError(
                    "can't start a thread", errno=503, reason="no_thread", hint="try again later"
                ) from None
        else:
            self._threads.append(thread)

    def _run(self) -> None:
        while (requested := self._calls.get()) is not None:
            call, future = requested
            if future.cancelled():
                continue
            result, error = None, None
            try:
                result = call()
            except Exception as caught:  # noqa: BLE001 (raised again where the call was requested)
                error = caught
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(_resolve, future, result, error)
            del requested, call, future, result, error


def _resolve(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
