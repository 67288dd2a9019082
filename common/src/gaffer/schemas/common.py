"""Documents, and parts of documents, of both nodes and lookups."""

from typing import Annotated, Final, Literal, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")

LATER: Final = "later than 0.5"
Later: TypeAlias = Annotated[T, LATER]
"""A field that this version always sends and older ones may leave out: clients must not need it."""

ProcessState = Literal["starting", "ready", "draining"]


class Done(TypedDict):
    """The order was taken."""

    ok: Literal[True]


class EndpointInfo(TypedDict):
    """Where an instance can be reached."""

    name: str
    address: str
    port: int
