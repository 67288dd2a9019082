"""A limit on events per second. Pure."""

import math

_SLICES = 10  # in a second


class RateLimiter:
    """A limit of `per_second` events in any second; None for no limit.

    Events are counted per slice of a tenth of a second. Any period of a second overlaps up to eleven slices.
    """

    def __init__(self, per_second: int | None) -> None:
        self._allowed = math.inf if per_second is None else max(1, per_second // (_SLICES + 1))
        self._began = -math.inf
        self._count = 0

    def count(self, now: float) -> float:
        """Count an event at `now`, in seconds, and return the time in seconds until the next one is allowed."""
        if now >= self._began + 1 / _SLICES:
            self._began, self._count = now, 0
        self._count += 1
        return self._began + 1 / _SLICES - now if self._count >= self._allowed else 0.0
