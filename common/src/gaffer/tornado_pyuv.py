"""The event loop API of Tornado 2.4 under its documented names, on the loop that managers use.

For applications written for gaffer 0.5. New ones don't need it, since Tornado now runs on asyncio: a Tornado server
created in an application's `start` runs on the manager's loop.
"""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, Protocol

from gaffer.loop import Loop

log = logging.getLogger("gaffer.tornado_pyuv")


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


Fd = int | _HasFileno


class IOLoop:
    """A facade over an asyncio loop: `_loop`, by default the one that managers share.

    Raises ValueError if `impl`, Tornado's choice of poll function, is given: it can't be chosen.
    """

    NONE = 0
    READ = 1
    WRITE = 4
    ERROR = 24

    _instance: "ClassVar[IOLoop | None]" = None

    def __init__(self, impl: object = None, _loop: asyncio.AbstractEventLoop | None = None) -> None:
        if impl is not None:
            raise ValueError("impl is not supported")
        self.asyncio_loop = Loop.default_loop() if _loop is None else _loop
        self._handlers: dict[int, Callable[[int, int], Any]] = {}
        self._timeouts: set[asyncio.TimerHandle] = set()
        self._stop_asked = False

    @staticmethod
    def instance() -> "IOLoop":
        """Return the shared loop, creating it on the first call."""
        if IOLoop._instance is None:
            IOLoop._instance = IOLoop()
        return IOLoop._instance

    @staticmethod
    def initialized() -> bool:
        """Return whether the shared loop was created or installed."""
        return IOLoop._instance is not None

    def install(self) -> None:
        """Make this the loop that `instance()` returns."""
        IOLoop._instance = self

    # Life

    def start(self) -> None:
        """Run until `stop()`; return at once if that was already called. RuntimeError if already running."""
        if not self._stop_asked:
            asyncio.set_event_loop(self.asyncio_loop)
            self.asyncio_loop.run_forever()
        self._stop_asked = False

    def stop(self) -> None:
        """End `start()`, or the next call if it is not running. Callable from any thread."""
        self._stop_asked = True
        if self.running():
            self.asyncio_loop.call_soon_threadsafe(self.asyncio_loop.stop)

    def running(self) -> bool:
        """Return whether the loop is running, here or in a manager."""
        return self.asyncio_loop.is_running()

    def close(self) -> None:
        """Remove all handlers and timeouts, but leave the asyncio loop open, since managers may use it."""
        for fd in tuple(self._handlers):
            self.remove_handler(fd)
        for timeout in self._timeouts:
            timeout.cancel()
        self._timeouts.clear()

    # Callbacks

    def add_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call `callback` on the loop soon. Callable from any thread."""
        self.asyncio_loop.call_soon_threadsafe(lambda: self._call(callback, *args, **kwargs))

    def add_timeout(self, deadline: float | datetime.timedelta, callback: Callable[[], Any]) -> asyncio.TimerHandle:
        """Call `callback` at `deadline`, in seconds as time.time() returns them, or after that timedelta."""
        delay = deadline.total_seconds() if isinstance(deadline, datetime.timedelta) else deadline - time.time()

        def call() -> None:
            self._timeouts.discard(timeout)
            self._call(callback)

        timeout = self.asyncio_loop.call_later(max(0.0, delay), call)
        self._timeouts.add(timeout)
        return timeout

    def remove_timeout(self, timeout: asyncio.TimerHandle) -> None:
        """Cancel a timeout returned by `add_timeout`; no-op if it has already fired."""
        self._timeouts.discard(timeout)
        timeout.cancel()

    def handle_callback_exception(self, callback: Callable[..., Any]) -> None:
        """Log the exception that a callback raised (sys.exc_info()). Subclasses may override this."""
        log.exception("the callback %r failed", callback)

    def _call(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        # Callbacks are foreign code: an exception in one must not prevent the others from being called.
        try:
            callback(*args, **kwargs)
        except Exception:  # noqa: BLE001 (handled by a method, which logs it)
            self.handle_callback_exception(callback)

    # Descriptors

    def add_handler(self, fd: Fd, handler: Callable[[int, int], Any], events: int) -> None:
        """Call `handler(fd, events)` while `fd` is readable (READ) or writable (WRITE), as selected by `events`.

        An error on `fd` is reported as READ. Raises OSError if it already has a handler.
        """
        number = _number(fd)
        if number in self._handlers:
            raise OSError(f"the descriptor {number} already has a handler")
        self._handlers[number] = handler
        self.update_handler(number, events)

    def update_handler(self, fd: Fd, events: int) -> None:
        """Change the events for which the handler of `fd` is called; OSError if it has none."""
        number = _number(fd)
        if number not in self._handlers:
            raise OSError(f"the descriptor {number} has no handler")
        handler = self._handlers[number]
        if events & (self.READ | self.ERROR):
            self.asyncio_loop.add_reader(number, self._call, handler, number, self.READ)
        else:
            self.asyncio_loop.remove_reader(number)
        if events & self.WRITE:
            self.asyncio_loop.add_writer(number, self._call, handler, number, self.WRITE)
        else:
            self.asyncio_loop.remove_writer(number)

    def remove_handler(self, fd: Fd) -> None:
        """Stop watching `fd`; no-op if it has no handler."""
        number = _number(fd)
        if self._handlers.pop(number, None) is not None:
            self.asyncio_loop.remove_reader(number)
            self.asyncio_loop.remove_writer(number)

    # Never implemented by gaffer 0.5 either

    def set_blocking_signal_threshold(
        self, seconds: float | None, action: Callable[[int, FrameType | None], Any] | None
    ) -> None:
        """Raise NotImplementedError; use asyncio's debug mode to find callbacks that block the loop."""
        raise NotImplementedError

    def set_blocking_log_threshold(self, seconds: float | None) -> None:
        """Raise NotImplementedError; use asyncio's debug mode to find callbacks that block the loop."""
        raise NotImplementedError

    def log_stack(self, signal: int, frame: FrameType | None) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError


