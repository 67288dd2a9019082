"""Limits of the HTTP servers: sizes, timeouts, numbers of connections."""

import resource
from dataclasses import dataclass

from gaffer.errors import GafferError

STRANGER_BODY = 64 * 1024
"""Maximum size of a request body from an unauthenticated caller, in bytes."""

FRAMING = "frame-ancestors 'self'"
"""Content-Security-Policy of every response: pages of other sites can't show it in a frame."""

_UNLIMITED = 1_000_000  # descriptors, if the system sets no limit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server; sizes in bytes, times in seconds.

    max_body: request body passed to a handler. max_header, max_header_lines: head of a request, including its first
    line. header_timeout: from the first byte of a request (on a new connection, from accept) to the end of its head.
    body_timeout: from there to the end of the body, and for the client to receive the complete response. idle_timeout:
    between two requests. max_connections: per endpoint; None for half of the descriptors available to the process,
    divided by the number of endpoints. accepts_per_second: connections accepted per endpoint in any second; further
    ones stay in the backlog. max_strangers: connections of unauthenticated callers per endpoint, never more than a
    quarter of max_connections; None for no separate limit.
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
        """Return the maximum number of connections per endpoint, given the number of endpoints."""
        if self.max_connections is not None:
            return self.max_connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (soft if soft != resource.RLIM_INFINITY else _UNLIMITED) // (2 * endpoints)

    def strangers(self, connections: int) -> int:
        """Return the maximum number of unauthenticated connections, given the maximum number of connections."""
        if self.max_strangers is None:
            return connections
        return max(1, min(self.max_strangers, connections // 4))

    def waiting(self, connections: int) -> int:
        """Return the size of the waiting room, large enough to refuse few clients, which would reconnect at once."""
        return max(1, min(4 * self.strangers(connections), connections // 4))


DEFAULT_LIMITS = Limits()


class TooLarge(GafferError):
    """The request body is too large."""

    errno = 413
    reason = "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes", hint="split the request into smaller ones")


class HeaderTooLarge(GafferError):
    """The head of the request is too large."""

    errno = 431
    reason = "header_too_large"

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            f"the head of the request has more than {limits.max_header} bytes or {limits.max_header_lines} lines",
            hint="shorten the path, the cookies or other headers",
        )


class RequestTimeout(GafferError):
    """The request was sent too slowly."""

    errno = 408
    reason = "request_timeout"


class MalformedRequest(GafferError):
    """The request is not valid HTTP/1.1 (RFC 9112)."""

    errno = 400
    reason = "malformed_request"

    def __init__(self) -> None:
        super().__init__(
            "the request is not valid HTTP/1.1",
            hint="check the first line, Host, Content-Length, Transfer-Encoding and the chunks (RFC 9112)",
        )
