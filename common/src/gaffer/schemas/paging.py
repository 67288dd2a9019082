"""Schemas shared by the searches of nodes and lookup servers."""

from typing import Annotated, TypedDict

from msgspec import Meta

Key = Annotated[str, Meta(description="Identifies the item among those of its kind.")]
Removed = Annotated[list[str], Meta(description="Keys of items that are gone, or changed and do not match.")]


class Found(TypedDict):
    """The numbers of items that a search finds."""

    total: Annotated[int, Meta(description="The items that match.")]
    counts: Annotated[dict[str, int], Meta(description="The items that match all but `state`, by their state.")]


class FoundPage(Found):
    """What pages have besides their items."""

    cursor: Annotated[str | None, Meta(description="For the next page; null on the last one.")]
    epoch: Annotated[str, Meta(description="With `seq` the position, `EPOCH:SEQ`, from which to follow changes.")]
    seq: int
