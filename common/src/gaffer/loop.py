"""The event loop: uvloop where it is installed, plain asyncio elsewhere."""

import asyncio
import threading
import time
from typing import Any, ClassVar

from gaffer.errors import BadRequest

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

# Loops that `run` runs, which end with their last manager; loops run in another way are not ours to stop.
_running: set[asyncio.AbstractEventLoop] = set()

_MEMORY_PAUSE = 0.02  # seconds

KINDS = ("auto", "uvloop", "asyncio")


class _Runnable:
    """Mixin that adds `run()`, the documented way to run a loop until it is stopped."""

    def run(self) -> None:
        """Run until `stop()`, or until the last manager on this loop has stopped."""
        run(self)  # type: ignore[arg-type]


class AsyncioLoop(_Runnable, asyncio.SelectorEventLoop):
    """The loop of the standard library."""


if uvloop is not None:

    class UvLoop(_Runnable, uvloop.Loop):  # type: ignore[misc]
        """The loop of libuv."""


def new_loop(kind: str = "auto") -> asyncio.AbstractEventLoop:
    """Return a new loop of `kind` `auto`, `uvloop` or `asyncio`; BadRequest if unknown or uvloop is missing."""
    if kind not in KINDS:
        raise BadRequest(f"unknown loop {kind!r}", reason="bad_loop", hint="choose auto, uvloop or asyncio")
    if kind == "asyncio" or (kind == "auto" and uvloop is None):
        return AsyncioLoop()
    if uvloop is None:
        raise BadRequest("uvloop is not installed", reason="bad_loop", hint="install uvloop, or choose asyncio")
    return UvLoop()


def run(loop: asyncio.AbstractEventLoop) -> None:
    """Run `loop` until it is stopped, or until the last manager on it has stopped."""
    asyncio.set_event_loop(loop)
    _running.add(loop)
    try:
        loop.run_forever()
    finally:
        _running.discard(loop)


def end(loop: asyncio.AbstractEventLoop) -> None:
    """End `run`, because the last manager on `loop` has stopped."""
    if loop in _running:
        loop.stop()


def exit_soon(loop: asyncio.AbstractEventLoop, error: SystemExit | KeyboardInterrupt) -> None:
    """Raise the exit of a listener in a callback of its own: it ends the loop, but not the work of its caller."""
    loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


class Loop:
    """Counterpart of `pyuv.Loop` in the documentation of gaffer 0.5."""

    _default: ClassVar[asyncio.AbstractEventLoop | None] = None

    @classmethod
    def default_loop(cls) -> asyncio.AbstractEventLoop:
        """Return the loop that managers share by default; a new one if it was closed."""
        if cls._default is None or cls._default.is_closed():
            cls._default = new_loop()
        return cls._default


def spare_memory(loop: asyncio.AbstractEventLoop) -> None:
    """Prepare a daemon for the exhaustion of memory.

    A callback that runs out of memory is often due again at once: it would use all CPU time and
    fill the disk with log messages. So the loop is slowed down.

    pthread_exit(3) loads libgcc when the first thread ends, and aborts the process if there is no memory for it. So a
    thread ends now.
    """
    loop.set_exception_handler(_handle_error)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _handle_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    loop.default_exception_handler(context)
    if isinstance(context.get("exception"), MemoryError):
        time.sleep(_MEMORY_PAUSE)
