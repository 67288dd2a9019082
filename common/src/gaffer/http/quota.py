"""A bounded share for callers that are not known: what they hold gives way to itself. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Quota(Generic[T]):
    """At most `limit` items, each of a source, such as an address.

    When it is full, the source that holds most loses its oldest item, so that one source displaces no others.
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
        """Whether another item needs room first."""
        return len(self._source_of) >= self.limit

    def add(self, item: T, source: Hashable) -> None:
        """Count the item, unless it is counted already."""
        if item not in self._source_of:
            self._source_of[item] = source
            self._items_of.setdefault(source, {})[item] = None

    def discard(self, item: T) -> None:
        """Count the item no more."""
        if item in self._source_of:
            source = self._source_of.pop(item)
            items = self._items_of[source]
            del items[item]
            if not items:
                del self._items_of[source]

    @property
    def fairest(self) -> T | None:
        """The oldest item of the source that holds least; None when there is none."""
        if not self._items_of:
            return None
        smallest = min(self._items_of.values(), key=lambda items: len(items))
        return next(iter(smallest))

    @property
    def victim(self) -> T | None:
        """The item to give way first; None when there is none."""
        if not self._items_of:
            return None
        largest = max(self._items_of.values(), key=lambda items: len(items))
        return next(iter(largest))
