"""The state machine of one job: it turns events and the time into instructions. No I/O.

A job has a phase (its desired state) and slots (one per instance, see gaffer.jobs.slot). Most events change the phase
or the desired number of processes, and `_reconcile` then gives every slot the cue that leads it there.
"""

import random
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.flapping import FlapDetector, Verdict
from gaffer.jobs.names import JobName
from gaffer.jobs.slot import Action, Cue, Slot, SlotState
from gaffer.jobs.states import PHASES, JobState, LastExit, Order, Phase, exit_reason, how_it_ended, visible_state

RESET_AFTER = 10.0  # seconds alive after which earlier failures are forgotten
CRASH_LOOP = 3  # unwanted exits in a row, each before RESET_AFTER
FAILED_START_DELAY = 0.1  # the least delay between attempts to start a program that can't be started, in seconds
STORY = 32  # events that a job remembers

RETRY: ev.TimerKey = ("retry", 0)


class Step(NamedTuple):
    """An event that a job handled, and the instructions that followed."""

    at: float  # monotonic seconds
    event: ev.Event
    instructions: list[ev.Instruction]

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.event} -> {', '.join(map(str, self.instructions)) or 'nothing'}"


class Job:
    """One job. `next_pid` hands out internal process ids, `rand` numbers in [0, 1) for the jitter of back-off.

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
        self.slots: dict[int, Slot] = {}
        self.committed: dict[int, Slot] = {}  # by pid
        self.restarts = 0
        self.last_exit: LastExit | None = None
        self.why = ""
        self.hurry = False
        self._closing = False  # the manager ends
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
    def gone(self) -> bool:
        """Whether the job was unloaded and its last process has ended."""
        return self.phase is Phase.LEAVING and not self._by_pid

    @property
    def state(self) -> JobState:
        """The visible state."""
        return visible_state(self.phase, {slot.state for slot in self.slots.values()}, empty=not self._by_pid)

    @property
    def reason(self) -> str | None:
        """Why the job is in its state, or None."""
        refused = next((slot.refused for slot in self._by_pid.values() if slot.refused), None)
        if refused is not None:
            return refused
        match self.state:
            case JobState.FAILED | JobState.BACKOFF:
                return self.why or None
            case JobState.WAITING if self.drained:
                return "the node is drained"
            case JobState.WAITING:
                return self.why if self.phase is Phase.HELD else "its previous processes have not ended yet"
            case _:
                return None

    def crash_loop(self, now: float) -> str | None:
        """Why the processes do not stay up at time `now` (monotonic seconds); None unless one ends again and again.

        That are CRASH_LOOP unwanted exits in a row, each before RESET_AFTER, and a successor that is not older yet.
        """
        up = (slot for slot in self.slots.values() if now - slot.spawned_at < RESET_AFTER)
        crashes = max((slot.crashes for slot in up), default=0)
        return f"crash loop, {crashes} exits in a row: {self.why}" if crashes >= CRASH_LOOP else None

    def slot_of(self, pid: int) -> Slot | None:
        """The slot that holds process `pid`; index 0 for a committed one."""
        return self._by_pid.get(pid)

    def expects(self, pid: int) -> bool:
        """Whether process `pid` is still to be spawned."""
        slot = self._by_pid.get(pid)
        return slot is not None and slot.state is SlotState.STARTING

    def pids(self, *, committed: bool = False) -> list[int]:
        """The processes that serve: alive, not draining and not stopping."""
        pids = [s.pid for s in self.slots.values() if s.state is SlotState.READY and s.pid is not None]
        if committed:
            pids += [pid for pid, s in self.committed.items() if s.state is SlotState.READY]
        return sorted(pids)

    # Events

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Handle `event` at time `now` (monotonic seconds) and return the instructions that follow, in order.

        Raises KeyError, with the story of the job as a note, for an event that can't happen in this state.
        """
        self._out, self._now = [], now
        self.story.append(Step(now, event, self._out))
        try:
            self._dispatch(event)
        except KeyError as error:
            error.add_note(f"the last events of {self.name}:\n{self.history()}")
            raise
        return self._out

    def history(self) -> str:
        """The story of the job, a line for each event."""
        return "\n".join(map(str, self.story))

    def _dispatch(self, event: ev.Event) -> None:
        match event:
            case ev.Exited():
                self._on_exited(event)
            case ev.GroupEmpty():
                self._on_group_empty(event)
            case ev.Spawned():
                self._on_spawned(event)
            case ev.TimerFired():
                self._on_timer(event)
            case ev.StartRequested():
                self._on_start()
            case ev.StopRequested():
                self._on_stop()
            case ev.RestartRequested():
                self._on_restart(event)
            case ev.ConfigChanged():
                self._on_config(event)
            case ev.Scaled():
                self._on_scale(event)
            case ev.Unloaded():
                self._on_unload()
            case ev.ManagerStopping():
                self._on_manager_stopping(event)
            case ev.NameFreed():
                self._on_name_freed(event)
            case ev.NodeDrained():
                self._on_drained(event)
            case ev.ProcessStopRequested():
                self._on_process_stop(event)
            case ev.Committed():
                self._on_commit(event)
            case ev.Adopted():
                self._on_adopted(event)
            case ev.SpawnFailed():
                self._on_spawn_failed(event)
            case ev.EndRefused():
                self._on_end_refused(event)

    def _on_start(self) -> None:
        if self.phase is Phase.LEAVING:
            return
        if self.phase is not Phase.STARTED:
            self.target = self.config.numprocesses
        self._order(Order.START)
        self._forget_failures()
        self._publish("start")
        self._reconcile()
        for slot in self.slots.values():
            if slot.state is SlotState.BACKOFF and self._open:
                self._cue(slot, Cue.FILL)

    def _on_stop(self) -> None:
        self._order(Order.STOP)
        self._forget_failures()
        self._publish("stop")
        self._reconcile()
        self._retire_committed()

    def _on_restart(self, event: ev.RestartRequested) -> None:
        if event.reset:
            self.target = self.config.numprocesses
        self._publish("restart")
        self._replace_all()

    def _on_config(self, event: ev.ConfigChanged) -> None:
        if event.config == self.config and not (event.start and not self.active):
            return
        replace = self.config.needs_restart(event.config)
        if event.config.numprocesses != self.config.numprocesses:
            self.target = event.config.numprocesses
        self.config = event.config
        self._publish("update")
        if event.start and not self.active:
            self._on_start()
        if replace:
            self._replace_all()
        else:
            self._reconcile()

    def _on_scale(self, event: ev.Scaled) -> None:
        self.target = event.count
        self._publish("update")
        self._reconcile()

    def _on_unload(self) -> None:
        self._order(Order.LEAVE)
        self._publish("stop")
        self._reconcile()
        self._retire_committed()
        self._publish("delete")

    def _on_manager_stopping(self, event: ev.ManagerStopping) -> None:
        self.hurry = event.hurry
        self._closing = True
        if self.phase is not Phase.LEAVING:
            self._order(Order.LEAVE)
            self._publish("stop")
        for slot in list(self._by_pid.values()):
            if (self.config.detach and slot.state is SlotState.READY) or slot.stuck:
                self._release(slot)
            elif self.hurry and slot.state is SlotState.STOPPING:
                self._cue(slot, Cue.KILL)
        self._reconcile()
        self._retire_committed()

    def _on_name_freed(self, event: ev.NameFreed) -> None:
        self.name_free = event.free
        self._reconcile()

    def _on_drained(self, event: ev.NodeDrained) -> None:
        self.drained = event.drained
        self._reconcile()
        if self.drained:
            self._retire_committed()

    def _on_process_stop(self, event: ev.ProcessStopRequested) -> None:
        slot = self._by_pid.get(event.pid)
        if slot is not None:
            slot.replace = True
            self._retire(slot, "stop_pid")

    def _on_commit(self, event: ev.Committed) -> None:
        slot = Slot(0, graceful_timeout=event.graceful_timeout or None, env=event.env)
        slot.pid = event.pid
        self.committed[event.pid] = slot
        self._cue(slot, Cue.FILL)

    def _on_adopted(self, event: ev.Adopted) -> None:
        # A slot holds one process: a second one that was left in it is stopped, as a committed process would be.
        index = event.record.slot if event.record.slot not in self.slots else 0
        slot = Slot(index, pid=event.pid, spawned_at=self._now - event.age)
        if index:
            self.slots[index] = slot
        else:
            self.committed[event.pid] = slot
        self._by_pid[event.pid] = slot
        self._out.append(ev.Adopt(event.pid, event.record))
        self._cue(slot, Cue.ADOPT)
        self._publish("adopt", event.pid, os_pid=event.record.os_pid)
        if index != event.record.slot:
            self._retire(slot, "stop_pid")

    def _on_spawned(self, event: ev.Spawned) -> None:
        slot = self._by_pid[event.pid]
        slot.spawned_at = self._now
        slot.exited_at, slot.crashed, slot.replace = None, False, False
        slot.refused, slot.stuck = "", False
        self._cue(slot, Cue.UP)
        self._publish("spawn", event.pid, os_pid=event.os_pid)

    def _on_spawn_failed(self, event: ev.SpawnFailed) -> None:
        slot = self._by_pid[event.pid]
        self.last_exit = LastExit(None, None, event.reason, 0.0)
        self.why = f"{event.reason}: {event.message}"
        self._publish("start_failed", event.pid, reason=event.reason, message=event.message)
        self._refill(slot, crashed_after=0.0, least=FAILED_START_DELAY)
        if slot.index:
            self._record_crash()

    def _on_exited(self, event: ev.Exited) -> None:
        slot = self._by_pid[event.pid]
        asked = slot.state is not SlotState.READY
        slot.exited_at, slot.crashed = self._now, not asked
        uptime = self._now - slot.spawned_at
        oom = event.out_of_memory
        reason = exit_reason(event.exit_code, event.term_signal, oom, asked=asked)
        if asked:
            slot.crashes = 0
        else:
            slot.crashes = slot.crashes + 1 if uptime < RESET_AFTER else 1
        self.last_exit = LastExit(event.exit_code, event.term_signal, reason, round(uptime, 3), event.output)
        self.why = how_it_ended(event.exit_code, event.term_signal, uptime, oom)
        self._publish(
            "exit",
            event.pid,
            exit_code=event.exit_code,
            exit_status=event.exit_code,
            term_signal=event.term_signal,
            reason=reason,
            uptime=round(uptime, 3),
            restarts=self.restarts,
            once=slot.index == 0,
            os_pid=event.os_pid,
        )
        self._cue(slot, Cue.DIED)
        if not asked and slot.index:
            self._record_crash()

    def _on_end_refused(self, event: ev.EndRefused) -> None:
        slot = self._by_pid.get(event.pid)
        if slot is None or slot.state is not SlotState.STOPPING:
            return
        slot.refused, slot.stuck = f"process {event.pid} can't be ended: {event.message}", event.final
        if slot.stuck and self._closing:
            self._release(slot)

    def _release(self, slot: Slot) -> None:
        self._cue(slot, Cue.RELEASE)
        self._leave(slot)

    def _on_group_empty(self, event: ev.GroupEmpty) -> None:
        slot = self._by_pid[event.pid]
        self._out.append(ev.CancelTimer(("kill", event.pid)))
        lived = (slot.exited_at if slot.exited_at is not None else self._now) - slot.spawned_at
        self._refill(slot, crashed_after=lived if slot.crashed and not slot.replace else None)

    def _on_timer(self, event: ev.TimerFired) -> None:
        kind, number = event.key
        if event.key == RETRY:
            self._order(Order.RETRY)
            self._reconcile()
            return
        slot = self.slots.get(number) if kind == "backoff" else self._by_pid.get(number)
        expected, cue = _TIMERS[kind]
        if slot is not None and slot.state is expected:
            self._cue(slot, cue)

    # Steps that events share

    def _order(self, order: Order) -> None:
        self.phase = PHASES.get((self.phase, order), self.phase)
        if self.phase is not Phase.HELD:
            self._out.append(ev.CancelTimer(RETRY))

    @property
    def _open(self) -> bool:
        return self.phase is Phase.STARTED and self.name_free and not self.drained

    @property
    def _paused(self) -> bool:
        """Whether slots are kept without processes for now."""
        return self.phase is Phase.HELD or self.drained

    @property
    def _wanted(self) -> int:
        return self.target if self.active else 0

    def _reconcile(self) -> None:
        for index in range(1, self._wanted + 1):
            slot = self.slots.setdefault(index, Slot(index))
            if slot.state in (SlotState.EMPTY, SlotState.WAITING) and self._open:
                self._cue(slot, Cue.FILL)
            elif slot.state is SlotState.EMPTY:
                self._cue(slot, Cue.PARK)
            elif self._paused:
                self._retire(slot, "stop_pid")
        surplus = sorted((index for index in self.slots if index > self._wanted), reverse=True)
        for index in surplus:
            self._retire(self.slots[index], "reap" if self.active else "stop_pid")

    def _replace_all(self) -> None:
        for slot in list(self.slots.values()):
            slot.replace = True
            if slot.state is SlotState.BACKOFF and self._open:
                self._cue(slot, Cue.FILL)
            elif self._stays(slot):
                self._retire(slot, "stop_pid")
        self._reconcile()

    def _retire_committed(self) -> None:
        for slot in list(self.committed.values()):
            self._retire(slot, "stop_pid")

    def _retire(self, slot: Slot, kind: str) -> None:
        """Stop the process in `slot`, if any, and announce that as `kind`."""
        match slot.state:
            case SlotState.READY:
                self._publish(kind, slot.pid)
                drain = self.config.drain_timeout and not self.hurry
                self._cue(slot, Cue.DRAIN if drain else Cue.STOP)
            case SlotState.DRAINING if self.hurry:
                self._cue(slot, Cue.STOP)
            case SlotState.STARTING | SlotState.WAITING | SlotState.BACKOFF if not self._stays(slot):
                self._cue(slot, Cue.VACATE)
                self._leave(slot)
            case SlotState.STARTING | SlotState.BACKOFF if self._paused:
                self._forget_pid(slot)
                self._cue(slot, Cue.PARK)

    def _stays(self, slot: Slot) -> bool:
        return 0 < slot.index <= self._wanted

    def _refill(self, slot: Slot, crashed_after: float | None, least: float = 0.0) -> None:
        """Decide what to do with the empty `slot`. `crashed_after`: uptime in seconds, None if it was stopped."""
        self._forget_pid(slot)
        if not self._stays(slot):
            self._cue(slot, Cue.VACATE)
            self._leave(slot)
            return
        if not self._open:
            self._cue(slot, Cue.PARK)
            return
        self.restarts += 1
        delay = max(least, 0.0 if crashed_after is None else self._backoff(slot, crashed_after))
        if delay:
            self._cue(slot, Cue.DELAY, delay)
        else:
            self._cue(slot, Cue.FILL)

    def _backoff(self, slot: Slot, lived: float) -> float:
        """Seconds before the next start after an uptime of `lived` seconds."""
        if lived >= RESET_AFTER:
            slot.failures = 0
        if lived >= self.config.startsecs or self.config.flapping is not None:
            return 0.0
        delay = min(self.config.backoff * 2.0 ** min(slot.failures, 40), self.config.backoff_max)
        slot.failures += 1
        return delay * (0.8 + 0.4 * self._rand())

    def _record_crash(self) -> None:
        """Count an unwanted exit and pause or give up the job when there are too many (TPL-25)."""
        policy = self.config.flapping
        if policy is None or self.phase is not Phase.STARTED:
            return
        verdict, found = self._flaps.record(policy, self._now)
        if verdict is Verdict.GO_ON:
            return
        self._publish("flap")
        self.why = f"{found}; {self.why}"
        if verdict is Verdict.GIVE_UP:
            self._order(Order.GIVE_UP)
        else:
            self._order(Order.HOLD)
            self._out.append(ev.SetTimer(RETRY, policy.retry_in))
        self._reconcile()

    def _forget_failures(self) -> None:
        self._flaps.reset()
        self.why = ""
        for slot in self.slots.values():
            slot.failures = slot.crashes = 0

    def _forget_pid(self, slot: Slot) -> None:
        if slot.pid is not None:
            self._by_pid.pop(slot.pid, None)
            self.committed.pop(slot.pid, None)
        slot.pid = None

    def _leave(self, slot: Slot) -> None:
        self._forget_pid(slot)
        if slot.index and not self._stays(slot):
            self.slots.pop(slot.index, None)

    def _cue(self, slot: Slot, cue: Cue, delay: float = 0.0) -> None:
        for action in slot.step(cue):
            self._out.extend(self._instructions(action, slot, delay))

    def _instructions(self, action: Action, slot: Slot, delay: float) -> list[ev.Instruction]:
        if action is Action.SPAWN:
            pid = slot.pid = self._next_pid() if slot.index else slot.pid
            assert pid is not None
            self._by_pid[pid] = slot
            return [ev.Spawn(pid, slot.index, slot.env)]
        if action is Action.START_BACKOFF:
            return [ev.SetTimer(("backoff", slot.index), delay)]
        if action is Action.CANCEL_BACKOFF:
            return [ev.CancelTimer(("backoff", slot.index))]
        pid = slot.pid
        assert pid is not None
        if action is Action.START_DRAIN:
            return [ev.SetTimer(("drain", pid), self.config.drain_timeout)]
        if action is Action.CANCEL_DRAIN:
            return [ev.CancelTimer(("drain", pid))]
        if action is Action.KILL or (action is Action.TERMINATE and self.hurry):
            return [ev.Signal(pid, signal.SIGKILL)]
        if action is Action.RELEASE:
            return [ev.Release(pid)]
        timeout = slot.graceful_timeout if slot.graceful_timeout is not None else self.config.graceful_timeout
        return [ev.Signal(pid, signal.SIGTERM), ev.SetTimer(("kill", pid), timeout)]

    def _publish(self, kind: str, pid: int | None = None, **data: Any) -> None:
        self._out.append(ev.Publish(kind, pid, data))


_TIMERS = {
    "backoff": (SlotState.BACKOFF, Cue.FILL),
    "drain": (SlotState.DRAINING, Cue.STOP),
    "kill": (SlotState.STOPPING, Cue.KILL),
}
