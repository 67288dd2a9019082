"""The state machine of one slot: the place of one instance of a job. Pure data, no I/O.

`TRANSITIONS` is the machine: for a state and a cue it gives the next state and the actions. The job
chooses the cue, see gaffer.jobs.job.
"""

from collections.abc import Set
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct, field

from gaffer.jobs.probing import Question

if TYPE_CHECKING:
    from gaffer.jobs.config import JobConfig


class SlotState(StrEnum):
    """The stage of a slot in the life of its process."""

    EMPTY = "empty"
    WAITING = "waiting"
    SPAWNING = "spawning"  # ordered, not yet done; people see it as starting
    STARTING = "starting"  # it runs, but is not ready
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPING = "stopping"


VISIBLE_STATES = tuple(state for state in SlotState if state not in (SlotState.EMPTY, SlotState.SPAWNING))


class Cue(StrEnum):
    """The input of a slot."""

    FILL = "fill"  # start a process now
    PARK = "park"  # start a process later, on another cue
    DELAY = "delay"  # start a process after a delay
    VACATE = "vacate"  # stay empty
    UP = "up"  # the process runs
    READY = "ready"  # the process is ready
    UNREADY = "unready"  # the process is no longer ready
    DRAIN = "drain"  # announce the process as draining, then stop it
    STOP = "stop"  # send SIGTERM
    DIED = "died"  # the leader ended by itself
    KILL = "kill"  # the graceful timeout is over
    RELEASE = "release"  # the process lives on without us
    ADOPT = "adopt"  # a process that an earlier manager left runs in this slot


class Action(StrEnum):
    """An action of a transition."""

    SPAWN = "spawn"
    OBSERVE = "observe"  # probes, and timers for readiness and lifetime
    SERVE = "serve"  # no more timer for readiness
    FORGET = "forget"  # no more probes and timers of the running process
    TERMINATE = "terminate"  # the stop signal to all of the process, and a timer for SIGKILL
    KILL = "kill"  # SIGKILL to all of the process
    START_DRAIN = "start drain"  # a timer for the end of draining
    CANCEL_DRAIN = "cancel drain"
    START_BACKOFF = "start backoff"  # a timer for the next attempt
    CANCEL_BACKOFF = "cancel backoff"
    RELEASE = "release"  # stop watching the process


S, C, A = SlotState, Cue, Action

TRANSITIONS: dict[tuple[SlotState, Cue], tuple[SlotState, tuple[Action, ...]]] = {
    (S.EMPTY, C.FILL): (S.SPAWNING, (A.SPAWN,)),
    (S.EMPTY, C.PARK): (S.WAITING, ()),
    (S.EMPTY, C.DELAY): (S.BACKOFF, (A.START_BACKOFF,)),
    (S.EMPTY, C.ADOPT): (S.STARTING, (A.OBSERVE,)),
    (S.WAITING, C.FILL): (S.SPAWNING, (A.SPAWN,)),
    (S.WAITING, C.VACATE): (S.EMPTY, ()),
    (S.SPAWNING, C.UP): (S.STARTING, (A.OBSERVE,)),
    (S.SPAWNING, C.DELAY): (S.BACKOFF, (A.START_BACKOFF,)),
    (S.SPAWNING, C.PARK): (S.WAITING, ()),
    (S.SPAWNING, C.VACATE): (S.EMPTY, ()),
    (S.STARTING, C.READY): (S.READY, (A.SERVE,)),
    (S.STARTING, C.DRAIN): (S.DRAINING, (A.FORGET, A.START_DRAIN)),
    (S.STARTING, C.STOP): (S.STOPPING, (A.FORGET, A.TERMINATE)),
    (S.STARTING, C.DIED): (S.STOPPING, (A.FORGET, A.TERMINATE)),
    (S.STARTING, C.RELEASE): (S.EMPTY, (A.FORGET, A.RELEASE)),
    (S.READY, C.UNREADY): (S.STARTING, ()),
    (S.READY, C.DRAIN): (S.DRAINING, (A.FORGET, A.START_DRAIN)),
    (S.READY, C.STOP): (S.STOPPING, (A.FORGET, A.TERMINATE)),
    (S.READY, C.DIED): (S.STOPPING, (A.FORGET, A.TERMINATE)),
    (S.READY, C.RELEASE): (S.EMPTY, (A.FORGET, A.RELEASE)),
    (S.DRAINING, C.STOP): (S.STOPPING, (A.CANCEL_DRAIN, A.TERMINATE)),
    (S.DRAINING, C.DIED): (S.STOPPING, (A.CANCEL_DRAIN, A.TERMINATE)),
    (S.STOPPING, C.DIED): (S.STOPPING, ()),
    (S.STOPPING, C.KILL): (S.STOPPING, (A.KILL,)),
    (S.STOPPING, C.RELEASE): (S.EMPTY, (A.RELEASE,)),
    (S.STOPPING, C.FILL): (S.SPAWNING, (A.SPAWN,)),
    (S.STOPPING, C.DELAY): (S.BACKOFF, (A.START_BACKOFF,)),
    (S.STOPPING, C.PARK): (S.WAITING, ()),
    (S.STOPPING, C.VACATE): (S.EMPTY, ()),
    (S.BACKOFF, C.FILL): (S.SPAWNING, (A.CANCEL_BACKOFF, A.SPAWN)),
    (S.BACKOFF, C.PARK): (S.WAITING, (A.CANCEL_BACKOFF,)),
    (S.BACKOFF, C.VACATE): (S.EMPTY, (A.CANCEL_BACKOFF,)),
}

