"""Deliveries that wait for a webhook, and how long to wait after a failed attempt. Pure."""

import random
import secrets
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from msgspec import Struct, field

MAX_EVENTS = 1000
MAX_BYTES = 4 * 1024 * 1024
FIRST_DELAY = 0.5  # seconds after the first failure, doubling
MAX_DELAY = 60.0
MAX_RETRY_AFTER = 300.0  # seconds that a server can ask for


class Delivery(Struct):
    """An event to post: its name, the body of the request, and an id, the same in all attempts.

    `tried_at` is the time of the first attempt, on a monotonic clock.
    """

    event: str
    body: bytes
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    tried_at: float | None = None


class DeliveryQueue:
    """Deliveries in order: one that is being sent, and others that wait.

    When it would hold more than MAX_EVENTS or MAX_BYTES of bodies, the oldest waiting ones are dropped; `dropped`
    counts them.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._current: Delivery | None = None
        self._waiting: deque[Delivery] = deque()
        self._size = 0  # bytes

    def __len__(self) -> int:
        return len(self._waiting) + (self._current is not None)

    def append(self, delivery: Delivery) -> list[Delivery]:
        """Append a delivery and return the dropped ones, which may include it."""
        self._waiting.append(delivery)
        self._size += len(delivery.body)
        dropped = []
        while self._waiting and (len(self) > MAX_EVENTS or self._size > MAX_BYTES):
            dropped.append(self._waiting.popleft())
            self._size -= len(dropped[-1].body)
        self.dropped += len(dropped)
        return dropped

    def take(self) -> Delivery:
        """Return the next delivery, which is not dropped until `finish` or `put_back`; IndexError if there is none."""
        self._current = self._waiting.popleft()
        return self._current

    def put_back(self) -> None:
        """Let the current delivery wait again, as the oldest."""
        if self._current is not None:
            self._waiting.appendleft(self._current)
            self._current = None

    def finish(self) -> None:
        """Remove the current delivery."""
        if self._current is not None:
            self._size -= len(self._current.body)
            self._current = None

    def drop_all(self) -> int:
        """Drop everything and return how many deliveries that were."""
        count = len(self)
        self.dropped += count
        self._current = None
        self._waiting.clear()
        self._size = 0
        return count


def retry_delay(failures: int, asked: float = 0, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Return the seconds to wait after so many failed attempts in a row; the server asked for `asked` seconds.

    Doubles from FIRST_DELAY to MAX_DELAY, of which at least half is kept, at random, so that nodes don't retry in step.
    """
    delay = min(FIRST_DELAY * 2 ** min(failures - 1, 30), MAX_DELAY)
    return max(uniform(delay / 2, delay), min(asked, MAX_RETRY_AFTER))


def seconds_asked(retry_after: str | None, now: datetime | None = None) -> float:
    """Return the seconds of a field `Retry-After`, a number or a date; 0 for none or an invalid one."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
