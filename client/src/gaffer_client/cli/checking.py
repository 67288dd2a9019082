"""Responses that are checked only if they can't be shown: importing their schemas takes longer than most commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gaffer_client.transport import Transport


@contextmanager
def checked_on_failure(transport: Transport, document: object, shape: str) -> Iterator[None]:
    """If the block fails, raise MalformedAnswer if `document` is not valid as `shape`, a type in `documents`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        from gaffer_client import documents

        transport.check(document, getattr(documents, shape))
        raise


def items(document: Any, key: str) -> list[Any]:
    """Return the list `key` of a document; raise an error that `checked_on_failure` catches if it has none."""
    found = document[key]
    if not isinstance(found, list):
        raise TypeError(f"{key} is not a list")
    return found
