"""Schemas shared by nodes and lookup servers."""

from typing import Annotated, Final, Literal, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")

LATER: Final = "later than 0.5"
Later: TypeAlias = Annotated[T, LATER]
"""A field that this version always sends, but older ones may omit: clients must not require it."""

ProcessState = Literal["starting", "ready", "draining"]


class Done(TypedDict):
    """An accepted command."""

    ok: Literal[True]


class EndpointInfo(TypedDict):
    """An address at which an instance can be reached."""

    name: str
    address: str
    port: int
