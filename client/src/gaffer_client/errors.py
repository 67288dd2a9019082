"""The exceptions of the client library.

GafferClientError
    InvalidURL          invalid server URL
    Unreachable         no response
    ConnectionLost      an Unreachable: the connection ended before the response
    UntrustedServer     a key was not sent because the server is not verified
    MalformedAnswer     a response that violates the protocol
    StatusError         an error response: BadRequest, Unauthorized, Forbidden, NotFound, Conflict, ServerError
    JobDisabled         a Conflict: the job can't be started
    NotStored           a ServerError: the server could not store a change
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "BadRequest",
    "Conflict",
    "ConnectionLost",
    "Forbidden",
    "GafferClientError",
    "GafferConflict",
    "GafferForbidden",
    "GafferNotFound",
    "GafferUnauthorized",
    "InvalidURL",
    "JobDisabled",
    "MalformedAnswer",
    "NotFound",
    "NotStored",
    "Problem",
    "ServerError",
    "StatusError",
    "TimedOut",
    "Unauthorized",
    "Unreachable",
    "UntrustedServer",
    "status_error",
]


class Problem(NamedTuple):
    """A mistake in the input reported by a server: its place (`$.jobs[0].cmd`), a message and a hint."""

    path: str | None
    message: str
    hint: str | None


class GafferClientError(Exception):
    """Base class of all errors of this package.

    `message` is a human-readable message, `hint` a suggested remedy or None, `url` the URL of the server, `errno` the
    HTTP status (None without a response), `reason` a stable code for programs, and `path` the place of the mistake in
    the input or None. `problems` contains all mistakes if the server reported several.
    """

    reason: str = "client_error"

    def __init__(
        self,
        message: str,
        *,
        url: str,
        errno: int | None = None,
        reason: str | None = None,
        path: str | None = None,
        hint: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.errno = errno
        self.reason = reason or type(self).reason
        self.path = path
        self.hint = hint
        self.problems = tuple(problems)


class InvalidURL(GafferClientError, ValueError):
    """The URL is not a valid http, https or unix URL."""

    reason = "invalid_url"


class Unreachable(GafferClientError):
    """The server did not respond: connection refused, network or TLS failure, or timeout."""

    reason = "unreachable"


class TimedOut(Unreachable):
    """The server did not respond in time."""


class ConnectionLost(Unreachable):
    """The connection ended before the response did, as when the server is killed or restarted.

    Whether the server carried out the request is unknown.
    """


class UntrustedServer(GafferClientError):
    """A key or an environment was not sent because the server is not verified."""

    reason = "untrusted_server"


class MalformedAnswer(GafferClientError):
    """The response violates the protocol: not a Gaffer server, or a faulty one."""

    reason = "malformed_answer"


class StatusError(GafferClientError):
    """The server returned an error; `errno` is the HTTP status and `reason` the error code."""

    reason = "http_error"


class BadRequest(StatusError):
    """400: the input is invalid; nothing was changed."""


class Unauthorized(StatusError):
    """401: a key is required, or the given key is unknown."""


class Forbidden(StatusError):
    """403: the key does not permit this request."""


class NotFound(StatusError):
    """404: no such session, job or process."""


class Conflict(StatusError):
    """409: the request contradicts the state of the server, such as a name that already exists; nothing was changed."""


class JobDisabled(Conflict):
    """409 `job_disabled`: a disabled job can't be started or restarted."""


class ServerError(StatusError):
    """5xx: the server failed or is temporarily unable to handle the request."""


class NotStored(ServerError):
    """507: the server could not store the change, so it was not made; usually the disk is full."""


# The names of gaffer 0.5.
GafferNotFound = NotFound
GafferConflict = Conflict
GafferUnauthorized = Unauthorized
GafferForbidden = Forbidden

_BY_STATUS: Mapping[int, type[StatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    507: NotStored,
}
_BY_REASON: Mapping[tuple[int, str | None], type[StatusError]] = {(409, "job_disabled"): JobDisabled}


def status_error(status: int, body: object, url: str) -> StatusError:
    """Return the error for a response with this status; `body` is its decoded JSON, or None if it is not JSON."""
    fields = body if isinstance(body, dict) else {}
    reason = _text(fields, "error")
    kind = _BY_REASON.get((status, reason)) or _BY_STATUS.get(status) or (ServerError if status >= 500 else StatusError)
    message = _text(fields, "message") or (reason or f"{url} answered with status {status}").replace("_", " ")
    listed = fields.get("problems")
    problems = [
        Problem(_text(entry, "path"), _text(entry, "message") or message, _text(entry, "hint"))
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, dict)
    ]
    return kind(
        message,
        url=url,
        errno=status,
        reason=reason,
        path=_text(fields, "path"),
        hint=None if status == 401 else _text(fields, "hint"),  # that of 401 mentions headers, which callers don't set
        problems=problems,
    )


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) and value else None
