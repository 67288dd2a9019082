"""What is kept of living processes somewhere that outlives the daemon."""

from typing import Protocol

import msgspec


class ProcessRecord(msgspec.Struct, frozen=True):
    """What must be known of a process to find it again after the daemon was killed.

    `start_time` in clock ticks since boot (field 22 of proc_pid_stat(5)), `graceful_timeout` in seconds.
    """

    pid: int
    job: str
    slot: int
    os_pid: int
    pgid: int
    start_time: int
    boot_id: str
    cookie: str
    graceful_timeout: float
    detach: bool
    port: int | None = None


class Recorder(Protocol):
    """Keeps the records of living processes somewhere that outlives the daemon."""

    def spawned(self, record: ProcessRecord) -> None:
        """A process was started."""

    def ended(self, pid: int) -> None:
        """Nothing is left of the process with the internal id `pid`."""
