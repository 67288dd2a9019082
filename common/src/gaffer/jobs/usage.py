"""Resources that a process used."""

from msgspec import Struct


class ResourceUsage(Struct, frozen=True):
    """What a process and its reaped descendants used, getrusage(2)."""

    user_time: float  # seconds
    system_time: float  # seconds
    max_rss: int | None  # bytes; None if it is not more than the manager's, of which a new process is a copy
