"""How long to wait before something that failed is tried again. Pure: no I/O, no clock."""

import random

_FIRST, _LIMIT = 0.25, 20.0  # seconds


class Backoff:
    """Waits that double with each failure, up to a limit; drawn by chance, so that many clients spread."""

    def __init__(self, first: float = _FIRST, limit: float = _LIMIT) -> None:
        self._first = first
        self._limit = limit
        self._next = first

    def next(self, least: float = 0.0) -> float:
        """The seconds to wait now: between half of the present wait and all of it, `least` at least."""
        wait = self._next
        self._next = min(2 * wait, self._limit)
        return max(least, random.uniform(wait / 2, wait))

    def reset(self) -> None:
        """It went well: begin with the shortest wait again."""
        self._next = self._first
