"""The state machine of one slot: the place of one instance of a job. Pure data, no I/O.

`TRANSITIONS` is the machine: for a state and a cue it gives the next state and the actions. The job
chooses the cue, see gaffer.jobs.job.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class SlotState(StrEnum):
    """The stage of a slot in the life of its process."""

    EMPTY = "empty"
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPING = "stopping"


class Cue(StrEnum):
    """The input of a slot."""

    FILL = "fill"  # start a process now
    PARK = "park"  # start a process later, on another cue
    DELAY = "delay"  # start a process after a delay
    VACATE = "vacate"  # stay empty
    UP = "up"  # the process runs
    DRAIN = "drain"  # announce the process as draining, then stop it
    STOP = "stop"  # send SIGTERM
    DIED = "died"  # the leader ended by itself
    KILL = "kill"  # the graceful timeout is over
    RELEASE = "release"  # the process lives on without us
    ADOPT = "adopt"  # a process that an earlier manager left runs in this slot


class Action(StrEnum):
    """An action of a transition."""

    SPAWN = "spawn"
    TERMINATE = "terminate"  # SIGTERM to all of the process, and a timer for SIGKILL
    KILL = "kill"  # SIGKILL to all of the process
    START_DRAIN = "start drain"  # a timer for the end of draining
    CANCEL_DRAIN = "cancel drain"
    START_BACKOFF = "start backoff"  # a timer for the next attempt
    CANCEL_BACKOFF = "cancel backoff"
    RELEASE = "release"  # stop watching the process


S, C, A = SlotState, Cue, Action

TRANSITIONS: dict[tuple[SlotState, Cue], tuple[SlotState, tuple[Action, ...]]] = {
    (S.EMPTY, C.FILL): (S.STARTING, (A.SPAWN,)),
    (S.EMPTY, C.PARK): (S.WAITING, ()),
    (S.EMPTY, C.ADOPT): (S.READY, ()),
    (S.WAITING, C.FILL): (S.STARTING, (A.SPAWN,)),
    (S.WAITING, C.VACATE): (S.EMPTY, ()),
    (S.STARTING, C.UP): (S.READY, ()),
    (S.STARTING, C.DELAY): (S.BACKOFF, (A.START_BACKOFF,)),
    (S.STARTING, C.PARK): (S.WAITING, ()),
    (S.STARTING, C.VACATE): (S.EMPTY, ()),
    (S.READY, C.DRAIN): (S.DRAINING, (A.START_DRAIN,)),
    (S.READY, C.STOP): (S.STOPPING, (A.TERMINATE,)),
    (S.READY, C.DIED): (S.STOPPING, (A.TERMINATE,)),
    (S.READY, C.RELEASE): (S.EMPTY, (A.RELEASE,)),
    (S.DRAINING, C.STOP): (S.STOPPING, (A.CANCEL_DRAIN, A.TERMINATE)),
    (S.DRAINING, C.DIED): (S.STOPPING, (A.CANCEL_DRAIN, A.TERMINATE)),
    (S.STOPPING, C.DIED): (S.STOPPING, ()),
    (S.STOPPING, C.KILL): (S.STOPPING, (A.KILL,)),
    (S.STOPPING, C.RELEASE): (S.EMPTY, (A.RELEASE,)),
    (S.STOPPING, C.FILL): (S.STARTING, (A.SPAWN,)),
    (S.STOPPING, C.DELAY): (S.BACKOFF, (A.START_BACKOFF,)),
    (S.STOPPING, C.PARK): (S.WAITING, ()),
    (S.STOPPING, C.VACATE): (S.EMPTY, ()),
    (S.BACKOFF, C.FILL): (S.STARTING, (A.CANCEL_BACKOFF, A.SPAWN)),
    (S.BACKOFF, C.PARK): (S.WAITING, (A.CANCEL_BACKOFF,)),
    (S.BACKOFF, C.VACATE): (S.EMPTY, (A.CANCEL_BACKOFF,)),
}


@dataclass(slots=True)
class Slot:
    """One instance of a job: its state and the process it holds, if any. Times are monotonic seconds."""

    index: int
    state: SlotState = SlotState.EMPTY
    pid: int | None = None
    spawned_at: float = 0.0
    exited_at: float | None = None  # set once the leader ended
    crashed: bool = False  # the leader ended without being asked to
    replace: bool = False  # the process is being replaced
    refused: str = ""  # why its process can't be ended
    stuck: bool = False  # its process outlives SIGKILL
    failures: int = 0  # starts in a row that did not last
    crashes: int = 0  # unwanted exits in a row, each soon after the start
    graceful_timeout: float | None = None  # of a committed process, when it differs from the job's
    env: dict[str, str] = field(default_factory=dict)  # of a committed process, over the job's

    def step(self, cue: Cue) -> tuple[Action, ...]:
        """Make the transition for `cue` and return its actions; KeyError if there is none."""
        self.state, actions = TRANSITIONS[self.state, cue]
        return actions
