"""Schema of the upgrade of a node."""

from typing import Annotated, TypedDict

from msgspec import Meta


class UpgradeStarted(TypedDict):
    """The gafferd that makes way for the next one."""

    version: Annotated[str, Meta(description="Its version.")]
    pid: Annotated[int, Meta(description="Its process id, which differs from that of the next one, see /health.")]
    processes: Annotated[int, Meta(description="Number of processes that it leaves running.")]
    checked: Annotated[bool, Meta(description="Whether the program on disk was checked before.")]
