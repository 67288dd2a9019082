"""Taking a grant back from those who hold it: feeds, websockets, cookies."""

from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """What lives on a grant for longer than a moment. It is referred to weakly, so it must be referable so."""

    def revoked(self) -> None:
        """Called once when the grant is taken back: end, at once."""


class Revocation:
    """Whether a grant was taken back, and who holds it. To be used on one thread.

    It keeps no holder alive; there are as many as connections and cookies use the grant.
    """

    def __init__(self) -> None:
        self.done = False
        self._holders: WeakSet[Holder] = WeakSet()

    @property
    def held(self) -> bool:
        """Whether anybody holds the grant."""
        return bool(self._holders)

    def hold(self, holder: Holder) -> None:
        """Tell the holder when the grant is taken back; at once when it was already."""
        if self.done:
            holder.revoked()
        else:
            self._holders.add(holder)

    def release(self, holder: Holder) -> None:
        """Tell the holder no more."""
        self._holders.discard(holder)

    def revoke(self) -> None:
        """Take the grant back; the second time does nothing."""
        self.done = True
        holders = list(self._holders)
        self._holders.clear()
        for holder in holders:
            holder.revoked()
