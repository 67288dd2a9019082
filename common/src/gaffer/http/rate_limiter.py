"""How many may come in a second. Pure."""

import math

_SLICES = 10  # in a second


class RateLimiter:
    """Lets at most so many come in any second, in slices of a tenth; None for no limit.

    A second, whenever it begins, touches one slice more than it has.
    """

    def __init__(self, per_second: int | None) -> None:
        self._allowed = math.inf if per_second is None else max(1, per_second // (_SLICES + 1))
        self._began = -math.inf
        self._came = 0

    def count(self, now: float) -> float:
        """One has come at the time `now`, in seconds; returns how long none may come from now on."""
        if now >= self._began + 1 / _SLICES:
            self._began, self._came = now, 0
        self._came += 1
        return self._began + 1 / _SLICES - now if self._came >= self._allowed else 0.0
