"""Descriptions of handler methods for OpenAPI: the types of requests and responses."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from gaffer.errors import GafferError

F = TypeVar("F", bound=Callable[..., Any])

JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"


class Operation(NamedTuple):
    """One method of a resource.

    returns: type of the response body, anything msgspec can describe, or a tuple of alternatives; None for no body.
    status: HTTP status of success. body: type of the request body, or a tuple of alternatives; None for no body, and a
    union with None for an optional body. query: a Struct with a field for each query parameter. media, body_media:
    content types of the response and the request. errors: classes or statuses of errors in addition to those that every
    route may return (400, 401, 403, 404 for the resources in its path, and 413, 415 and 503 for changes); 304 has no
    body. text_errors: statuses whose response may be plain text instead of the error body, as some protocols require.
    headers: response headers with their descriptions. endless: whether the response may last as long as the client
    listens, which is implied by text/event-stream. document: whether JSON in an endless response is one document, not
    one per line.
    """

    returns: Any = None
    status: int = 200
    body: Any = None
    query: type[msgspec.Struct] | None = None
    media: tuple[str, ...] = (JSON,)
    body_media: str = JSON
    errors: tuple[type[GafferError] | int, ...] = ()
    text_errors: tuple[int, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    endless: bool = False
    document: bool = False


def operation(
    returns: Any = None,
    *,
    status: int = 200,
    body: Any = None,
    query: type[msgspec.Struct] | None = None,
    media: str | Iterable[str] = JSON,
    body_media: str = JSON,
    errors: Iterable[type[GafferError] | int] = (),
    text_errors: Iterable[int] = (),
    headers: dict[str, str] | None = None,
    endless: bool = False,
    document: bool = False,
) -> Callable[[F], F]:
    """Attach an Operation to a handler method; see Operation for the arguments."""
    media_types = (media,) if isinstance(media, str) else tuple(media)
    described = Operation(
        returns,
        status,
        body,
        query,
        media_types,
        body_media,
        tuple(errors),
        tuple(text_errors),
        tuple((headers or {}).items()),
        endless or EVENTS in media_types,
        document,
    )

    def attach(method: F) -> F:
        method.operation = described  # type: ignore[attr-defined]
        return method

    return attach


def operation_of(handler: type, method: str) -> Operation | None:
    """Return the Operation of an HTTP method, that of GET for HEAD; None if there is none."""
    name = "get" if method == "HEAD" else method.lower()
    return getattr(getattr(handler, name, None), "operation", None)
