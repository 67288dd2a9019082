"""What the HTTP servers put up with: sizes, times, numbers of connections."""

import resource
from dataclasses import dataclass

from gaffer.errors import GafferError

STRANGER_BODY = 64 * 1024
"""Bytes of a request body that are read of a caller that is not known."""

FRAMING = "frame-ancestors 'self'"
"""Content-Security-Policy of every answer: pages of other sites show none of them in a frame."""

_UNLIMITED = 1_000_000  # descriptors, where the system sets no limit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server; sizes in bytes, times in seconds.

    max_body: of a request body that a handler gets. max_header, max_header_lines: of the head of a request, its first
    line included. header_timeout: from the first byte of a request (on a new connection from the start) to the end of
    its head. body_timeout: from there to the end of the body, and for the client to take a complete answer.
    idle_timeout: between two requests. max_connections: on each endpoint; None for half of the descriptors that the
    process may have, divided by the endpoints. accepts_per_second: by each endpoint, in any second; more wait to be
    accepted. max_strangers: connections on each endpoint whose callers are not known, and never more than a quarter of
    max_connections; None makes no difference between callers.
    """

    max_body: int = 8 * 1024 * 1024
    max_header: int = 16 * 1024
    max_header_lines: int = 100
    header_timeout: float = 20.0
    body_timeout: float = 120.0
    idle_timeout: float = 120.0
    max_connections: int | None = None
    accepts_per_second: int | None = None
    max_strangers: int | None = 256

    def connections(self, endpoints: int) -> int:
        """How many connections each of so many endpoints takes."""
        if self.max_connections is not None:
            return self.max_connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (soft if soft != resource.RLIM_INFINITY else _UNLIMITED) // (2 * endpoints)

    def strangers(self, connections: int) -> int:
        """How many of that many connections callers that are not known may hold."""
        if self.max_strangers is None:
            return connections
        return max(1, min(self.max_strangers, connections // 4))

    def waiting(self, connections: int) -> int:
        """How many more of theirs may wait to be served: enough that few are sent away, who would come back at once."""
        return max(1, min(4 * self.strangers(connections), connections // 4))


DEFAULT_LIMITS = Limits()


class TooLarge(GafferError):
    """The request body is over the limit."""

    errno = 413
    reason = "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes", hint="send it in parts")


class HeaderTooLarge(GafferError):
    """The head of the request is over the limits."""

    errno = 431
    reason = "header_too_large"

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            f"the head of the request has more than {limits.max_header} bytes or {limits.max_header_lines} lines",
            hint="send less in the path, cookies and other headers",
        )


class RequestTimeout(GafferError):
    """The request came too slowly."""

    errno = 408
    reason = "request_timeout"


class MalformedRequest(GafferError):
    """What came is not HTTP/1.1 (RFC 9112)."""

    errno = 400
    reason = "malformed_request"

    def __init__(self) -> None:
        super().__init__(
            "the request is not valid HTTP/1.1",
            hint="check its first line, Host, Content-Length and Transfer-Encoding, and its chunks (RFC 9112)",
        )
