"""Errors of the registry."""

from gaffer.errors import GafferError


class Refused(GafferError):
    """A message or an order that can't be accepted; nothing was changed. `reason` is what the peer is told."""

    def __init__(self, errno: int, reason: str, message: str = "") -> None:
        super().__init__(message, errno=errno, reason=reason)


def unknown_node(node_id: str) -> Refused:
    """The error for an id that no node has."""
    return Refused(404, "node_not_found", f"no node has the id {node_id!r}")
