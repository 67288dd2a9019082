"""What is kept of living processes somewhere that outlives the daemon."""

from typing import Annotated, Literal

import msgspec

from gaffer.jobs.rollout import RolloutKind
from gaffer.jobs.slot import SlotState


class ProcessRecord(msgspec.Struct, frozen=True):
    """What must be known of a process to find it again after the daemon was killed.

    `start_time` in clock ticks since boot (field 22 of proc_pid_stat(5)), 0 if unknown; `graceful_timeout` in seconds.
    `state` is that of its slot, `definition` the launch digest of its config, empty if unknown. `orphans` is what to do
    with it if it outlives its parent: None as the daemon is set, and `end` in records of versions that did not have it.
    `restarts` is the number of restarts of its job when it was started, `outdated` the kind of the rollout that is to
    replace it. `started_at` is the time of its start in seconds since 1970, `spawned_at` in seconds of CLOCK_MONOTONIC;
    both are 0 if unknown.
    """

    pid: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    job: str
    slot: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    os_pid: Annotated[int, msgspec.Meta(ge=1, le=2**22)]  # the largest pid_max, proc(5)
    pgid: Annotated[int, msgspec.Meta(ge=1, le=2**22)]
    start_time: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    boot_id: str
    cookie: str
    graceful_timeout: Annotated[float, msgspec.Meta(ge=0)]
    detach: bool
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    state: SlotState = SlotState.STARTING
    definition: str = ""
    stop_signal: Annotated[int, msgspec.Meta(ge=1, le=64)] = 15
    orphans: Literal["adopt", "end"] | None = "end"
    restarts: Annotated[int, msgspec.Meta(ge=0)] = 0
    outdated: RolloutKind | None = None
    started_at: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    spawned_at: Annotated[float, msgspec.Meta(ge=0)] = 0.0
