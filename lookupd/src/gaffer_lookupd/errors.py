"""Errors of the registry."""

from gaffer.errors import GafferError


class Refused(GafferError):
    """A message or an order that can't be accepted; nothing was changed. `reason` is what the peer is told."""

    def __init__(self, errno: int, reason: str, message: str = "") -> None:
        super().__init__(message, errno=errno, reason=reason)


def unknown_node(node_id: str) -> Refused:
    """The error for an id that no node has."""
    return Refused(404, "node_not_found", f"no node has the id {node_id!r}")


class Warming(GafferError):
    """lookupd started a short time ago: the answer would lack nodes that have not come back yet."""

    errno = 503
    reason = "warming"

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(
            "lookupd has just started, and nodes may not be back yet",
            hint=f"keep the last answer and ask again in {self.seconds} s",
        )
