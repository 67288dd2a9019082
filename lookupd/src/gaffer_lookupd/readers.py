"""A limit on readers of long-running responses, so that connections are left for nodes."""

from collections.abc import Callable, Hashable


class Readers:
    """A set of at most `limit` readers. At the limit, a new one displaces the oldest, unauthenticated ones first.

    `displaced` counts the readers that were disconnected in favour of others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.displaced = 0
        self._strangers: dict[Hashable, Callable[[], None]] = {}
        self._known: dict[Hashable, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def admit(self, reader: Hashable, close: Callable[[], None], *, known: bool) -> None:
        """Add a reader; `close` is called if it is displaced."""
        if len(self) >= self.limit:
            oldest = self._strangers or self._known
            displaced = oldest.pop(next(iter(oldest)))
            self.displaced += 1
            displaced()
        (self._known if known else self._strangers)[reader] = close

    def leave(self, reader: Hashable) -> None:
        """Remove a reader; no-op if it was displaced."""
        self._strangers.pop(reader, None)
        self._known.pop(reader, None)
