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

    returns: the type of the answer, anything msgspec can describe; None for no body. status: of success. body: the
    type of the request body, None for none. query: a Struct with a field for each query parameter. media, body_media:
    content types of answer and request. errors: those it answers beside what every route may (400, 401, 403, 503).
    """

    returns: Any = None
    status: int = 200
    body: Any = None
    query: type[msgspec.Struct] | None = None
    media: tuple[str, ...] = (JSON,)
    body_media: str = JSON
    errors: tuple[type[GafferError], ...] = ()


def operation(
    returns: Any = None,
    *,
    status: int = 200,
    body: Any = None,
    query: type[msgspec.Struct] | None = None,
    media: str | Iterable[str] = JSON,
    body_media: str = JSON,
    errors: Iterable[type[GafferError]] = (),
) -> Callable[[F], F]:
    """Note an Operation on a handler's method; see there for the arguments."""
    medias = (media,) if isinstance(media, str) else tuple(media)
    noted = Operation(returns, status, body, query, medias, body_media, tuple(errors))

    def note(method: F) -> F:
        method.operation = noted  # type: ignore[attr-defined]
        return method

    return note