ALIVE = frozenset({SlotState.STARTING, SlotState.READY})  # its process runs and is to go on

# The states in which the timer of a kind means something.
TIMERS: dict[str, Set[SlotState]] = {
    "backoff": {SlotState.BACKOFF},
    "drain": {SlotState.DRAINING},
    "kill": {SlotState.STOPPING},
    "ready": {SlotState.STARTING},
    "start": {SlotState.STARTING},
    "lifetime": ALIVE,
}


class Slot(Struct):
    """One instance of a job: its state and the process it holds, if any. Times are monotonic seconds."""

    index: int
    state: SlotState = SlotState.EMPTY
    pid: int | None = None
    spawned_at: float = 0.0
    exited_at: float | None = None  # set once the leader ended
    crashed: bool = False  # the leader ended without being asked to, or had to be stopped
    failed: bool = False  # the process had to be stopped because it does not work
    succeeded: bool = False  # the leader exited with an exit code that means success
    replace: bool = False  # the process is being replaced
    outdated: bool = False  # the process is to be replaced when the job can do without it
    cause: str = ""  # a word for why it is being stopped, unless that was asked for
    result: bool | None = None  # whether its last process was successful; set while no other one is to follow
    config: "JobConfig | None" = None  # that its process was started with
    probed: bool = False  # it becomes ready by a probe
    ages: bool = False  # its lifetime is limited
    served: bool = False  # its process has been ready
    renewed: bool = False  # its process replaced one that had been ready
    probe_error: str = ""  # the last error of its probes
    refused: str = ""  # why its process can't be ended
    stuck: bool = False  # its process outlives SIGKILL
    failures: int = 0  # starts in a row that did not last
    retry_at: float = 0.0  # when its back-off ends
    crashes: int = 0  # unwanted exits in a row, each soon after the start
    graceful_timeout: float | None = None  # of a committed process, when it differs from the job's
    env: dict[str, str] = field(default_factory=dict)  # of a committed process, over the job's

    @property
    def visible_state(self) -> SlotState:
        """Its state as people see it."""
        return SlotState.STARTING if self.state is SlotState.SPAWNING else self.state

    def begin(self, config: "JobConfig", at: float) -> None:
        """A process with `config` was started in it at `at`."""
        self.spawned_at, self.exited_at = at, None
        self.crashed = self.failed = self.replace = self.outdated = self.stuck = False
        self.refused = self.cause = self.probe_error = ""
        self.config, self.result = config, None
        self.probed = self.index > 0 and config.ready is not None
        self.ages = self.index > 0 and config.max_lifetime > 0
        self.renewed, self.served = self.renewed or self.served, False

    def asked(self, question: Question) -> bool:
        """Whether a probe asks its process `question`."""
        if question is Question.READY:
            return self.probed
        return self.index > 0 and self.config is not None and self.config.live is not None

    def step(self, cue: Cue) -> tuple[Action, ...]:
        """Make the transition for `cue` and return its actions; KeyError if there is none."""
        self.state, actions = TRANSITIONS[self.state, cue]
        return actions
