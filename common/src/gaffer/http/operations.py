"""What a handler says of one of its methods for those who use the API: the types of what it takes and answers."""

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

    returns: the type of the answer, anything msgspec can describe, or a tuple of such types of which it has one; None
    for no body. status: of success. body: the type of the request body, also a tuple; None for none, and one that may
    be None for a body that may be left out. query: a Struct with a field for each query parameter. media, body_media:
    content types of answer and request. errors: those it answers beside what every route may (400, 401, 403, and 404
    for what its path names, 413, 415 and 503 for changes), as classes or statuses; 304 among them has no body.
    text_errors: statuses that may come with a text in place of the error body, where a protocol wants it. headers:
    those of the answer, with what they say. endless: whether the answer may take as long as the client listens; so any
    that may be text/event-stream.
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
) -> Callable[[F], F]:
    """Note an Operation on a handler's method; see there for the arguments."""
    media_types = (media,) if isinstance(media, str) else tuple(media)
    noted = Operation(
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
    )

    def attach(method: F) -> F:
        method.operation = noted  # type: ignore[attr-defined]
        return method

    return attach


def operation_of(handler: type, method: str) -> Operation | None:
    """What the handler says of an HTTP method, of GET for HEAD; None when it says nothing."""
    name = "get" if method == "HEAD" else method.lower()
    return getattr(getattr(handler, name, None), "operation", None)
