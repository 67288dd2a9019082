"""Events, the input of a job's state machine, and instructions, its output."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gaffer.jobs.config import ProcessConfig
from gaffer.jobs.records import ProcessRecord

# The purpose of a timer, and the pid or slot it belongs to.
TimerKey: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Start the job; flapping and back-off are reset."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop the job and keep it stopped."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """Replace all processes; `reset` brings the count back to the configured one (MGR-32)."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """The job has a new configuration."""

    config: ProcessConfig
    start: bool = False


@dataclass(frozen=True, slots=True)
class Scaled:
    """The desired number of processes is now `count`."""

    count: int


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The job is forgotten once its processes are gone."""


@dataclass(frozen=True, slots=True)
class ManagerStopping:
    """The manager ends; detached processes are left alone."""

    hurry: bool = False


@dataclass(frozen=True, slots=True)
class DependencyChanged:
    """The name of the job is free (`ready`), or still held by its predecessor."""

    ready: bool


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """Whether the node is out of service: no process is to run, whatever is desired of the job."""

    drained: bool


@dataclass(frozen=True, slots=True)
class ProcessStopRequested:
    """Stop one process; the job replaces it (MGR-40)."""

    pid: int


@dataclass(frozen=True, slots=True)
class Committed:
    """Run one process outside the slots, once."""

    pid: int
    graceful_timeout: float
    env: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Adopted:
    """The process of `record`, which an earlier manager detached, is now `pid`; it is `age` seconds old."""

    pid: int
    record: ProcessRecord
    age: float


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process `pid` runs."""

    pid: int
    os_pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process `pid` could not be started."""

    pid: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The leader of process `pid` ended; its group may live on. `output` is its last line of output.

    `exit_code` and `term_signal` are None when unknown: the process was not our child. `out_of_memory`:
    whether the kernel killed it because memory ran out, None when that is possible but unknown.
    """

    pid: int
    exit_code: int | None
    term_signal: int | None
    os_pid: int | None = None
    output: str | None = field(default=None, repr=False)
    out_of_memory: bool | None = False


@dataclass(frozen=True, slots=True)
class EndRefused:
    """The tree of process `pid` can't be signalled; `final` when it outlives SIGKILL and nothing more is tried."""

    pid: int
    message: str
    final: bool


@dataclass(frozen=True, slots=True)
class GroupEmpty:
    """Nothing of process `pid` is left."""

    pid: int


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer set by SetTimer is due."""

    key: TimerKey


Event: TypeAlias = (
    StartRequested
    | StopRequested
    | RestartRequested
    | ConfigChanged
    | Scaled
    | Unloaded
    | ManagerStopping
    | DependencyChanged
    | NodeDrained
    | ProcessStopRequested
    | Committed
    | Adopted
    | Spawned
    | SpawnFailed
    | Exited
    | EndRefused
    | GroupEmpty
    | TimerFired
)


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process as `pid`; `slot` is 0 for a committed one."""

    pid: int
    slot: int
    env: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Adopt:
    """Watch the process of `record` as `pid`."""

    pid: int
    record: ProcessRecord


@dataclass(frozen=True, slots=True)
class Signal:
    """Send `signum` to the process `pid` and all that belongs to it."""

    pid: int
    signum: int


@dataclass(frozen=True, slots=True)
class Release:
    """Stop watching the detached process `pid`, but let it live."""

    pid: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send TimerFired(key) after `delay` seconds."""

    key: TimerKey
    delay: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer `key`."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class Publish:
    """Announce an event of the job, or of its process `pid`."""

    kind: str
    pid: int | None = None
    data: dict[str, Any] = field(default_factory=dict)


Instruction: TypeAlias = Spawn | Adopt | Signal | Release | SetTimer | CancelTimer | Publish
