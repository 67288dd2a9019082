"""Events, the input of a job's state machine, and instructions, its output."""

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from gaffer.jobs.config import JobConfig
from gaffer.jobs.probing import Question
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.usage import ResourceUsage

if TYPE_CHECKING:
    from gaffer.jobs.failures import Failures

# The purpose of a timer, and the pid or slot it belongs to.
TimerKey: TypeAlias = tuple[str, int]

RETRY: TimerKey = ("retry", 0)  # of a job that is held
CONNECTION: TimerKey = ("connection", 0)  # before the next connection is awaited
DISABLED: TimerKey = ("disabled", 0)

_NOT_SHOWN = ("env", "output")  # may hold secrets


class _Message(Struct, frozen=True):
    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _NOT_SHOWN)
        return f"{type(self).__name__}({', '.join(shown)})"


class StartRequested(_Message, frozen=True):
    """Start the job, with `count` processes or as many as configured; flapping and back-off are reset.

    They go on with the `failures` of an earlier manager.
    """

    count: int | None = None
    failures: "Failures | None" = None


class StopRequested(_Message, frozen=True):
    """Stop the job and keep it stopped."""


class RestartRequested(_Message, frozen=True):
    """Replace all processes, `rolling` a few at a time; `reset` restores their configured number (MGR-32)."""

    reset: bool = False
    rolling: bool = False


class ReloadRequested(_Message, frozen=True):
    """Send the reload signal to all processes, and probe them again; without one, replace them."""


class ConfigChanged(_Message, frozen=True):
    """The job has a new configuration; `rolling`: replace its processes a few at a time if the change requires it."""

    config: JobConfig
    start: bool = False
    rolling: bool = False


class RollbackRequested(_Message, frozen=True):
    """Return to the definition of `generation`, or to the one before the current."""

    generation: int | None = None


class Scaled(_Message, frozen=True):
    """The desired number of processes is now `count`."""

    count: int


class DisableRequested(_Message, frozen=True):
    """Keep the job from running, for `seconds` or until EnableRequested.

    `at` is when that was asked, `until` when it ends, in seconds since 1970.
    """

    reason: str
    at: float
    until: float | None = None
    seconds: float | None = None


class EnableRequested(_Message, frozen=True):
    """Let the job run again, if that is desired."""


class Unloaded(_Message, frozen=True):
    """The job is forgotten once its processes are gone."""


class ManagerStopping(_Message, frozen=True):
    """The manager ends; detached processes are left alone."""

    hurry: bool = False


class NameFreed(_Message, frozen=True):
    """The name of the job is `free`, or still held by the processes of its predecessor."""

    free: bool


class DependencyChanged(_Message, frozen=True):
    """The job has to wait for the jobs it comes after, for the reason `waiting_for`; None: no longer."""

    waiting_for: str | None


class ProbeResult(_Message, frozen=True):
    """The verdict of the probes of process `pid` on a question changed; `error` says why it is bad."""

    pid: int
    question: Question
    good: bool
    error: str = ""


class LimitExceeded(_Message, frozen=True):
    """The process `pid` exceeds a limit: `reason` is a word for it, `message` the figures."""

    pid: int
    reason: str
    message: str


class ScheduleArmed(_Message, frozen=True):
    """The next run is due at `next_run` (seconds since 1970), None if never."""

    next_run: float | None


class ScheduleDue(_Message, frozen=True):
    """A run is due; `at` in seconds since 1970."""

    at: float


class ConnectionWaiting(_Message, frozen=True):
    """A client has connected to a socket of the job."""


class ConnectionsIdle(_Message, frozen=True):
    """No client has been connected for the idle timeout of the job."""


class SocketsFailed(_Message, frozen=True):
    """The sockets of the job can't be opened."""

    message: str


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
    """The process of `record`, which an earlier manager left running, is now `pid`; it is `age` seconds old.

    `exited`: how it has exited follows. `replaced`: a later process has its slot.
    """

    pid: int
    record: ProcessRecord
    age: float
    exited: bool = False
    replaced: bool = False


class Spawned(_Message, frozen=True):
    """The process `pid` runs."""

    pid: int
    os_pid: int


class SpawnFailed(_Message, frozen=True):
    """The process `pid` could not be started."""

    pid: int
    reason: str
    message: str
    at: float = 0.0  # seconds since 1970


class Exited(_Message, frozen=True):
    """The leader of process `pid` ended; its group may live on. `output` holds its last lines of output.

    `exit_code` and `term_signal` are None when unknown: the process was not our child. `out_of_memory`:
    whether the kernel killed it because memory ran out, None when that is possible but unknown. `at` is in seconds
    since 1970; `ago` is how many seconds before this event the process exited.
    """

    pid: int
    exit_code: int | None
    term_signal: int | None
    os_pid: int | None = None
    output: str | None = None
    out_of_memory: bool | None = False
    at: float = 0.0
    usage: ResourceUsage | None = None
    ago: float = 0.0


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
    | ReloadRequested
    | ConfigChanged
    | RollbackRequested
    | Scaled
    | DisableRequested
    | EnableRequested
    | Unloaded
    | ManagerStopping
    | NameFreed
    | DependencyChanged
    | ProbeResult
    | LimitExceeded
    | ScheduleArmed
    | ScheduleDue
    | ConnectionWaiting
    | ConnectionsIdle
    | SocketsFailed
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
    """Send `signum` to the process `pid` and all that belongs to it, or to its leader alone."""

    pid: int
    signum: int
    leader_only: bool = False


class StartProbes(_Message, frozen=True):
    """Begin to probe the process `pid`; `again`: it was told to reload; `ready`: it is ready already."""

    pid: int
    again: bool = False
    ready: bool = False


class StopProbes(_Message, frozen=True):
    """Stop probing the process `pid`."""

    pid: int


class AfterExit(_Message, frozen=True):
    """Run the command that follows the exit of process `pid`."""

    pid: int
    slot: int
    exit_code: int | None
    term_signal: int | None
    reason: str


class ArmSchedule(_Message, frozen=True):
    """Send ScheduleDue whenever a run is due, from now on."""


class DisarmSchedule(_Message, frozen=True):
    """Send no more ScheduleDue."""


class AwaitConnection(_Message, frozen=True):
    """Open the sockets of the job and send ConnectionWaiting once a client connects."""


class AwaitIdle(_Message, frozen=True):
    """Send ConnectionsIdle once no client has been connected for the idle timeout."""


class CloseSockets(_Message, frozen=True):
    """Close the sockets of the job."""


class EndManager(_Message, frozen=True):
    """An essential job has ended for good: end the manager with this exit code."""

    exit_code: int
    reason: str


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


Instruction: TypeAlias = (
    Spawn
    | Adopt
    | Signal
    | Release
    | StartProbes
    | StopProbes
    | AfterExit
    | ArmSchedule
    | DisarmSchedule
    | AwaitConnection
    | AwaitIdle
    | CloseSockets
    | EndManager
    | SetTimer
    | CancelTimer
    | Publish
)