class PeriodicCallback:
    """A timer that calls `callback` every `callback_time` milliseconds, skipping calls that it missed."""

    def __init__(self, callback: Callable[[], Any], callback_time: float, io_loop: IOLoop | None = None) -> None:
        if callback_time <= 0:
            raise ValueError(f"callback_time must be positive (milliseconds), got {callback_time!r}")
        self.callback = callback
        self.callback_time = callback_time
        self.io_loop = io_loop or IOLoop.instance()
        self._next = 0.0
        self._timeout: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the timer; the first call comes after one interval."""
        if self._timeout is None:
            self._next = self.io_loop.asyncio_loop.time()
            self._schedule()

    def stop(self) -> None:
        """Stop the timer."""
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None

    def _schedule(self) -> None:
        loop, interval = self.io_loop.asyncio_loop, self.callback_time / 1000
        missed = max(0.0, loop.time() - self._next) // interval
        self._next += (missed + 1) * interval
        self._timeout = loop.call_at(self._next, self._run)

    def _run(self) -> None:
        self.io_loop._call(self.callback)
        if self._timeout is not None:
            self._schedule()


class Waker:
    """A way to wake up a loop from any thread."""

    def __init__(self, loop: IOLoop | asyncio.AbstractEventLoop) -> None:
        self._loop = loop.asyncio_loop if isinstance(loop, IOLoop) else loop

    def wake(self) -> None:
        """Wake up the loop."""
        self._loop.call_soon_threadsafe(lambda: None)


def install() -> None:
    """Make the loop of `IOLoop.instance()` the current one in this thread, also for Tornado's IOLoop.current()."""
    asyncio.set_event_loop(IOLoop.instance().asyncio_loop)


def _number(fd: Fd) -> int:
    return fd if isinstance(fd, int) else fd.fileno()
