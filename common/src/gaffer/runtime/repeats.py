"""Limits on entries that repeat. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from msgspec import Struct

PERIOD = 60.0  # seconds

T = TypeVar("T")


class Summary(Struct, Generic[T], frozen=True):
    """The last of `count` entries that did not pass; `mixed` if they had different keys."""

    last: T
    count: int
    mixed: bool


class _Period(Struct, Generic[T]):
    begin: float
    count: int = 0
    last: T | None = None


_MIXED = object()


class Repeats(Generic[T]):
    """Passes the first entry of a key and then, for each PERIOD, a summary of the others.

    At most `limit` keys are distinguished at a time; all others share one. Times in monotonic seconds.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._periods: dict[Hashable, _Period[T]] = {}

    def admit(self, key: Hashable, entry: T, now: float) -> bool:
        """Return whether the entry passes; otherwise it is counted."""
        if key not in self._periods and len(self._periods) >= self._limit:
            key = _MIXED
        period = self._periods.get(key)
        if period is None:
            self._periods[key] = _Period(now)
            return True
        period.count += 1
        period.last = entry
        return False

    def collect(self, now: float, *, all_periods: bool = False) -> list[Summary[T]]:
        """Return the summaries of the periods that ended by `now`, or of all. A key without entries is forgotten."""
        found: list[Summary[T]] = []
        for key, period in list(self._periods.items()):
            if not all_periods and now - period.begin < PERIOD:
                continue
            if period.last is None:
                del self._periods[key]
                continue
            found.append(Summary(period.last, period.count, key is _MIXED))
            self._periods[key] = _Period(now)
        return found

    @property
    def idle(self) -> bool:
        """Whether nothing is left to collect."""
        return not self._periods
