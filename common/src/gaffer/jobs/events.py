"""Events, the input of a job's state machine, and instructions, its output."""

from typing import Any, TypeAlias

from msgspec import Struct

from gaffer.jobs.config import JobConfig
from gaffer.jobs.records import ProcessRecord

# The purpose of a timer, and the pid or slot it belongs to.
TimerKey: TypeAlias = tuple[str, int]

_NOT_SHOWN = ("env", "output")  # may hold secrets


class _Message(Struct, frozen=True):
    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _NOT_SHOWN)
        return f"{type(self).__name__}({', '.join(shown)})"


class StartRequested(_Message, frozen=True):
    """Start the job; flapping and back-off are reset."""


class StopRequested(_Message, frozen=True):
    """Stop the job and keep it stopped."""


class RestartRequested(_Message, frozen=True):
    """Replace all processes; `reset` brings the count back to the configured one (MGR-32)."""

    reset: bool = False


class ConfigChanged(_Message, frozen=True):
    """The job has a new configuration."""

    config: JobConfig
    start: bool = False


class Scaled(_Message, frozen=True):
    """The desired number of processes is now `count`."""

    count: int


class Unloaded(_Message, frozen=True):
    """The job is forgotten once its processes are gone."""


class ManagerStopping(_Message, frozen=True):
    """The manager ends; detached processes are left alone."""

    hurry: bool = False


class DependencyChanged(_Message, frozen=True):
    """The name of the job is free (`ready`), or still held by its predecessor."""

    ready: bool


class NodeDrained(_Message, frozen=True):
    """Whether the node is out of service: no process is to run, whatever is desired of the job."""

    drained: bool


class ProcessStopRequested(_Message, frozen=True):
    """Stop one process; the job replaces it (MGR-40)."""

    pid: int


class Committed(_Message, frozen=True):
    """Run one process outside the slots, once."""

    pid: int
    graceful_timeout: float
    env: dict[str, str] = {}


class Adopted(_Message, frozen=True):
    """The process of `record`, which an earlier manager detached, is now `pid`; it is `age` seconds old."""

    pid: int
    record: ProcessRecord
    age: float


class Spawned(_Message, frozen=True):
    """The process `pid` runs."""

    pid: int
    os_pid: int


class SpawnFailed(_Message, frozen=True):
    """The process `pid` could not be started."""

    pid: int
    reason: str
    message: str


class Exited(_Message, frozen=True):
    """The leader of process `pid` ended; its group may live on. `output` is its last line of output.

    `exit_code` and `term_signal` are None when unknown: the process was not our child. `out_of_memory`:
    whether the kernel killed it because memory ran out, None when that is possible but unknown.
    """

    pid: int
    exit_code: int | None
    term_signal: int | None
    os_pid: int | None = None
    output: str | None = None
    out_of_memory: bool | None = False


class EndRefused(_Message, frozen=True):
    """The tree of process `pid` can't be signalled; `final` if it survives SIGKILL and nothing more will be tried."""

    pid: int
    message: str
    final: bool


class GroupEmpty(_Message, frozen=True):
    """Nothing of process `pid` is left."""

    pid: int


class TimerFired(_Message, frozen=True):
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


class Spawn(_Message, frozen=True):
    """Start a process as `pid`; `slot` is 0 for a committed one."""

    pid: int
    slot: int
    env: dict[str, str] = {}


class Adopt(_Message, frozen=True):
    """Watch the process of `record` as `pid`."""

    pid: int
    record: ProcessRecord


class Signal(_Message, frozen=True):
    """Send `signum` to the process `pid` and all that belongs to it."""

    pid: int
    signum: int


class Release(_Message, frozen=True):
    """Stop watching the detached process `pid`, but let it live."""

    pid: int


class SetTimer(_Message, frozen=True):
    """Send TimerFired(key) after `delay` seconds."""

    key: TimerKey
    delay: float


class CancelTimer(_Message, frozen=True):
    """Forget the timer `key`."""

    key: TimerKey


class Publish(_Message, frozen=True):
    """Announce an event of the job, or of its process `pid`."""

    kind: str
    pid: int | None = None
    data: dict[str, Any] = {}


Instruction: TypeAlias = Spawn | Adopt | Signal | Release | SetTimer | CancelTimer | Publish
