"""The body of every error response, as a schema for OpenAPI."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Problem(msgspec.Struct):
    """One mistake in a configuration: its location (`$.cmd`), what is wrong, and how to mend it."""

    path: str
    message: str
    hint: str | None = None


class ErrorBody(msgspec.Struct):
    """The body of an error response."""

    error: Annotated[str, Meta(description="A stable code for programs.")]
    errno: Annotated[int, Meta(description="The HTTP status code.")]
    message: Annotated[str, Meta(description="A human-readable message.")]
    path: Annotated[str | None, Meta(description="The place of the error in the input, such as `$.cmd`.")]
    hint: Annotated[str | None, Meta(description="How to fix the problem.")]
    problems: Annotated[list[Problem], Meta(description="All errors in the input, if there is more than one.")] = []
