"""Event listeners, used by all clients that follow events."""

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from gaffer.streams.event_log import ALL, match, normal

Listener = Callable[[str, Any], object]

logger = logging.getLogger(__name__)


class _Subscription(NamedTuple):
    pattern: str
    listener: Listener
    once: bool


class Listeners:
    """Calls `listener(event, data)` for events that match its pattern.

    Patterns are dotted prefixes: `proc.web` matches `proc.web.exit`, and `.` matches everything. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[_Subscription, ...] = ()

    def add(self, pattern: str, listener: Listener, *, once: bool = False) -> None:
        """Call `listener` for matching events, or only for the next one; duplicates are ignored."""
        subscription = _Subscription(normal(pattern), listener, once)
        with self._lock:
            if subscription not in self._subscriptions:
                self._subscriptions += (subscription,)

    def remove(self, pattern: str, listener: Listener) -> None:
        """Undo `add`; unknown listeners are ignored."""
        pattern = normal(pattern)
        with self._lock:
            self._subscriptions = tuple(
                known for known in self._subscriptions if (known.pattern, known.listener) != (pattern, listener)
            )

    def deliver(self, event: str, data: Any) -> None:
        """Call the listeners of this event. Exceptions in a listener are logged and do not affect the others."""
        with self._lock:
            called = [known for known in self._subscriptions if match(known.pattern, (event,)) is not None]
            self._subscriptions = tuple(known for known in self._subscriptions if not (known.once and known in called))
        for subscription in called:
            # Listeners are foreign code.
            try:
                subscription.listener(event, data)
            except Exception:
                logger.exception("a listener of %r failed", event)


class Bindable:
    """Base class of objects with events that listeners can be bound to."""

    def __init__(self) -> None:
        self._listeners = Listeners()

    def bind(self, event: str, listener: Listener) -> None:
        """Call `listener(event, message)` for each event of that name."""
        self._listeners.add(event, listener)

    def unbind(self, event: str, listener: Listener) -> None:
        """Undo `bind`; unknown listeners are ignored."""
        self._listeners.remove(event, listener)

    def bind_all(self, listener: Listener) -> None:
        """Call `listener(event, message)` for every event."""
        self._listeners.add(ALL, listener)

    def unbind_all(self, listener: Listener) -> None:
        """Undo `bind_all`; unknown listeners are ignored."""
        self._listeners.remove(ALL, listener)
