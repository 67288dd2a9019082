"""The state machine of one job: it turns events and the time into instructions. No I/O.

A job has a phase (its desired state) and slots (one per instance, see gaffer.jobs.slot). Most events change the phase
or the desired number of processes, and `_reconcile` then gives every slot the cue that leads it there. Slots are filled
only while the job is open: its name is free, the jobs it comes after are as it wants them, and its processes are in
demand, which a schedule or a connection decides for some jobs. A rollout (gaffer.jobs.rollout) replaces processes a few
at a time.
"""

from typing import Any

from gaffer.jobs import adoption
from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.failures import Failures, JobFailures
from gaffer.jobs.flapping import Verdict
from gaffer.jobs.observation import limit_lifetime, on_process
from gaffer.jobs.probing import Question
from gaffer.jobs.queries import FAILED_START_DELAY, RESET_AFTER, Step
from gaffer.jobs.rollout import Rollout, RolloutKind, RolloutState, enlist, replaceable
from gaffer.jobs.rules import ON_CONNECTION
from gaffer.jobs.slot import ALIVE, TIMERS, Action, Cue, Slot, SlotState
from gaffer.jobs.states import PHASES, Disabled, Order, Phase, exit_reason, how_it_ended


class Job(JobFailures):
    """One job; see JobQueries for the arguments of its constructor and for what can be asked of it."""

    # Events

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Handle `event` at time `now` (monotonic seconds) and return the instructions that follow, in order.

        Raises KeyError, with the story of the job as a note, for an event that can't happen in this state.
        """
        self._out, self._now = [], now
        self.story.append(Step(now, event, self._out))
        try:
            self._dispatch(event)
            self._advance_rollout()
            self._close_sockets()
        except KeyError as error:
            error.add_note(f"the last events of {self.name}:\n{self.history()}")
            raise
        return self._out

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
            case ev.ProbeResult():
                self._on_probe(event)
            case ev.StartRequested():
                self._on_start(event.count, event.failures)
            case ev.StopRequested():
                self._on_stop()
            case ev.RestartRequested():
                self._on_restart(event)
            case ev.ReloadRequested():
                self._on_reload()
            case ev.ConfigChanged():
                self._on_config(event)
            case ev.RollbackRequested():
                self._on_rollback(event)
            case ev.Scaled():
                self._on_scale(event)
            case ev.DisableRequested():
                self._on_disable(event)
            case ev.EnableRequested():
                self._on_enable()
            case ev.Unloaded():
                self._on_unload()
            case ev.ManagerStopping():
                self._on_manager_stopping(event)
            case ev.NameFreed():
                self._on_name_freed(event)
            case ev.DependencyChanged():
                self._on_dependency(event)
            case ev.NodeDrained():
                self._on_drained(event)
            case ev.ProcessStopRequested():
                self._on_process_stop(event)
            case ev.LimitExceeded():
                self._on_limit(event)
            case ev.ScheduleDue():
                self._on_due(event)
            case ev.ScheduleArmed():
                self.next_run = event.next_run
            case ev.ConnectionWaiting():
                self._on_connection()
            case ev.ConnectionsIdle():
                self._on_idle()
            case ev.SocketsFailed() if self.active:
                self.why = event.message
                self._end(Order.GIVE_UP)
            case ev.Committed():
                self._on_commit(event)
            case ev.Adopted():
                self._on_adopted(event)
            case ev.SpawnFailed():
                self._on_spawn_failed(event)
            case ev.EndRefused():
                self._on_end_refused(event)

    # Orders

    def _on_start(self, count: int | None = None, failures: Failures | None = None) -> None:
        if self.phase is Phase.LEAVING:
            return
        if self.phase is not Phase.STARTED:
            self.target = self.config.numprocesses if count is None else count
        begins = not self.active
        self._order(Order.START)
        self._forget_failures()
        self._publish("start", **adoption.mark(self._goes_on or failures is not None))
        if begins:
            self.renewals += 1
            self._gate()
            self._begin_demand()
        if failures is not None:
            self._resume(failures)
        self._reconcile()
        for slot in self.slots.values() if failures is None else ():
            if slot.state is SlotState.BACKOFF and self._open:
                self._cue(slot, Cue.FILL)

    def _resume(self, failures: Failures) -> None:
        for slot, delay in self._remember_failures(failures):
            self._cue(slot, Cue.DELAY, delay)
        if failures.held and failures.paused_until > self._now:
            self._hold(failures.paused_until - self._now)

    def _gate(self) -> None:
        """Wait for the jobs it comes after, until DependencyChanged."""
        self.waiting_for = f"waiting for {', '.join(self.config.after)}" if self.config.after else None

    def _begin_demand(self) -> None:
        """Decide what calls for processes: the order to start alone, a schedule, or a connection."""
        self._queued_run = None
        for slot in self.slots.values():
            slot.result = None
        on_connection = self.config.start == ON_CONNECTION
        self._demand = self._goes_on or not (on_connection or self.config.scheduled)
        self._goes_on = False
        if self.config.scheduled:
            self._out.append(ev.ArmSchedule())
        if on_connection and self._demand and self.config.idle_timeout:
            self._out.append(ev.AwaitIdle())
        if self._awaits_connection:
            self._sockets_open = True
            self._out.append(ev.AwaitConnection())

    def _end_demand(self) -> None:
        self.waiting_for = self.rollout = self._queued_run = self.next_run = None
        self._goes_on = False
        if self.config.scheduled:
            self._out.append(ev.DisarmSchedule())

    def _on_stop(self) -> None:
        self._order(Order.STOP)
        self._end_demand()
        self._forget_failures()
        self._publish("stop")
        self._reconcile()
        self._retire_committed()

    def _on_restart(self, event: ev.RestartRequested) -> None:
        if self.phase in (Phase.COMPLETED, Phase.FAILED):
            self._on_start()
            return
        if self.phase is Phase.HELD:
            self._order(Order.START)
            self._forget_failures()
        if event.reset:
            self.target = self.config.numprocesses
        self._publish("restart")
        if event.rolling:
            self._begin_rollout(RolloutKind.RESTART)
        else:
            self._replace_all()

    def _on_reload(self) -> None:
        if self.config.reload_signum is None:
            self._on_restart(ev.RestartRequested(reset=True))
            return
        self._publish("reload")
        for slot in self.slots.values():
            if slot.state in ALIVE and slot.pid is not None:
                self._out.append(ev.Signal(slot.pid, self.config.reload_signum, leader_only=True))
                if slot.probed:
                    self._out.append(ev.StartProbes(slot.pid, again=True))

    def _on_config(self, event: ev.ConfigChanged) -> None:
        if event.config == self.config and not (event.start and not self.active):
            return
        if event.config != self.config:
            self.definitions.add(event.config)
        gradual = event.rolling or event.config.auto_rollback or event.config.surge > 0
        self._define(event.config, RolloutKind.UPDATE if gradual else None, start=event.start)

    def _on_rollback(self, event: ev.RollbackRequested) -> None:
        config = self.definitions.find(event.generation)
        if config is not None:
            self.definitions.add(config)
            self._define(config, RolloutKind.ROLLBACK)

    def _define(self, config: JobConfig, rollout: RolloutKind | None, *, start: bool = False) -> None:
        """Make `config` the definition; replace processes as far as needed, at once or by a rollout."""
        before = self.config
        if config.numprocesses != before.numprocesses:
            self.target = config.numprocesses
        self.config = config
        self._publish("update")
        if start and not self.active:
            self._on_start()
        elif self.active and before.demand != config.demand:
            if before.scheduled and config.scheduled:
                self._out.append(ev.ArmSchedule())
            else:
                if before.scheduled:
                    self.next_run = None
                    self._out.append(ev.DisarmSchedule())
                self._begin_demand()
        elif self._awaits_connection and before.needs_restart(config):
            self._out.append(ev.AwaitConnection())  # to the sockets of this definition
        self._apply_limits(before)
        if not before.needs_restart(config):
            self._reconcile()
        elif rollout is not None:
            self._begin_rollout(rollout)
        else:
            self._replace_all()

    def _apply_limits(self, before: JobConfig) -> None:
        """Apply changed limits of time to processes that run."""
        if self.config.idle_timeout != before.idle_timeout and self.config.start == ON_CONNECTION and self._demand:
            self._out.append(ev.AwaitIdle())
        if self.config.max_lifetime == before.max_lifetime:
            return
        alive = [slot for slot in self._by_pid.values() if slot.index and slot.state in ALIVE]
        self._out += [limit_lifetime(slot, self.config, self._rand, self._now) for slot in alive]

    def _on_scale(self, event: ev.Scaled) -> None:
        self.target = event.count
        self._publish("update")
        self._reconcile()

    def _on_disable(self, event: ev.DisableRequested) -> None:
        if self.phase is Phase.LEAVING:
            return
        self.disabled = Disabled(event.reason, event.at, event.until)
        self.rollout = None
        timer = ev.CancelTimer(ev.DISABLED) if event.seconds is None else ev.SetTimer(ev.DISABLED, event.seconds)
        self._out.append(timer)
        self._publish("disabled", reason=event.reason, until=event.until)
        self._reconcile()
        self._retire_committed()

    def _on_enable(self) -> None:
        if self.disabled is None or self.phase is Phase.LEAVING:
            return
        self.disabled = None
        self._out.append(ev.CancelTimer(ev.DISABLED))
        self._publish("enabled")
        if self.active:
            self._order(Order.RETRY)
            self._forget_failures()
            self._gate()
            if self.config.start == ON_CONNECTION:
                self._begin_demand()
        self._reconcile()

    def _on_unload(self) -> None:
        self._begin_leaving()
        self._reconcile()
        self._retire_committed()
        self._publish("delete")

    def _begin_leaving(self) -> None:
        self._order(Order.LEAVE)
        self._end_demand()
        if self.disabled:
            self._out.append(ev.CancelTimer(ev.DISABLED))
        self._publish("stop")

    def _on_manager_stopping(self, event: ev.ManagerStopping) -> None:
        self.hurry = event.hurry
        self._closing = True
        if self.phase is not Phase.LEAVING:
            self._begin_leaving()
        for slot in list(self._by_pid.values()):
            if (self.config.detach and slot.state in ALIVE) or slot.stuck:
                self._release(slot)
            elif self.hurry and slot.state is SlotState.STOPPING:
                self._cue(slot, Cue.KILL)
        self._reconcile()
        self._retire_committed()

    def _on_name_freed(self, event: ev.NameFreed) -> None:
        self.name_free = event.free
        self._reconcile()

    def _on_dependency(self, event: ev.DependencyChanged) -> None:
        self.waiting_for = event.waiting_for
        self._reconcile()

    def _on_drained(self, event: ev.NodeDrained) -> None:
        returns, self.drained = self.drained and not event.drained, event.drained
        if returns and self.active:
            self._gate()
        self._reconcile()
        if self.drained:
            self.rollout = None
            self._retire_committed()

    # Demand

    def _on_due(self, event: ev.ScheduleDue) -> None:
        if not self.active or not self.config.scheduled:
            return
        if self._paused_because is not None:
            self._publish("run_skipped", reason=self._paused_because)
        elif self._demand and self.config.overlap == "skip":
            self._publish("run_skipped", reason="the last run has not ended")
        elif self._demand and self.config.overlap == "queue":
            self._queued_run = event.at
        else:
            self._begin_run(event.at)

    def _begin_run(self, at: float) -> None:
        self.last_run, self._queued_run = at, None
        for slot in self.slots.values():
            slot.result = None
        self._publish("run_started")
        if self._demand:
            self._replace_all()
        else:
            self._demand = True
            self._forget_failures()
            self._reconcile()

    def _end_run(self, success: bool) -> None:
        self._publish("run_ended", success=success)
        self._demand = False
        if self._queued_run is not None:
            self._begin_run(self._queued_run)
            return
        for slot in self.slots.values():
            slot.result = None
        self._reconcile()

    def _on_connection(self) -> None:
        if self._awaits_connection:
            self._demand = True
            if self.config.idle_timeout:
                self._out.append(ev.AwaitIdle())
            self._reconcile()

    def _on_idle(self) -> None:
        if self.active and not self.disabled and self._demand and self.config.start == ON_CONNECTION:
            self._await_connection("idle")

    def _await_connection(self, cause: str, pause: float = 0.0) -> None:
        """Wait for the next connection, `pause` seconds from now."""
        self._demand = False
        self._publish("went_idle")
        for slot in self.slots.values():
            slot.cause = cause
        self._reconcile()
        if self._awaits_connection:
            self._out.append(ev.SetTimer(ev.CONNECTION, pause) if pause else ev.AwaitConnection())

    def _close_sockets(self) -> None:
        if self._sockets_open and (self.disabled or not self.active) and not self._by_pid:
            self._sockets_open = False
            self._out.append(ev.CloseSockets())

    # Processes

    def _on_process_stop(self, event: ev.ProcessStopRequested) -> None:
        slot = self._by_pid.get(event.pid)
        if slot is not None:
            slot.replace = True
            self._retire(slot, "stop_pid")

    def _on_limit(self, event: ev.LimitExceeded) -> None:
        slot = self._by_pid.get(event.pid)
        if slot is None or slot.state not in ALIVE or slot.outdated:
            return
        self._publish("limit_exceeded", event.pid, reason=event.reason, message=event.message)
        self._recycle(slot, event.reason, event.message)

    def _recycle(self, slot: Slot, cause: str, why: str) -> None:
        """Replace a process when the others allow it; one that should run to completion has failed."""
        if slot.index and self.config.runs_once:
            self._fail(slot, cause, why)
            return
        slot.cause = cause
        if not slot.index:
            self._retire(slot, "stop_pid")
            return
        self.rollout = enlist(self.rollout, slot, RolloutKind.RECYCLE, self.definitions.generation)
        self._reconcile()

    def _on_commit(self, event: ev.Committed) -> None:
        slot = Slot(0, pid=event.pid, graceful_timeout=event.graceful_timeout or None, env=event.env)
        self.committed[event.pid] = slot
        self._cue(slot, Cue.FILL)

    def _on_adopted(self, event: ev.Adopted) -> None:
        # A slot holds one process: a second one that was left in it is stopped, as a committed process would be.
        index = 0 if event.replaced or event.record.slot in self.slots else event.record.slot
        slot = adoption.make_slot(event, index, self.definitions, self._now)
        if index:
            self.slots[index] = slot
        else:
            self.committed[event.pid] = slot
        self._by_pid[event.pid] = slot
        self._sockets_open = self._sockets_open or bool(event.record.slot and self.config.socket)
        self._out.append(ev.Adopt(event.pid, event.record))
        self._cue(slot, Cue.ADOPT)
        self._publish("adopt", event.pid, os_pid=event.record.os_pid)
        if adoption.is_ready(event, slot, self.config):
            self._become_ready(slot, adopted=slot.served)
        cause = adoption.why_not(event, slot, self.definitions)
        if cause is not None:
            slot.cause, slot.replace = cause, True
            self._retire(slot, "stop_pid")
        elif index:
            self._goes_on = True
            if event.record.outdated is not None:
                self.rollout = enlist(self.rollout, slot, event.record.outdated, self.definitions.generation)

    def _on_spawned(self, event: ev.Spawned) -> None:
        slot = self._by_pid[event.pid]
        slot.begin(self.config, self._now)
        self._cue(slot, Cue.UP)
        self._publish("spawn", event.pid, os_pid=event.os_pid)
        if not slot.index or not (slot.probed or self.config.startsecs):
            self._become_ready(slot)

    def _become_ready(self, slot: Slot, *, adopted: bool = False) -> None:
        self._cue(slot, Cue.READY)
        if slot.index:
            self._publish("ready", slot.pid, **adoption.mark(adopted))
        if slot.renewed and not slot.served:
            self.renewals += 1
        slot.served = True

    def _on_probe(self, event: ev.ProbeResult) -> None:
        slot = self._by_pid.get(event.pid)
        if slot is None or slot.state not in ALIVE or not slot.asked(event.question):
            return
        slot.probe_error = event.error
        if event.question is Question.LIVE:
            if not event.good:
                self._publish("not_live", event.pid, error=event.error)
                self._fail(slot, "not live", f"process {event.pid} did not pass its live probe: {event.error}")
        elif event.good and slot.state is SlotState.STARTING:
            self._become_ready(slot)
        elif not event.good and slot.state is SlotState.READY:
            self._cue(slot, Cue.UNREADY)
            self._publish("not_ready", event.pid, error=event.error)

    def _fail(self, slot: Slot, cause: str, why: str) -> None:
        """Stop a process that does not work; its end counts as a crash."""
        slot.failed, slot.cause, self.why = True, cause, why
        self._publish("stop_pid", slot.pid, reason=cause, message=why)
        self._cue(slot, Cue.STOP)
        if not slot.served:
            self._fail_rollout(why)

    def _on_spawn_failed(self, event: ev.SpawnFailed) -> None:
        slot = self._by_pid[event.pid]
        self.exits.appendleft(ExitRecord(event.pid, slot.index, None, None, event.reason, 0.0, event.at, event.message))
        self.why = event.message if event.message.startswith(event.reason) else f"{event.reason}: {event.message}"
        self._publish("start_failed", event.pid, reason=event.reason, message=event.message)
        slot.crashed, slot.succeeded, slot.replace = True, False, False
        slot.crashes += 1
        self._refill(slot, crashed_after=0.0, least=FAILED_START_DELAY)
        if slot.index:
            self._record_crash()
            self._fail_rollout(self.why)

    def _on_exited(self, event: ev.Exited) -> None:
        slot = self._by_pid[event.pid]
        asked = slot.state not in ALIVE and not slot.failed
        slot.exited_at, slot.crashed = max(self._now - event.ago, slot.spawned_at), not asked
        slot.succeeded = not slot.failed and event.exit_code in self.config.exit_codes
        uptime = round(slot.exited_at - slot.spawned_at, 3)
        oom = event.out_of_memory
        stopped = slot.state not in ALIVE
        cause = (slot.cause or "stopped") if stopped else ""
        reason = exit_reason(event.exit_code, event.term_signal, oom, cause=cause)
        finished = slot.succeeded and (self._is_final(slot) or self.config.start == ON_CONNECTION)
        unwanted = not (asked or finished)
        if unwanted:
            slot.crashes = slot.crashes + 1 if uptime < RESET_AFTER else 1
        else:
            slot.crashes = 0
        record = ExitRecord.of(event, slot.index, reason, uptime, self.restarts)
        self.exits.appendleft(record)
        if not slot.failed:
            self.why = how_it_ended(event.exit_code, event.term_signal, uptime, oom)
        self._publish("exit", event.pid, **record.to_event(event, stopped=stopped))
        self._cue(slot, Cue.DIED)
        if self.config.after_exit is not None:
            self._out.append(ev.AfterExit(event.pid, slot.index, event.exit_code, event.term_signal, reason))
        if unwanted and slot.index:
            self._record_crash()
            if not (slot.served or slot.failed):
                self._fail_rollout(self.why)

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
        unwanted = slot.crashed and not slot.replace
        if unwanted and slot.succeeded and self._demand and self._is_last_on_connection(slot):
            self._forget_pid(slot)
            self._cue(slot, Cue.VACATE)
            # A program that leaves its connection waiting would be started again at once, and so on.
            self._await_connection("idle", self.config.backoff if lived < self.config.startsecs else 0.0)
        else:
            self._refill(slot, crashed_after=lived if unwanted else None)

    def _on_timer(self, event: ev.TimerFired) -> None:
        kind, number = event.key
        if event.key == ev.RETRY:
            self._order(Order.RETRY)
            self._reconcile()
            return
        if event.key == ev.DISABLED:
            self._on_enable()
            return
        if event.key == ev.CONNECTION:
            self._out += [ev.AwaitConnection()] if self._awaits_connection else []
            return
        slot = self.slots.get(number) if kind == "backoff" else self._by_pid.get(number)
        if slot is None or slot.state not in TIMERS[kind]:
            return
        match kind:
            case "backoff":
                self._cue(slot, Cue.FILL if self._open else Cue.PARK)
            case "drain":
                self._cue(slot, Cue.STOP)
            case "kill":
                self._cue(slot, Cue.KILL)
            case "ready":
                self._become_ready(slot)
            case "start":
                why = f"within {self.config.start_timeout:g} s: {slot.probe_error or 'no answer'}"
                self._publish("not_ready", slot.pid, error=f"not {why}")
                self._fail(slot, "not ready", f"process {slot.pid} did not become ready {why}")
            case "lifetime" if not slot.outdated:
                self._recycle(slot, "max_lifetime", f"process {slot.pid} has reached its max_lifetime")

    # Steps that events share

    def _order(self, order: Order) -> None:
        self.phase = PHASES.get((self.phase, order), self.phase)
        if self.phase is not Phase.HELD:
            self._out.append(ev.CancelTimer(ev.RETRY))

    def _reconcile(self) -> None:
        for index in range(1, self._wanted + 1):
            slot = self.slots.setdefault(index, Slot(index))
            if slot.result is not None:
                continue
            if slot.state in (SlotState.EMPTY, SlotState.WAITING) and self._open:
                self._cue(slot, Cue.FILL)
            elif slot.state is SlotState.EMPTY:
                self._cue(slot, Cue.PARK)
            elif self._paused:
                self._retire(slot, "stop_pid")
        surplus = sorted((index for index in self.slots if index > self._wanted), reverse=True)
        for index in surplus:
            self._retire(self.slots[index], "reap" if self.active else "stop_pid")
        self._check_finished()

    def _begin_rollout(self, kind: RolloutKind) -> None:
        """Replace processes a few at a time: all, or those whose definition has changed."""
        if not self.active or self.drained or self.disabled or not self._demand:
            self.rollout = None
            self._reconcile()
            return
        held = [slot for slot in self.slots.values() if slot.state in (*ALIVE, SlotState.BACKOFF)]
        for slot in held:
            same = slot.config is not None and not slot.config.needs_restart(self.config)
            slot.outdated = kind is RolloutKind.RESTART or not same
        origin = self.definitions.generation - 1
        if self.rollout is not None and self.rollout.running and self.rollout.kind is RolloutKind.UPDATE:
            origin = self.rollout.origin  # its definition has not become ready either
        self.rollout = Rollout(kind, sum(slot.outdated for slot in held), origin)
        self._publish("rollout", rollout=kind.value, processes=self.rollout.total)
        self._reconcile()

    def _advance_rollout(self) -> None:
        """Replace what can be replaced now."""
        rollout = self.rollout
        if rollout is None or not rollout.running or self.phase is not Phase.STARTED:
            return
        if not self._demand:  # all its processes end, and the next ones are new
            self._finish_rollout(rollout)
            return
        wanted = [slot for index, slot in sorted(self.slots.items()) if index <= self._wanted]
        for slot in replaceable(wanted, self.target, self.config.max_unavailable, self.config.surge):
            slot.outdated, slot.replace = False, True
            rollout.replaced += 1
            slot.cause = slot.cause or rollout.kind.value
            if slot.state is SlotState.BACKOFF and self._open:
                slot.failures = slot.crashes = 0  # those of another definition
                self._cue(slot, Cue.FILL)
            else:
                self._retire(slot, "stop_pid")
        done = all(slot.state is SlotState.READY or slot.result is not None for slot in self._wanted_slots())
        if done and not any(slot.outdated for slot in wanted):
            self._finish_rollout(rollout)

    def _finish_rollout(self, rollout: Rollout) -> None:
        rollout.state = RolloutState.DONE
        self._publish("rollout_done", rollout=rollout.kind.value, replaced=rollout.replaced)
        self._reconcile()

    def _fail_rollout(self, why: str) -> None:
        """Stop a rollout whose new process does not become ready; undo it if it is an update that may be undone.

        A recycling goes on instead once another process is ready: the old ones have to go.
        """
        rollout = self.rollout
        if rollout is None or not rollout.running or rollout.kind is RolloutKind.RECYCLE:
            return
        rollout.state, rollout.reason = RolloutState.FAILED, why
        for slot in self.slots.values():
            slot.outdated = False
        self._publish("rollout_failed", rollout=rollout.kind.value, reason=why)
        if rollout.kind is RolloutKind.UPDATE and self.config.auto_rollback:
            self._on_rollback(ev.RollbackRequested(rollout.origin))
            if self.rollout is not None:
                self.rollout.reason = why
        else:
            self._reconcile()

    def _replace_all(self) -> None:
        self.rollout = None
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
            case SlotState.STARTING | SlotState.READY:
                self._publish(kind, slot.pid)
                drain = self.config.drain_timeout and not self.hurry
                self._cue(slot, Cue.DRAIN if drain else Cue.STOP)
            case SlotState.DRAINING if self.hurry:
                self._cue(slot, Cue.STOP)
            case SlotState.SPAWNING | SlotState.WAITING | SlotState.BACKOFF if not self._stays(slot):
                self._cue(slot, Cue.VACATE)
                self._leave(slot)
            case SlotState.EMPTY if not self._stays(slot):
                self._leave(slot)
            case SlotState.SPAWNING | SlotState.BACKOFF if self._paused:
                self._forget_pid(slot)
                self._cue(slot, Cue.PARK)

    def _refill(self, slot: Slot, crashed_after: float | None, least: float = 0.0) -> None:
        """Decide what to do with the empty `slot`. `crashed_after`: uptime in seconds, None if it was stopped."""
        self._forget_pid(slot)
        if not self._stays(slot):
            self._cue(slot, Cue.VACATE)
            self._leave(slot)
            return
        unwanted = crashed_after is not None
        if unwanted and self._is_final(slot):
            slot.result = slot.succeeded
            self._cue(slot, Cue.VACATE)
            self._check_finished()
            return
        if unwanted and 0 < self.config.max_restarts < slot.crashes and self.phase is Phase.STARTED:
            self._cue(slot, Cue.VACATE)
            restarts = slot.crashes - 1
            self.why = f"given up after {restarts} restart{'' if restarts == 1 else 's'}; {self.why}"
            self._end(Order.GIVE_UP)
            return
        if not self._open:
            self._cue(slot, Cue.PARK)
            return
        self.restarts += 1
        delay = max(least, self._backoff(slot, crashed_after) if crashed_after is not None else 0.0)
        if delay:
            self._cue(slot, Cue.DELAY, delay)
        else:
            self._cue(slot, Cue.FILL)

    def _check_finished(self) -> None:
        """End the run, or the job, once no process is left and none is to follow."""
        if not self.active or not self._demand:
            return
        results = [slot.result for slot in self._wanted_slots()]
        if None in results:
            return
        if self.config.scheduled:
            self._end_run(all(results))
        elif results:
            self._end(Order.COMPLETE if all(results) else Order.GIVE_UP)

    def _end(self, order: Order) -> None:
        """The job has ended for good: it has completed, or is given up."""
        self._order(order)
        self._end_demand()
        self._publish("completed" if order is Order.COMPLETE else "failed", reason=self.why)
        self._reconcile()
        if self.config.essential:
            code = self.last_exit.shell_code if self.last_exit else 1
            self._out.append(ev.EndManager(code, f"{self.name} is essential: {self.why}"))

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
            self._end(Order.GIVE_UP)
            return
        self._hold(policy.retry_in)
        self._reconcile()

    def _hold(self, delay: float) -> None:
        self._order(Order.HOLD)
        self._out.append(ev.SetTimer(ev.RETRY, delay))

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
            self._sockets_open = self._sockets_open or bool(self.config.socket)
            return [ev.Spawn(pid, slot.index, slot.env)]
        if action in (Action.START_BACKOFF, Action.CANCEL_BACKOFF):
            key = ("backoff", slot.index)
            slot.retry_at = self._now + delay
            return [ev.CancelTimer(key) if action is Action.CANCEL_BACKOFF else ev.SetTimer(key, delay)]
        return on_process(action, slot, self.config, self._rand, self._now, hurry=self.hurry)

    def _publish(self, kind: str, pid: int | None = None, **data: Any) -> None:
        self._out.append(ev.Publish(kind, pid, data))
