"""Room for readers whose answers take long, so that they leave connections for nodes."""

from collections.abc import Callable, Hashable


class Readers:
    """Holds at most `limit` readers. A new one displaces the oldest, strangers before callers who are known.

    `displaced` counts those that were closed in favour of others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.displaced = 0
        self._strangers: dict[Hashable, Callable[[], None]] = {}
        self._known: dict[Hashable, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def admit(self, reader: Hashable, close: Callable[[], None], *, known: bool) -> None:
        """Add a reader, who is displaced by a call of `close`."""
        if len(self) >= self.limit:
            oldest = self._strangers or self._known
            displaced = oldest.pop(next(iter(oldest)))
            self.displaced += 1
            displaced()
        (self._known if known else self._strangers)[reader] = close

    def leave(self, reader: Hashable) -> None:
        """Forget a reader; nothing for one that was displaced."""
        self._strangers.pop(reader, None)
        self._known.pop(reader, None)
