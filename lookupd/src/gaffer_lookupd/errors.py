"""Errors of the registry."""

from gaffer.errors import GafferError


class Refused(GafferError):
    """A refused message or command; nothing was changed. `reason` is sent to the peer."""

    def __init__(self, errno: int, reason: str, message: str = "") -> None:
        super().__init__(message, errno=errno, reason=reason)


def unknown_node(node_id: str) -> Refused:
    """Return the error for an unknown node id."""
    return Refused(404, "node_not_found", f"no node has the id {node_id!r}")


class Warming(GafferError):
    """A query shortly after a start of lookupd, when nodes may not have reconnected yet."""

    errno = 503
    reason = "warming"

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(
            "lookupd has just started, and nodes may not have reconnected yet",
            hint=f"keep the last response and retry in {self.seconds} s",
        )
