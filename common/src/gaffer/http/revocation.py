"""Revocation of grants, with notification of their holders: feeds, websockets, cookies."""

from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """An object that keeps a grant. It must support weak references."""

    def revoked(self) -> None:
        """Called once when the grant is revoked: end at once."""


class Revocation:
    """The revocation state and the holders of a grant. Not thread-safe.

    Holders are referenced weakly; there is one for each connection or cookie that uses the grant.
    """

    def __init__(self) -> None:
        self.done = False
        self._holders: WeakSet[Holder] = WeakSet()

    @property
    def held(self) -> bool:
        """Whether the grant has any holders."""
        return bool(self._holders)

    def hold(self, holder: Holder) -> None:
        """Notify the holder when the grant is revoked; at once if it already is."""
        if self.done:
            holder.revoked()
        else:
            self._holders.add(holder)

    def release(self, holder: Holder) -> None:
        """Stop notifying the holder."""
        self._holders.discard(holder)

    def revoke(self) -> None:
        """Revoke the grant; a second call does nothing."""
        self.done = True
        holders = list(self._holders)
        self._holders.clear()
        for holder in holders:
            holder.revoked()
