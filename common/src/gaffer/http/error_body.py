"""The body of every error response, for the description of an API."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gaffer.errors import Problem


class ErrorBody(msgspec.Struct):
    """What every error answers."""

    error: Annotated[str, Meta(description="A code for programs; it stays the same.")]
    errno: Annotated[int, Meta(description="The HTTP status.")]
    message: Annotated[str, Meta(description="A sentence for people.")]
    path: Annotated[str | None, Meta(description="Where in the input: `$.cmd`.")]
    hint: Annotated[str | None, Meta(description="What to do.")]
    problems: Annotated[list[Problem], Meta(description="All mistakes, when there is more than one.")] = []
