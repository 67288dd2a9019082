"""What a job is at a time: the base class of its state machine, with everything that can be asked of it. No I/O."""

import random
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from gaffer.jobs import events as ev
from gaffer.jobs import exits
from gaffer.jobs.config import JobConfig
from gaffer.jobs.definitions import Definitions
from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.flapping import FlapDetector
from gaffer.jobs.names import JobName
from gaffer.jobs.rollout import Rollout
from gaffer.jobs.rules import ON_CONNECTION
from gaffer.jobs.slot import ALIVE, Slot, SlotState
from gaffer.jobs.states import Disabled, JobState, Phase, visible_state

FAILED_START_DELAY = 0.1  # the least delay between attempts to start a program that can't be started, in seconds
RESET_AFTER = 10.0  # seconds alive after which earlier failures are forgotten
CRASH_LOOP = 3  # unwanted exits in a row, each before RESET_AFTER
STORY = 32  # events that a job remembers


class Step(NamedTuple):
    """An event that a job handled, and the instructions that followed."""

    at: float  # monotonic seconds
    event: ev.Event
    instructions: list[ev.Instruction]

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.event} -> {', '.join(map(str, self.instructions)) or 'nothing'}"


class JobQueries:
    """The state of one job, and questions about it.

    `next_pid` hands out internal process ids, `rand` numbers in [0, 1) for the jitter of back-off and lifetimes.
    `drained`: the node is out of service, see NodeDrained.
    """

    def __init__(
        self,
        name: JobName,
        config: JobConfig,
        next_pid: Callable[[], int],
        rand: Callable[[], float] = random.random,
        *,
        drained: bool = False,
    ) -> None:
        self.name = name
        self.config = config
        self.target = config.numprocesses
        self.phase = Phase.STOPPED
        self.name_free = True  # false while a predecessor of the same name has processes
        self.drained = drained
        self.disabled: Disabled | None = None
        self.waiting_for: str | None = None  # why it has to wait for the jobs it comes after
        self.definitions = Definitions(config)
        self.rollout: Rollout | None = None  # the current or the last one
        self.renewals = 0  # starts, and processes that became ready in the place of others
        self.last_run: float | None = None  # of a schedule, in seconds since 1970
        self.armed_at: float | None = None  # the time from which runs are counted until the first one
        self.next_run: float | None = None
        self.slots: dict[int, Slot] = {}
        self.committed: dict[int, Slot] = {}  # by pid
        self.restarts = 0
        self.exits: deque[ExitRecord] = deque(maxlen=exits.KEPT)  # newest first
        self.why = ""
        self.hurry = False
        self._closing = False  # the manager ends
        self._goes_on = False  # an adopted process goes on with what called for it
        self._demand = True  # false between runs of a schedule, and until a connection
        self._queued_run: float | None = None
        self._sockets_open = False
        self._flaps = FlapDetector()
        self._next_pid = next_pid
        self._rand = rand
        self._by_pid: dict[int, Slot] = {}
        self.story: deque[Step] = deque(maxlen=STORY)
        self._out: list[ev.Instruction] = []
        self._now = 0.0

    def __repr__(self) -> str:
        return f"<Job {self.name}: {self.state}, {len(self.pids())} of {self.target} processes>"

    # Queries

    @property
    def active(self) -> bool:
        """Desired to run and not given up."""
        return self.phase in (Phase.STARTED, Phase.HELD)

    @property
    def uses_sockets(self) -> bool:
        """Whether it has listening sockets, or opens them once it can start."""
        return self.active and not self.disabled and bool(self.config.socket)

    @property
    def gone(self) -> bool:
        """Whether the job was unloaded and its last process has ended."""
        return self.phase is Phase.LEAVING and not self._by_pid

    @property
    def empty(self) -> bool:
        """Whether it has no process, nor one that is to be spawned."""
        return not self._by_pid

    @property
    def state(self) -> JobState:
        """The visible state."""
        if self.disabled and self.active:
            return JobState.STOPPING if self._by_pid else JobState.STOPPED
        slots = self.slots or self.committed
        return visible_state(self.phase, {slot.state for slot in slots.values()}, empty=not self._by_pid)

    @property
    def last_exit(self) -> ExitRecord | None:
        """The newest exit."""
        return self.exits[0] if self.exits else None

    @property
    def gated(self) -> bool:
        """Whether it is to start, but waits for the jobs it comes after."""
        return self.active and self.waiting_for is not None

    @property
    def all_ready(self) -> bool:
        """Whether every process that it should have is ready."""
        return self.active and self.target > 0 and all(s.state is SlotState.READY for s in self._wanted_slots())

    @property
    def all_started(self) -> bool:
        """Whether every process that it should have runs."""
        return self.active and self.target > 0 and all(s.state in ALIVE for s in self._wanted_slots())

    @property
    def expected(self) -> int:
        """How many processes it should have now: none while it is stopped, or between its runs."""
        if self.phase is not Phase.FAILED and not (
            self.active and self._demand and not self.drained and not self.disabled
        ):
            return 0
        return self.target - sum(slot.result is True for slot in self.slots.values() if slot.index <= self.target)

    def retry_at(self, slot: Slot) -> float | None:
        """When the next process of a slot starts after failures, in monotonic seconds; None if it does not wait so."""
        if slot.state is SlotState.BACKOFF:
            return slot.retry_at
        return self._flaps.paused_until if self.phase is Phase.HELD and slot.state is SlotState.WAITING else None

    @property
    def awaits_connection(self) -> bool:
        """Whether its sockets accept connections, and the first one starts its processes."""
        return self._awaits_connection and not self.drained

    def history(self) -> str:
        """The story of the job, a line for each event."""
        return "\n".join(map(str, self.story))

    @property
    def reason(self) -> str | None:
        """Why the job is in its state, or None."""
        refused = next((slot.refused for slot in self._by_pid.values() if slot.refused), None)
        if refused is not None:
            return refused
        if self.disabled:
            return str(self.disabled)
        match self.state:
            case JobState.FAILED | JobState.BACKOFF | JobState.COMPLETED:
                return self.why or None
            case JobState.WAITING:
                return self._why_waiting()
            case JobState.STARTING | JobState.RUNNING:
                errors = (f"process {s.pid} is not ready: {s.probe_error}" for s in self._starting() if s.probe_error)
                return next(errors, None)
            case _:
                return None

    def _why_waiting(self) -> str:
        if self.target == 0:
            return "scaled to 0 processes"
        if self._paused_because is not None:
            return self._paused_because
        if not self.name_free:
            return "its previous processes have not ended yet"
        if self.waiting_for is not None:
            return self.waiting_for
        if self.config.start == ON_CONNECTION:
            return "waiting for a connection"
        if self.next_run is None:
            return "no run is due"
        return f"the next run is at {datetime.fromtimestamp(self.next_run, UTC):%Y-%m-%d %H:%M:%S} UTC"

    def _starting(self) -> Iterable[Slot]:
        return (slot for slot in self.slots.values() if slot.state is SlotState.STARTING)

    def crash_loop(self, now: float) -> str | None:
        """Why the processes do not stay up at time `now` (monotonic seconds); None unless one ends again and again.

        That is CRASH_LOOP unwanted exits in a row, each before RESET_AFTER, and no successor that is older than that.
        """
        unproven = (s for s in self.slots.values() if s.state not in ALIVE or now - s.spawned_at < RESET_AFTER)
        crashes = max((slot.crashes for slot in unproven), default=0)
        return f"crash loop, {crashes} times in a row: {self.why}" if crashes >= CRASH_LOOP else None

    def slot_of(self, pid: int) -> Slot | None:
        """The slot that holds process `pid`; index 0 for a committed one."""
        return self._by_pid.get(pid)

    def expects(self, pid: int) -> bool:
        """Whether process `pid` is still to be spawned."""
        slot = self._by_pid.get(pid)
        return slot is not None and slot.state is SlotState.SPAWNING

    def pids(self, *, committed: bool = False) -> list[int]:
        """The processes that serve: alive, not draining and not stopping."""
        pids = [s.pid for s in self.slots.values() if s.state in ALIVE and s.pid is not None]
        if committed:
            pids += [pid for pid, s in self.committed.items() if s.state in ALIVE]
        return sorted(pids)

    # What decides about slots

    @property
    def _open(self) -> bool:
        free = self.name_free and not (self.drained or self.disabled) and self.waiting_for is None
        return self.phase is Phase.STARTED and free and self._demand

    @property
    def _paused_because(self) -> str | None:
        """Why slots are kept without processes although there is demand; None if they are not."""
        if self.disabled:
            return str(self.disabled)
        if self.drained:
            return "the node is drained"
        return self.why if self.phase is Phase.HELD else None

    @property
    def _paused(self) -> bool:
        """Whether slots are kept without processes for now."""
        return self._paused_because is not None or not self._demand

    @property
    def _awaits_connection(self) -> bool:
        """Whether only a connection would call for its processes."""
        return self.active and not (self.disabled or self._demand) and self.config.start == ON_CONNECTION

    def _is_last_on_connection(self, slot: Slot) -> bool:
        if self.config.start != ON_CONNECTION:
            return False
        return not any(other is not slot and other.state in ALIVE for other in self.slots.values())

    @property
    def _wanted(self) -> int:
        if not self.active:
            return 0
        surging = self.rollout is not None and self.rollout.running and self.rollout.total and not self._paused
        return self.target + (self.config.surge if surging else 0)

    def _wanted_slots(self) -> list[Slot]:
        """The slots of the processes it should have, without those of a surge."""
        return [self.slots.setdefault(index, Slot(index)) for index in range(1, self.target + 1)]

    def _stays(self, slot: Slot) -> bool:
        return 0 < slot.index <= self._wanted

    def _is_final(self, slot: Slot) -> bool:
        """Whether no process follows the one that ended in `slot` by itself."""
        match self.config.restart_policy:
            case "never":
                return True
            case "on-failure":
                return slot.succeeded
            case _:
                return False
