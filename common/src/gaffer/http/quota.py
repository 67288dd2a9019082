"""A bounded share for unauthenticated callers, within which they displace each other. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Quota(Generic[T]):
    """At most `limit` items, each of which has a source, such as an address.

    When the quota is full, the oldest item of the source with the most items is displaced, so that no source can
    displace those of all others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._source_of: dict[T, Hashable] = {}
        self._items_of: dict[Hashable, dict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._source_of)

    def __contains__(self, item: object) -> bool:
        return item in self._source_of

    @property
    def is_full(self) -> bool:
        """Whether an item must be removed before another one is added."""
        return len(self._source_of) >= self.limit

    def add(self, item: T, source: Hashable) -> None:
        """Add the item unless it is present."""
        if item not in self._source_of:
            self._source_of[item] = source
            self._items_of.setdefault(source, {})[item] = None

    def discard(self, item: T) -> None:
        """Remove the item if it is present."""
        if item in self._source_of:
            source = self._source_of.pop(item)
            items = self._items_of[source]
            del items[item]
            if not items:
                del self._items_of[source]

    @property
    def fairest(self) -> T | None:
        """The oldest item of the source with the fewest items; None if there are no items."""
        if not self._items_of:
            return None
        smallest = min(self._items_of.values(), key=lambda items: len(items))
        return next(iter(smallest))

    @property
    def victim(self) -> T | None:
        """The oldest item of the source with the most items; None if there are no items."""
        if not self._items_of:
            return None
        largest = max(self._items_of.values(), key=lambda items: len(items))
        return next(iter(largest))
