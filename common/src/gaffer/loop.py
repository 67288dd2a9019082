"""The event loop: asyncio on uvloop where that is installed, plain asyncio elsewhere (MISC-TP-13)."""

import asyncio
import time
from typing import Any, ClassVar

from gaffer.errors import BadRequest

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

# Loops that are in `run` and therefore end with their last manager; a loop that is run otherwise is not ours to stop.
_running: set[asyncio.AbstractEventLoop] = set()

_MEMORY_PAUSE = 0.02  # seconds

KINDS = ("auto", "uvloop", "asyncio")


class _Runnable:
    """Adds `run()`, the name the documentation uses for running a loop until it is stopped."""

    def run(self) -> None:
        """Run until `stop()`, or until the last manager on this loop has stopped."""
        run(self)  # type: ignore[arg-type]


class AsyncioLoop(_Runnable, asyncio.SelectorEventLoop):
    """The loop of the standard library."""


if uvloop is not None:

    class UvLoop(_Runnable, uvloop.Loop):  # type: ignore[misc]
        """The loop of libuv."""


def new_loop(kind: str = "auto") -> asyncio.AbstractEventLoop:
    """Make a loop of `kind`: `auto`, `uvloop` or `asyncio`; raises BadRequest for another one or a missing uvloop."""
    if kind not in KINDS:
        raise BadRequest(f"there is no loop {kind!r}", reason="bad_loop", hint="choose auto, uvloop or asyncio")
    if kind == "asyncio" or (kind == "auto" and uvloop is None):
        return AsyncioLoop()
    if uvloop is None:
        raise BadRequest("uvloop is not installed", reason="bad_loop", hint="pip install uvloop, or choose asyncio")
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
    """The last manager on `loop` has stopped: end `run`."""
    if loop in _running:
        loop.stop()


class Loop:
    """Stands for `pyuv.Loop` of the original documentation."""

    _default: ClassVar[asyncio.AbstractEventLoop | None] = None

    @classmethod
    def default_loop(cls) -> asyncio.AbstractEventLoop:
        """The loop that managers share when none is given; made anew once it was closed."""
        if cls._default is None or cls._default.is_closed():
            cls._default = new_loop()
        return cls._default


def spare_memory(loop: asyncio.AbstractEventLoop) -> None:
    """Slow the loop of a daemon down while there is no memory.

    A callback that runs out of memory is often due again at once: it would use all CPU time and
    fill the disk with its log.
    """
    loop.set_exception_handler(_handle_error)


def _handle_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    loop.default_exception_handler(context)
    if isinstance(context.get("exception"), MemoryError):
        time.sleep(_MEMORY_PAUSE)
