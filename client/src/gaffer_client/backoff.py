"""Delays between retries. Pure: no I/O, no clock."""

import random

_FIRST, _LIMIT = 0.25, 20.0  # seconds


class Backoff:
    """Delays that double with each failure up to a limit, randomized to spread many clients."""

    def __init__(self, first: float = _FIRST, limit: float = _LIMIT) -> None:
        self._first = first
        self._limit = limit
        self._next = first

    def next(self, least: float = 0.0) -> float:
        """Return the next delay in seconds: a random value from half to all of the current delay, at least `least`."""
        wait = self._next
        self._next = min(2 * wait, self._limit)
        return max(least, random.uniform(wait / 2, wait))

    def reset(self) -> None:
        """Start over with the shortest delay, after a success."""
        self._next = self._first
