"""Running the code of plugins: its failures become errors, and calls that block are reported."""

import asyncio
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gaffer import Manager
from gaffer.errors import GafferError
from gaffer.runtime.startup import Interrupted
from gafferd.threads import call_in_thread

T = TypeVar("T")

SLOW = 5.0  # seconds after which a call that blocks the loop is reported
_MAX_REASON = 300  # characters

logger = logging.getLogger(__name__)


class PluginFailed(GafferError):
    """The failure of a plugin's code, whose exception is the cause."""

    reason = "plugin_failed"

    @property
    def shown(self) -> BaseException | None:
        """The exception whose traceback helps to find the mistake, if any."""
        return None if isinstance(self.__cause__, GafferError) else self.__cause__


def call(what: str, function: Callable[..., T], *args: Any) -> T:
    """Return the result of a function of a plugin; `what` describes the call.

    Raises PluginFailed. A call that takes longer than SLOW seconds is logged with its stack.
    """
    with _reported_when_slow(what):
        return _checked(what, function, *args)


async def finish(what: str, result: Any) -> None:
    """Await what a method of a plugin returned, if it can be; raises PluginFailed."""
    if not inspect.isawaitable(result):
        return
    task = asyncio.current_task()
    assert task is not None
    try:
        await result
    except (Interrupted, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and task.cancelling():
            raise
        raise _failure(what, error) from error


async def in_thread(what: str, function: Callable[[], T], timeout: float) -> T:
    """Return the result of a function that may block, run in a thread.

    Raises PluginFailed, also after `timeout` seconds; the thread is then abandoned, and its stack logged.
    """
    threads: list[int] = []

    def work() -> T:
        threads.append(threading.get_ident())
        return _checked(what, function)

    future = call_in_thread(work)
    done, _ = await asyncio.wait({future}, timeout=timeout)
    if not done:
        future.cancel()
        logger.error("%s has not finished after %g seconds:\n%s", what, timeout, "".join(map(_stack, threads)))
        raise PluginFailed(f"{what} has not finished after {timeout:g} seconds")
    return future.result()


def _checked(what: str, function: Callable[..., T], *args: Any) -> T:
    try:
        return function(*args)
    except Interrupted:
        raise
    except BaseException as error:
        raise _failure(what, error) from error


def _failure(what: str, error: BaseException) -> PluginFailed:
    return PluginFailed(f"{what} {_describe(error)}"[:_MAX_REASON])


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r})"
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - foreign code, too
        text = ""
    if isinstance(error, GafferError):
        return f"failed: {text}"
    return f"raised {type(error).__name__}: {text}" if text else f"raised {type(error).__name__}"


@contextmanager
def _reported_when_slow(what: str) -> Iterator[None]:
    ident = threading.get_ident()

    def report() -> None:
        logger.warning("%s has been blocking gafferd for %g seconds:\n%s", what, SLOW, _stack(ident))

    timer = threading.Timer(SLOW, report)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _stack(ident: int) -> str:
    frame = sys._current_frames().get(ident)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def run_contained(manager: Manager) -> None:
    """Run a manager until it has stopped, whatever the code of plugins does on its loop."""
    while manager.started:
        if contained(manager.run) and manager.started:
            logger.error("a plugin stopped the event loop: running it again")


def contained(run: Callable[[], None]) -> bool:
    """Run a loop; return whether that ended by itself, not by an exit in a callback or a task of a plugin."""
    try:
        run()
    except Interrupted:
        raise
    except (SystemExit, KeyboardInterrupt) as error:
        logger.exception("a plugin %s on the event loop, which is ignored", _describe(error))
        return False
    return True
