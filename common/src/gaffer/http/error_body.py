"""The body of every error response, as a schema for OpenAPI."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gaffer.errors import Problem


class ErrorBody(msgspec.Struct):
    """The body of an error response."""

    error: Annotated[str, Meta(description="A stable code for programs.")]
    errno: Annotated[int, Meta(description="The HTTP status code.")]
    message: Annotated[str, Meta(description="A human-readable message.")]
    path: Annotated[str | None, Meta(description="The place of the error in the input, such as `$.cmd`.")]
    hint: Annotated[str | None, Meta(description="How to fix the problem.")]
    problems: Annotated[list[Problem], Meta(description="All errors in the input, if there is more than one.")] = []
