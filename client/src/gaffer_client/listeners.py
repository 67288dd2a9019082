"""Who wants to hear of which events; used by all clients that follow something."""

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
    """Calls `listener(event, data)` for the events that a pattern gets.

    Patterns are dotted prefixes: `proc.web` gets `proc.web.exit`, `.` gets everything. To be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[_Subscription, ...] = ()

    def add(self, pattern: str, listener: Listener, *, once: bool = False) -> None:
        """Call `listener` from now on, or for the next such event only; the same one is added only once."""
        subscription = _Subscription(normal(pattern), listener, once)
        with self._lock:
            if subscription not in self._subscriptions:
                self._subscriptions += (subscription,)

    def remove(self, pattern: str, listener: Listener) -> None:
        """Undo `add`; what was not added is ignored."""
        pattern = normal(pattern)
        with self._lock:
            self._subscriptions = tuple(
                known for known in self._subscriptions if (known.pattern, known.listener) != (pattern, listener)
            )

    def deliver(self, event: str, data: Any) -> None:
        """Call the listeners of this event. What they raise is logged and disturbs nobody else."""
        with self._lock:
            called = [known for known in self._subscriptions if match(known.pattern, (event,)) is not None]
            self._subscriptions = tuple(known for known in self._subscriptions if not (known.once and known in called))
        for subscription in called:
            # Listeners are foreign code.
            try:
                subscription.listener(event, data)
            except Exception:
                logger.exception("listener of %r failed", event)


class Bindable:
    """What has listeners that users bind to its events, and `.` for all."""

    def __init__(self) -> None:
        self._listeners = Listeners()

    def bind(self, event: str, listener: Listener) -> None:
        """Call `listener(event, message)` for each event of that name."""
        self._listeners.add(event, listener)

    def unbind(self, event: str, listener: Listener) -> None:
        """Undo `bind`; unknown ones are ignored."""
        self._listeners.remove(event, listener)

    def bind_all(self, listener: Listener) -> None:
        """Call `listener(event, message)` for every event."""
        self._listeners.add(ALL, listener)

    def unbind_all(self, listener: Listener) -> None:
        """Undo `bind_all`; unknown ones are ignored."""
        self._listeners.remove(ALL, listener)
