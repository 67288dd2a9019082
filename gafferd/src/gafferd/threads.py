"""Calls of functions that may block, in threads of their own: a hung disk blocks neither the loop nor the exit."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def call_in_thread(function: Callable[[], T]) -> "asyncio.Future[T]":
    """Call a function in a thread and return the future of its result; call this on the running loop.

    Unlike the threads of an executor, the thread does not delay the exit of the interpreter.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_run, args=(loop, future, function), name="gafferd-call", daemon=True).start()
    return future


def _run(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[T]", function: Callable[[], T]) -> None:
    finish: Callable[[], None]
    try:
        finish = partial(future.set_result, function())
    except Exception as error:  # noqa: BLE001  # passed on to whoever awaits the future
        finish = partial(future.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_finish, future, finish)


def _finish(future: "asyncio.Future[T]", finish: Callable[[], None]) -> None:
    if not future.done():
        finish()
