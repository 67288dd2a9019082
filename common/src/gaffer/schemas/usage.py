"""The usage history of a job in a response of a node."""

from typing import Annotated, TypedDict

from msgspec import Meta


class SlotUsage(TypedDict):
    """What the process in a slot used, a value for each sample; null where there was no process."""

    slot: Annotated[int, Meta(description="0: processes that run once, together.")]
    cpu: Annotated[list[float | None], Meta(description="Percent of a processor, since the sample before.")]
    memory: Annotated[list[int | None], Meta(description="Bytes of resident memory.")]


class JobUsage(TypedDict):
    """What the processes of a job used, sample by sample, oldest first."""

    name: str
    now: Annotated[float, Meta(description="The time of the node, in seconds since 1970.")]
    interval: Annotated[float, Meta(description="Seconds between two samples, unless the node was busy.")]
    at: Annotated[list[float], Meta(description="Times of the samples, in seconds since 1970.")]
    restarts: Annotated[list[int | None], Meta(description="Restarts of the job until then.")]
    processes: list[SlotUsage]
    left_out: Annotated[int, Meta(description="Processes of the node that are not recorded, because it has too many.")]
