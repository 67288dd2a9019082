"""Publish and subscribe: EventEmitter.

Patterns are dotted prefixes: `a` matches `a` and `a.b`, `.` matches everything. An event has one name and may have
aliases; a subscription receives an event at most once, under its name or under the first alias that matches.
"""

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gaffer.loop import Loop, exit_soon
from gaffer.streams.event_log import UNLISTED_LIMIT, Arguments, Event, normal
from gaffer.streams.rings import Log

log = logging.getLogger("gaffer.events")

Listener = Callable[..., Any]

QUEUE_LIMIT = 10_000  # events waiting for delivery; when full, the oldest is dropped (EMT-16)


class _Subscription(NamedTuple):
    pattern: str
    listener: Listener
    once: bool


class EventEmitter:
    """A thread-safe event hub: any thread may publish; listeners get the events in order, on the loop.

    So does `history`, or `unlisted` for those of `publish_unlisted`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        max_size: int = QUEUE_LIMIT,
        *,
        history: Log[Event] | None = None,
    ) -> None:
        self._loop = loop
        self._history = history
        self.unlisted: Log[Event] = Log(UNLISTED_LIMIT)  # the newest events of `publish_unlisted`
        self._lock = threading.RLock()
        self._queue: deque[Event] = deque(maxlen=max_size)
        self._by_pattern: dict[str, list[_Subscription]] = {}
        self._scheduled: asyncio.Handle | None = None
        self._closed = False
        self.dropped = 0  # events dropped before delivery

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which listeners are called; the default loop if none was given."""
        if self._loop is None:
            self._loop = Loop.default_loop()
        return self._loop

    def publish(self, evtype: str, *args: Any, **kwargs: Any) -> None:
        """Emit `evtype` and return at once; listeners are called later as `listener(evtype, *args, **kwargs)`."""
        self.publish_record((normal(evtype),), lambda _: (args, kwargs))

    def publish_record(self, names: tuple[str, ...], arguments: Callable[[str], Arguments]) -> None:
        """Emit one event under its name and aliases, none of which ends with a dot; see Event.

        `arguments` is called later, once for each listener and reader; its result must not depend on mutable state.
        """
        self._publish(Event(names, arguments))

    def publish_unlisted(self, evtype: str, message: Mapping[str, Any]) -> None:
        """Emit `evtype` only to listeners and readers that name it; the pattern `.` does not match it."""
        self._publish(Event((normal(evtype),), lambda _: ((message,), {}), listed=False))

    def _publish(self, record: Event) -> None:
        with self._lock:
            if self._closed or not (self._by_pattern or self._log_of(record) is not None):
                return
            if len(self._queue) == self._queue.maxlen:
                self.dropped += 1
            self._queue.append(record)
            self._schedule()

    def subscribe(self, evtype: str, listener: Listener, once: bool = False) -> None:
        """Call `listener` for every event that the pattern `evtype` matches; the same listener only once.

        Raises TypeError for a coroutine function: nothing would await it.
        """
        if inspect.iscoroutinefunction(listener):
            raise TypeError(f"{listener!r} is a coroutine function: subscribe a function that makes a task of it")
        subscription = _Subscription(normal(evtype), listener, once)
        with self._lock:
            subscriptions = self._by_pattern.setdefault(subscription.pattern, [])
            if subscription not in subscriptions:
                subscriptions.append(subscription)

    def subscribe_once(self, evtype: str, listener: Listener) -> None:
        """Like `subscribe`, for the first event only."""
        self.subscribe(evtype, listener, once=True)

    def unsubscribe(self, evtype: str, listener: Listener, once: bool = False) -> None:
        """Undo the `subscribe` call with the same arguments; unknown listeners are ignored."""
        self._remove(_Subscription(normal(evtype), listener, once))

    def unsubscribe_once(self, evtype: str, listener: Listener) -> None:
        """Undo `subscribe_once`."""
        self.unsubscribe(evtype, listener, once=True)

    def unsubscribe_all(self, events: Iterable[str] = ()) -> None:
        """Drop all listeners of each pattern in `events`."""
        with self._lock:
            for evtype in events:
                self._by_pattern.pop(normal(evtype), None)

    def close(self) -> None:
        """Drop all listeners and undelivered events, and close the history; call on the loop."""
        with self._lock:
            self._closed = True
            self._by_pattern.clear()
            self._queue.clear()
            if self._scheduled is not None:
                self._scheduled.cancel()
                self._scheduled = None
        for kept in (self._history, self.unlisted):
            if kept is not None:
                kept.close()

    def reopen(self) -> None:
        """Undo `close`; listeners subscribed since then receive later events."""
        with self._lock:
            self._closed = False
        for kept in (self._history, self.unlisted):
            if kept is not None:
                kept.reopen()

    def flush(self) -> None:
        """Deliver all pending events; call on the loop."""
        while True:
            with self._lock:
                self._scheduled = None
                if not self._queue:
                    return
                record = self._queue.popleft()
                kept = self._log_of(record)
                if kept is not None:
                    kept.append(record)
                matches = [
                    (name, subscription)
                    for pattern, subscriptions in self._by_pattern.items()
                    if (name := record.match(pattern)) is not None
                    for subscription in subscriptions
                ]
                for _, subscription in matches:
                    if subscription.once:
                        self._remove(subscription)
            for name, subscription in matches:
                args, kwargs = record.arguments(name)
                _call(self.loop, subscription.listener, name, args, kwargs)

    def _log_of(self, record: Event) -> Log[Event] | None:
        return self._history if record.listed else self.unlisted

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


def _call(
    loop: asyncio.AbstractEventLoop, listener: Listener, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    # Listeners are foreign code: an exception in one must not prevent delivery to the others (EMT-15).
    try:
        listener(name, *args, **kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        exit_soon(loop, error)
    except BaseException:
        log.exception("a listener of %r failed", name)
