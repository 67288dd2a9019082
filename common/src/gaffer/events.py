"""Publish and subscribe: EventEmitter (EMT rows).

Patterns are dotted prefixes: `a` receives `a` and `a.b`, `.` receives all. A record has one name and may have aliases;
a subscription gets a record at most once, under its name, or under the first alias that its pattern names.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gaffer.loop import Loop

log = logging.getLogger("gaffer.events")

Listener = Callable[..., Any]

QUEUE_LIMIT = 10_000  # records that wait for delivery; the oldest is dropped (EMT-16)


class _Record(NamedTuple):
    names: tuple[str, ...]
    payloads: Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]


class _Subscription(NamedTuple):
    pattern: str
    listener: Listener
    once: bool


class EventEmitter:
    """A thread-safe hub of events: published from any thread, delivered on the loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, max_size: int = QUEUE_LIMIT) -> None:
        self._loop = loop
        self._lock = threading.RLock()
        self._queue: deque[_Record] = deque(maxlen=max_size)
        self._by_pattern: dict[str, list[_Subscription]] = {}
        self._scheduled: asyncio.Handle | None = None
        self._closed = False
        self.dropped = 0  # records that were overtaken before delivery

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that listeners are called on; the default loop when none was given."""
        if self._loop is None:
            self._loop = Loop.default_loop()
        return self._loop

    @property
    def has_listeners(self) -> bool:
        """Whether anybody is subscribed to anything."""
        return bool(self._by_pattern)

    def publish(self, evtype: str, *args: Any, **kwargs: Any) -> None:
        """Emit `evtype`; returns at once, listeners are called later as `listener(evtype, *args, **kwargs)`."""
        self.publish_record((evtype,), lambda _: (args, kwargs))

    def publish_record(
        self, names: Iterable[str], payloads: Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]
    ) -> None:
        """Emit one record under its name and aliases; `payloads(name)` makes the arguments."""
        record = _Record(tuple(_normal(name) for name in names), payloads)
        with self._lock:
            if self._closed or not self._by_pattern:
                return
            if len(self._queue) == self._queue.maxlen:
                self.dropped += 1
            self._queue.append(record)
            self._schedule()

    def subscribe(self, evtype: str, listener: Listener, once: bool = False) -> None:
        """Call `listener` for every event that the pattern `evtype` matches; the same listener only once."""
        subscription = _Subscription(_normal(evtype), listener, once)
        with self._lock:
            subscriptions = self._by_pattern.setdefault(subscription.pattern, [])
            if subscription not in subscriptions:
                subscriptions.append(subscription)

    def subscribe_once(self, evtype: str, listener: Listener) -> None:
        """Like `subscribe`, for the first event only."""
        self.subscribe(evtype, listener, once=True)

    def unsubscribe(self, evtype: str, listener: Listener, once: bool = False) -> None:
        """Undo the `subscribe` with the same arguments; unknown ones are ignored."""
        self._remove(_Subscription(_normal(evtype), listener, once))

    def unsubscribe_once(self, evtype: str, listener: Listener) -> None:
        """Undo `subscribe_once`."""
        self.unsubscribe(evtype, listener, once=True)

    def unsubscribe_all(self, events: Iterable[str] = ()) -> None:
        """Drop all listeners of each pattern in `events`."""
        with self._lock:
            for evtype in events:
                self._by_pattern.pop(_normal(evtype), None)

    def close(self) -> None:
        """Drop all listeners and what is not delivered yet."""
        with self._lock:
            self._closed = True
            self._by_pattern.clear()
            self._queue.clear()
            if self._scheduled is not None:
                self._scheduled.cancel()
                self._scheduled = None

    def flush(self) -> None:
        """Deliver what is waiting now; to be called on the loop."""
        while True:
            with self._lock:
                self._scheduled = None
                if not self._queue:
                    return
                record = self._queue.popleft()
                matches = [
                    (name, subscription)
                    for pattern, subscriptions in self._by_pattern.items()
                    if (name := _match(pattern, record.names)) is not None
                    for subscription in subscriptions
                ]
                for _, subscription in matches:
                    if subscription.once:
                        self._remove(subscription)
            for name, subscription in matches:
                args, kwargs = record.payloads(name)
                _call(subscription.listener, name, args, kwargs)

    def _schedule(self) -> None:
        if self._scheduled is None and not self.loop.is_closed():
            self._scheduled = self.loop.call_soon_threadsafe(self.flush)

    def _remove(self, subscription: _Subscription) -> None:
        with self._lock:
            subscriptions = self._by_pattern.get(subscription.pattern, [])
            if subscription in subscriptions:
                subscriptions.remove(subscription)
            if not subscriptions:
                self._by_pattern.pop(subscription.pattern, None)


def _normal(name: str) -> str:
    return name.rstrip(".") or "."


def _match(pattern: str, names: tuple[str, ...]) -> str | None:
    if pattern == ".":
        return names[0]
    for name in names:
        if name == pattern or name.startswith(pattern + "."):
            return name
    return None


def _call(listener: Listener, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    # Listeners are foreign code: one that raises must not keep the event from the others (EMT-15).
    try:
        listener(name, *args, **kwargs)
    except Exception:
        log.exception("a listener of %r failed", name)
