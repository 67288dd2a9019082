"""Documents and parts of documents that nodes and lookups share."""

from typing import Annotated, Final, Literal, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")

LATER: Final = "later than 0.5"
Later: TypeAlias = Annotated[T, LATER]
"""A field that servers of this version always send and older ones don't: clients do without it."""

ProcessState = Literal["starting", "ready", "draining"]


class Done(TypedDict):
    """The order was taken."""

    ok: Literal[True]


class EndpointInfo(TypedDict):
    """Where an instance can be reached."""

    name: str
    address: str
    port: int
