"""Clocks with an alarm, and the local time zone.

Linux reports when the wall clock is set, so that an alarm costs no wakeups before it is due (timerfd_create(2),
TFD_TIMER_CANCEL_ON_SET). Elsewhere the clock is read every 60 seconds while an alarm is set.
"""

import asyncio
import contextlib
import ctypes
import errno
import functools
import logging
import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Protocol

log = logging.getLogger("gaffer.runtime.clocks")

POLL_INTERVAL = 60.0  # seconds

_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2


class Clock(Protocol):
    """A clock with one alarm."""

    def time(self) -> float:
        """Return the current time, in seconds."""

    def call_at(self, at: float, callback: Callable[[], Any]) -> None:
        """Call `callback()` once, on the loop, when `time()` has reached `at` or earlier; replaces the last alarm."""

    def cancel(self) -> None:
        """Cancel the alarm."""


class LoopClock:
    """The monotonic clock of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def time(self) -> float:
        """Return the time of the loop."""
        return self._loop.time()

    def call_at(self, at: float, callback: Callable[[], Any]) -> None:
        """Call `callback()` once when the time is `at`; replaces the last alarm."""
        self.cancel()
        # Timers of uvloop are whole milliseconds: rounded down, this one would be early.
        delay = math.ceil((at - self._loop.time()) * 1000) / 1000
        self._timer = self._loop.call_later(max(0.0, delay), callback)

    def cancel(self) -> None:
        """Cancel the alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class WallClock:
    """The clock of the system, in seconds since 1970. An alarm is also called when the clock was set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._polling = LoopClock(loop)
        self._polls = False  # there is no timerfd
        self._timerfd: int | None = None
        self._callback: Callable[[], Any] | None = None

    def time(self) -> float:
        """Return the current time."""
        return time.time()

    def call_at(self, at: float, callback: Callable[[], Any]) -> None:
        """Call `callback()` once when the time is `at`, or when the clock was set; replaces the last alarm."""
        self._callback = callback
        if not self._polls:
            try:
                if self._timerfd is None:
                    self._timerfd = _create_timerfd()
                    self._loop.add_reader(self._timerfd, self._on_timer)
                _set_timerfd(self._timerfd, at)
            except OSError as error:
                log.warning("the clock is read every minute, since its timer failed: %s", error.strerror)
                self._polls = True
            except AttributeError:  # not Linux
                self._polls = True
        if self._polls:
            self._polling.call_at(self._polling.time() + min(at - self.time(), POLL_INTERVAL), self._call)

    def cancel(self) -> None:
        """Cancel the alarm and close its descriptor."""
        self._callback = None
        self._polling.cancel()
        if self._timerfd is not None:
            self._loop.remove_reader(self._timerfd)
            os.close(self._timerfd)
            self._timerfd = None

    def _on_timer(self) -> None:
        assert self._timerfd is not None
        with contextlib.suppress(OSError):  # ECANCELED: the clock was set
            os.read(self._timerfd, 8)
        self._call()

    def _call(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _TimeSpec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _TimerSpec(ctypes.Structure):
    _fields_ = [("interval", _TimeSpec), ("value", _TimeSpec)]


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _create_timerfd() -> int:
    """Return a timer on the wall clock; AttributeError where there are none."""
    descriptor = _libc().timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(descriptor)


def _set_timerfd(descriptor: int, at: float) -> None:
    seconds, nanoseconds = divmod(max(1, math.ceil(at * 1e9)), 10**9)  # 0 would turn it off
    spec = _TimerSpec(value=_TimeSpec(seconds, nanoseconds))
    flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
    failed = _libc().timerfd_settime(descriptor, flags, ctypes.byref(spec), None)
    # ECANCELED: the clock was set since the last call. The timer is set all the same.
    if failed and ctypes.get_errno() != errno.ECANCELED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class LocalZone(tzinfo):
    """The time zone of this process as the C library knows it, from TZ or /etc/localtime, with its changes."""

    def utcoffset(self, when: datetime | None, /) -> timedelta | None:
        """Return the difference to UTC at the local time `when`."""
        if when is None:
            return None
        local = when.replace(tzinfo=None)
        return local - datetime.fromtimestamp(local.timestamp(), UTC).replace(tzinfo=None)

    def dst(self, when: datetime | None, /) -> timedelta | None:
        """Return None: unknown."""
        return None

    def tzname(self, when: datetime | None, /) -> str | None:
        """Return the abbreviation at the local time `when`."""
        return None if when is None else when.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, when: datetime, /) -> datetime:
        """Return the local time at the UTC time `when`."""
        return datetime.fromtimestamp(when.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)
