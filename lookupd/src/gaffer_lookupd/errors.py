"""Errors of the registry."""

from gaffer.errors import GafferError


class Refused(GafferError):
    """A message or an order that can't be accepted; nothing was changed. `reason` is what the peer is told."""

    def __init__(self, errno: int, reason: str, message: str = "") -> None:
        super().__init__(message, errno=errno, reason=reason)
