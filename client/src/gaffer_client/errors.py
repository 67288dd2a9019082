"""What can go wrong between a client and a server, as one tree.

GafferClientError
    InvalidURL          the address makes no sense
    Unreachable         nobody answered
    UntrustedServer     it is not proven who would get a key
    MalformedAnswer     an answer that the protocol does not allow
    StatusError         the server refused: BadRequest, Unauthorized, Forbidden, NotFound, Conflict, ServerError
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "BadRequest",
    "Conflict",
    "Forbidden",
    "GafferClientError",
    "GafferConflict",
    "GafferForbidden",
    "GafferNotFound",
    "GafferUnauthorized",
    "InvalidURL",
    "MalformedAnswer",
    "NotFound",
    "Problem",
    "ServerError",
    "StatusError",
    "Unauthorized",
    "Unreachable",
    "UntrustedServer",
    "status_error",
]


class Problem(NamedTuple):
    """One mistake that a server found in the input: the place (`$.jobs[0].cmd`), what is wrong, what to do."""

    path: str | None
    message: str
    hint: str | None


class GafferClientError(Exception):
    """Base of all errors of this package.

    `message` is a sentence for people, `hint` what to do next or None, `url` the address that was asked, `errno`
    the HTTP status (None when no server answered), `reason` a stable code for programs and `path` the place in
    the input that the server found wrong or None. When it found several mistakes, `problems` holds them all.
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
    """An address that is no http, https or unix URL."""

    reason = "invalid_url"


class Unreachable(GafferClientError):
    """No server answered: nothing listens there, the network or TLS failed, or the time was up."""

    reason = "unreachable"


class UntrustedServer(GafferClientError):
    """A key or an environment was not sent: nothing proves that the server is the one that may see it."""

    reason = "untrusted_server"


class MalformedAnswer(GafferClientError):
    """The server answered with something the protocol does not allow: it is no Gaffer server, or a broken one."""

    reason = "malformed_answer"


class StatusError(GafferClientError):
    """The server refused; `errno` is the status and `reason` the code of its answer."""

    reason = "http_error"


class BadRequest(StatusError):
    """400: the input is wrong and nothing was changed."""


class Unauthorized(StatusError):
    """401: a key is needed, or the one given is unknown."""


class Forbidden(StatusError):
    """403: the key does not allow this."""


class NotFound(StatusError):
    """404: no such session, job or process."""


class Conflict(StatusError):
    """409: there is one of that name already."""


class ServerError(StatusError):
    """5xx: the server can't do it, at least not now."""


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
}


def status_error(status: int, body: object, url: str) -> StatusError:
    """The error for an answer of that status; `body` is its decoded JSON, or None when it was no JSON."""
    kind = _BY_STATUS.get(status) or (ServerError if status >= 500 else StatusError)
    fields = body if isinstance(body, dict) else {}
    reason = _text(fields, "error")
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
        hint=None if status == 401 else _text(fields, "hint"),  # that of 401 names headers, which callers don't set
        problems=problems,
    )


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) and value else None
