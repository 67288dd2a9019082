"""The job's state machine: tables for what users rely on, and a stateful test against a simulated system."""

import signal
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gaffer.jobs import events as ev
from gaffer.jobs.config import ProcessConfig
from gaffer.jobs.job import STORY, Job
from gaffer.jobs.names import JobName
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import JobState, Phase

pytestmark = pytest.mark.pure


class System:
    """Carries out instructions as an operating system would: exits come only when they are told to."""

    def __init__(self, **config: Any) -> None:
        config.setdefault("numprocesses", 1)
        self.count = 0
        self.job = Job(JobName("s", "j"), ProcessConfig("j", "true", **config), self.next_pid, rand=lambda: 0.5)
        self.now = 100.0
        self.queue: deque[ev.Instruction] = deque()
        self.alive: dict[int, int] = {}  # pid -> slot
        self.zombies: set[int] = set()
        self.signals: list[tuple[int, int]] = []
        self.timers: dict[ev.TimerKey, float] = {}
        self.published: list[str] = []
        self.released: set[int] = set()
        self.broken = False  # no program can be started
        self.spawn_times: list[float] = []

    def next_pid(self) -> int:
        self.count += 1
        return self.count

    def tell(self, *events: ev.Event) -> None:
        idle = not self.queue
        for event in events:
            self.queue.extend(self.job.handle(event, self.now))
            while idle and self.queue:
                self.carry_out(self.queue[0])
                self.queue.popleft()

    def carry_out(self, instruction: ev.Instruction) -> None:
        match instruction:
            case ev.Spawn(pid, slot):
                if not self.job.expects(pid):
                    return
                self.spawn_times.append(self.now)
                if self.broken:
                    self.tell(ev.SpawnFailed(pid, "program_not_found", "none"))
                    return
                assert slot == 0 or slot not in self.alive.values(), "two processes in one slot"
                self.alive[pid] = slot
                self.tell(ev.Spawned(pid, 1000 + pid))
            case ev.Adopt(pid, record):
                self.alive[pid] = record.slot
            case ev.Signal(pid, signum):
                self.signals.append((pid, signum))
            case ev.Release(pid):
                del self.alive[pid]
                self.released.add(pid)
            case ev.SetTimer(key, delay):
                self.timers[key] = self.now + delay
            case ev.CancelTimer(key):
                self.timers.pop(key, None)
            case ev.Publish(kind):
                self.published.append(kind)

    def exit(self, pid: int, code: int | None = 0, term_signal: int | None = 0) -> None:
        self.zombies.add(pid)
        self.tell(ev.Exited(pid, code, term_signal))

    def group_empty(self, pid: int) -> None:
        self.zombies.discard(pid)
        del self.alive[pid]
        self.tell(ev.GroupEmpty(pid))

    def die(self, *pids: int) -> None:
        for pid in pids or list(self.alive):
            self.exit(pid)
            self.group_empty(pid)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(self.timers.values()) <= end:
            key = min(self.timers, key=self.timers.__getitem__)
            self.now = max(self.now, self.timers.pop(key))
            self.tell(ev.TimerFired(key))
        self.now = end

    def settle(self) -> None:
        """Whoever was asked to end does, and time passes, until nothing changes any more."""
        for _ in range(100):
            ending = [pid for pid in self.alive if self.state(pid) is SlotState.STOPPING]
            for pid in ending:
                if pid not in self.zombies:
                    self.exit(pid)
                self.group_empty(pid)
            slots = (*self.job.slots.values(), *self.job.committed.values())
            waiting = any(slot.state in (SlotState.BACKOFF, SlotState.DRAINING) for slot in slots)
            if not ending and not waiting and self.job.phase is not Phase.HELD:
                return
            self.advance(60.0)
        raise AssertionError("it never settles")

    def state(self, pid: int) -> SlotState:
        slot = self.job.slot_of(pid)
        assert slot is not None
        return slot.state


START, STOP = ev.StartRequested(), ev.StopRequested()


def test_a_crash_loop_is_one_until_a_process_stays_up() -> None:
    system = System(startsecs=0.0)
    system.tell(ev.StartRequested())
    for _ in range(3):
        assert system.job.crash_loop(system.now) is None
        system.advance(2.0)
        system.die()
    assert system.job.crash_loop(system.now) == (
        "crash loop, 3 exits in a row: the last process exited with 0 after 2.0 s"
    )
    system.advance(10.0)
    assert system.job.crash_loop(system.now) is None
    system.die()
    assert system.job.crash_loop(system.now) is None, "the last one had stayed up"


def test_processes_that_were_asked_to_end_are_no_crash_loop() -> None:
    system = System(startsecs=0.0)
    system.tell(ev.StartRequested())
    for _ in range(5):
        system.tell(ev.RestartRequested())
        system.settle()
    assert system.job.crash_loop(system.now) is None


@pytest.mark.row("SUP-01", "TPL-11")
def test_a_start_fills_every_slot_and_an_exit_is_replaced() -> None:
    system = System(numprocesses=3)
    system.tell(START)
    assert system.job.pids() == [1, 2, 3]
    assert system.job.state is JobState.RUNNING
    system.advance(2.0)
    system.die(2)
    assert system.job.pids() == [1, 3, 4]
    assert system.alive[4] == 2, "the newcomer takes the slot of the one that left"
    assert system.job.restarts == 1


def test_a_process_that_lived_over_a_second_is_replaced_at_once() -> None:
    system = System()
    system.tell(START)
    system.advance(1.0)
    system.die()
    assert system.job.pids() == [2]


def test_short_lives_are_answered_with_doubling_pauses_up_to_the_limit() -> None:
    system = System()
    system.tell(START)
    waits = []
    for _ in range(12):
        system.die()
        assert system.job.state is JobState.BACKOFF
        waits.append(round(system.timers["backoff", 1] - system.now, 3))
        system.advance(waits[-1])
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]


def test_ten_seconds_alive_forget_earlier_failures() -> None:
    system = System(startsecs=20)
    system.tell(START)
    for _ in range(3):
        system.die()
        system.advance(1.0)
    system.advance(10.0)
    system.die()
    assert system.timers["backoff", 1] - system.now == pytest.approx(0.1)


@pytest.mark.row("TPL-20")
def test_without_flapping_and_backoff_every_exit_is_replaced_at_once() -> None:
    system = System(backoff=0)
    system.tell(START)
    for _ in range(50):
        system.die()
    assert system.job.pids() == [51]
    assert "flap" not in system.published


@pytest.mark.row("MGR-35")
def test_a_start_after_a_stop_has_the_configured_count_and_no_memory_of_crashes() -> None:
    system = System(numprocesses=2, flapping=FlappingInfo(attempts=2, window=100, retry_in=5, max_retry=1))
    system.tell(START, ev.Scaled(3))
    system.die(1)
    system.tell(STOP)
    system.settle()
    assert (system.job.active, system.job.pids()) == (False, [])
    system.tell(START)
    assert (system.job.active, system.job.pids()) == (True, [5, 6])
    system.die(5)
    assert (system.job.phase, system.job.active) == (Phase.STARTED, True), "the exit before the stop no longer counts"
    system.die(6)
    assert (system.job.phase, system.job.active) == (Phase.HELD, True)


@pytest.mark.row("MGR-35")
@pytest.mark.parametrize("max_retry", [0, 1])
def test_a_start_ends_a_pause_and_gives_another_chance_to_what_was_given_up(max_retry: int) -> None:
    system = System(flapping=FlappingInfo(attempts=1, window=1, retry_in=5, max_retry=max_retry))
    system.tell(START)
    system.die(1)
    assert not system.alive
    system.tell(START)
    assert system.job.pids() == [2]
    assert system.job.reason is None
    system.die(2)
    assert system.job.phase is (Phase.HELD if max_retry else Phase.FAILED), "it has all its retries again"


def test_what_can_not_be_started_never_spins_even_without_backoff() -> None:
    system = System(backoff=0)
    system.broken = True
    system.tell(START)
    assert len(system.spawn_times) == 1
    system.advance(1.0)
    assert 5 <= len(system.spawn_times) <= 12
    assert system.job.state is JobState.BACKOFF
    assert system.job.reason == "program_not_found: none"


@pytest.mark.row("SUP-04")
def test_a_crash_loop_can_be_stopped() -> None:
    system = System()
    system.tell(START)
    system.die()
    system.tell(STOP)
    system.advance(100.0)
    assert not system.alive
    assert system.job.state is JobState.STOPPED


@pytest.mark.row("SUP-03", "TPL-16")
def test_stopping_is_term_then_kill_after_the_graceful_timeout() -> None:
    system = System(graceful_timeout=5)
    system.tell(START, STOP)
    assert (system.job.state, system.signals) == (JobState.STOPPING, [(1, signal.SIGTERM)])
    system.advance(4.9)
    assert system.signals == [(1, signal.SIGTERM)]
    system.advance(0.2)
    assert system.signals == [(1, signal.SIGTERM), (1, signal.SIGKILL)]
    system.die(1)
    assert system.job.state is JobState.STOPPED


def test_a_start_while_stopping_wins_after_the_last_exit() -> None:
    system = System()
    system.tell(START, STOP, START)
    assert system.alive == {1: 1}
    system.die(1)
    assert system.job.pids() == [2]


def test_a_stop_cancels_a_start_that_waits() -> None:
    system = System()
    system.tell(START, STOP, START, STOP)
    system.die(1)
    assert not system.alive
    assert system.job.state is JobState.STOPPED


def test_a_replacement_waits_until_nothing_of_the_old_process_is_left() -> None:
    system = System()
    system.tell(START)
    system.advance(2.0)
    system.exit(1)
    assert system.signals == [(1, signal.SIGTERM)], "the group is told to end"
    assert list(system.alive) == [1]
    system.advance(30.0)
    assert system.signals[-1] == (1, signal.SIGKILL)
    system.group_empty(1)
    assert system.job.pids() == [2]


@pytest.mark.row("MGR-37", "SUP-02", "SUP-01")
def test_scaling_down_takes_the_highest_slots() -> None:
    system = System(numprocesses=4)
    system.tell(START, ev.Scaled(2))
    assert sorted(pid for pid, _ in system.signals) == [3, 4]
    assert system.published.count("reap") == 2
    system.settle()
    assert system.job.pids() == [1, 2]
    system.tell(ev.Scaled(3))
    assert system.job.pids() == [1, 2, 5]


def test_scaling_up_again_while_the_surplus_still_stops_reuses_its_slot() -> None:
    system = System(numprocesses=2)
    system.tell(START, ev.Scaled(1), ev.Scaled(2))
    system.settle()
    assert sorted(system.alive.values()) == [1, 2]


@pytest.mark.row("MGR-32")
def test_a_reload_goes_back_to_the_configured_count_with_new_processes() -> None:
    system = System(numprocesses=2)
    system.tell(START, ev.Scaled(4), ev.RestartRequested(reset=True))
    system.settle()
    assert system.job.pids() == [5, 6]


def test_an_identical_config_changes_nothing() -> None:
    system = System()
    system.tell(START)
    del system.published[:]
    system.tell(ev.ConfigChanged(ProcessConfig("j", "true", numprocesses=1)))
    assert not system.signals
    assert not system.published


@pytest.mark.parametrize(
    "change",
    [{"graceful_timeout": 1}, {"flapping": FlappingInfo()}, {"priority": 3}, {"labels": {"a": "b"}}, {"backoff": 3}],
)
def test_live_settings_apply_without_a_restart(change: dict[str, Any]) -> None:
    system = System()
    system.tell(START, ev.ConfigChanged(ProcessConfig("j", "true", **change)))
    assert not system.signals
    assert system.published[-1] == "update"


@pytest.mark.row("MGR-33")
def test_a_scaled_count_stays_until_the_configured_one_changes() -> None:
    system = System()
    system.tell(START, ev.Scaled(3), ev.ConfigChanged(ProcessConfig("j", "true", priority=1)))
    assert system.job.pids() == [1, 2, 3]
    system.tell(ev.ConfigChanged(ProcessConfig("j", "true", numprocesses=2)))
    system.settle()
    assert system.job.pids() == [1, 2]


@pytest.mark.row("MGR-33")
@pytest.mark.parametrize("change", [{"cmd": "false"}, {"env": {"A": "1"}}, {"cwd": "/"}, {"redirect_output": ["o"]}])
def test_other_settings_replace_the_processes(change: dict[str, Any]) -> None:
    system = System(numprocesses=2)
    config = {"cmd": "true", "numprocesses": 2, **change}
    system.tell(START, ev.ConfigChanged(ProcessConfig("j", **config)))
    system.settle()
    assert system.job.pids() == [3, 4]


def test_a_new_count_in_the_config_applies_at_once() -> None:
    system = System(numprocesses=1)
    system.tell(START, ev.ConfigChanged(ProcessConfig("j", "true", numprocesses=3)))
    assert system.job.pids() == [1, 2, 3]


@pytest.mark.row("MGR-40")
def test_a_stopped_process_is_replaced() -> None:
    system = System(numprocesses=2)
    system.tell(START, ev.ProcessStopRequested(1))
    assert system.signals == [(1, signal.SIGTERM)]
    system.settle()
    assert system.job.pids() == [2, 3]


@pytest.mark.row("MGR-38")
def test_a_committed_process_is_neither_counted_nor_kept_alive() -> None:
    system = System()
    system.tell(START)
    pid = system.next_pid()
    system.tell(ev.Committed(pid, 0))
    assert system.job.pids() == [1]
    assert system.job.pids(committed=True) == [1, pid]
    system.tell(ev.Scaled(0))
    system.settle()
    assert list(system.alive) == [pid]
    system.die(pid)
    assert not system.alive
    assert not system.job.committed


@pytest.mark.row("MGR-38")
def test_a_committed_process_has_its_own_patience() -> None:
    system = System(graceful_timeout=30)
    pid = system.next_pid()
    system.tell(ev.Committed(pid, 2.0), STOP)
    system.advance(2.1)
    assert system.signals == [(pid, signal.SIGTERM), (pid, signal.SIGKILL)]


def test_draining_comes_before_the_signal() -> None:
    system = System(drain_timeout=3)
    system.tell(START, STOP)
    assert system.state(1) is SlotState.DRAINING
    assert system.job.pids() == []
    assert not system.signals
    system.advance(3.0)
    assert system.signals == [(1, signal.SIGTERM)]


@pytest.mark.parametrize("early", ["exit", "hurried stop"])
def test_an_early_end_of_draining_cancels_its_timer(early: str) -> None:
    system = System(drain_timeout=3)
    system.tell(START, STOP)
    assert ("drain", 1) in system.timers
    if early == "exit":
        system.exit(1)
    else:
        system.tell(ev.ManagerStopping(hurry=True))
    assert ("drain", 1) not in system.timers


@pytest.mark.parametrize(
    "message", [ev.Committed(1, 2.0, {"A": "secret"}), ev.Spawn(1, 2, {"A": "secret"}), ev.Exited(1, 3, 0, 4, "secret")]
)
def test_the_text_of_an_event_has_no_environment_and_no_output(message: ev.Event | ev.Spawn) -> None:
    assert repr(message).startswith(f"{type(message).__name__}(pid=1")
    assert "secret" not in repr(message)


def test_a_drained_node_ends_what_runs_and_keeps_what_is_desired() -> None:
    system = System(numprocesses=2, drain_timeout=3)
    system.tell(START, ev.NodeDrained(True))
    assert {system.state(pid) for pid in (1, 2)} == {SlotState.DRAINING}
    assert not system.signals
    system.settle()
    assert not system.alive
    assert (system.job.state, system.job.active) == (JobState.WAITING, True)
    assert system.job.reason == "the node is drained"
    system.tell(ev.RestartRequested(), ev.Scaled(3))
    assert not system.alive
    system.tell(ev.NodeDrained(False))
    assert system.job.pids() == [3, 4, 5]


def test_a_process_that_ends_when_the_node_is_back_is_replaced_once_it_is_gone() -> None:
    system = System()
    system.tell(START, ev.NodeDrained(True), ev.NodeDrained(False))
    assert system.alive == {1: 1}
    system.die()
    assert system.job.pids() == [2]


def test_a_drained_node_ends_what_was_committed_and_what_waits_for_its_next_start() -> None:
    system = System()
    system.tell(ev.Committed(system.next_pid(), 1.0), START)
    system.die(2)
    assert system.job.state is JobState.BACKOFF
    system.signals.clear()
    system.tell(ev.NodeDrained(True))
    assert system.signals == [(1, signal.SIGTERM)]
    system.advance(60.0)
    assert system.alive == {1: 0}


@pytest.mark.row("TPL-23", "TPL-25", "EVT-12")
def test_flapping_pauses_the_job_and_then_gives_up() -> None:
    system = System(flapping=FlappingInfo(attempts=2, window=1.0, retry_in=7.0, max_retry=1))
    system.tell(START)
    system.die()
    system.die()
    assert system.published.count("flap") == 1
    assert (system.job.state, system.job.active) == (JobState.WAITING, True)
    system.advance(6.9)
    assert not system.alive
    system.advance(0.2)
    assert len(system.alive) == 1
    system.die()
    system.die()
    assert (system.job.state, system.job.active) == (JobState.FAILED, False)
    assert "given up after 1 retries" in (system.job.reason or "")
    system.advance(1000.0)
    assert not system.alive
    system.tell(START)
    assert len(system.alive) == 1, "a start by hand begins anew"


def test_flapping_stops_the_other_instances_too() -> None:
    system = System(numprocesses=3, flapping=FlappingInfo(attempts=2, window=1.0, retry_in=7.0))
    system.tell(START)
    system.die(1)
    system.die(2)
    system.settle()
    assert len(system.job.pids()) == 3
    assert min(system.job.pids()) > 4


def test_stops_by_request_are_no_crashes() -> None:
    system = System(flapping=FlappingInfo(attempts=2, window=10.0))
    system.tell(START)
    for _ in range(5):
        system.tell(ev.RestartRequested())
        system.settle()
    assert "flap" not in system.published


def test_a_job_waits_for_its_predecessor() -> None:
    system = System()
    system.tell(ev.DependencyChanged(False), START)
    assert not system.alive
    assert system.job.state is JobState.WAITING
    system.tell(ev.DependencyChanged(True))
    assert system.job.pids() == [1]


def test_an_unloaded_job_is_gone_when_its_processes_are() -> None:
    system = System(numprocesses=2)
    system.tell(START, ev.Unloaded())
    assert not system.job.gone
    system.settle()
    assert system.job.gone
    system.tell(START)
    assert not system.alive


@pytest.mark.row("TPL-10")
def test_a_detached_process_survives_the_manager_but_not_a_stop() -> None:
    system = System(detach=True)
    system.tell(START, ev.ManagerStopping())
    assert system.released == {1}
    assert system.job.gone
    other = System(detach=True)
    other.tell(START, STOP)
    assert other.signals == [(1, signal.SIGTERM)]


def test_a_manager_in_a_hurry_kills_at_once_also_what_stops_already() -> None:
    system = System(numprocesses=2, drain_timeout=5)
    system.tell(START, ev.ManagerStopping(), ev.ManagerStopping(hurry=True))
    assert sorted(system.signals) == [(1, signal.SIGKILL), (2, signal.SIGKILL)]


@pytest.mark.row("EVT-03", "EVT-04", "EVT-05", "EVT-07", "EVT-08", "EVT-09", "EVT-10", "EVT-11")
def test_what_is_published() -> None:
    system = System()
    system.tell(START)
    system.die()
    assert system.published == ["start", "spawn", "exit"]
    del system.published[:]
    system.advance(1.0)
    system.tell(ev.RestartRequested())
    assert system.published == ["spawn", "restart", "stop_pid"]
    del system.published[:]
    system.settle()
    system.tell(ev.Scaled(0), ev.Unloaded())
    assert system.published == ["exit", "spawn", "update", "reap", "stop", "delete"]


RECORD = ProcessRecord(9, "s.j", 2, 90, 90, 1, "boot", "n:9", 30.0, True)


@pytest.mark.row("TPL-10")
def test_an_adopted_process_counts_as_the_one_of_its_slot() -> None:
    system = System(numprocesses=2, detach=True)
    pid = system.next_pid()
    system.tell(ev.Adopted(pid, RECORD, age=50.0), START)
    assert system.alive == {1: 2, 2: 1}
    assert system.published.count("spawn") == 1
    system.exit(pid, None, None)
    system.group_empty(pid)
    assert system.job.last_exit is not None
    assert (system.job.last_exit.reason, system.job.last_exit.uptime) == ("unknown", 50.0)


def test_all_adopted_processes_are_stopped_also_committed_ones_and_two_of_one_slot() -> None:
    system = System(numprocesses=2, detach=True)
    pids = [system.next_pid() for _ in range(4)]
    for pid, slot in zip(pids, (0, 0, 2, 2), strict=True):
        system.tell(ev.Adopted(pid, msgspec.structs.replace(RECORD, slot=slot), age=50.0))
    system.tell(START)
    assert system.job.pids(committed=True) == [1, 2, 3, 5]
    assert system.signals == [(4, signal.SIGTERM)]
    system.tell(ev.Unloaded())
    assert {pid for pid, _ in system.signals} == {1, 2, 3, 4, 5}
    for pid in (*pids, 5):
        system.exit(pid)
        system.group_empty(pid)
    assert system.job.gone


@pytest.mark.parametrize("refused_first", [True, False])
def test_what_can_not_be_ended_is_shown_and_left_behind_by_a_manager_that_stops(refused_first: bool) -> None:
    system = System()
    system.tell(START, STOP)
    refusals = [ev.EndRefused(1, "not permitted", False), ev.EndRefused(1, "not permitted", True)]
    system.tell(*refusals[: 1 + refused_first])
    assert (system.job.state, system.job.reason) == (JobState.STOPPING, "process 1 can't be ended: not permitted")
    assert not system.released
    system.tell(ev.ManagerStopping())
    if not refused_first:
        assert not system.job.gone
        system.tell(refusals[1])
    assert system.released == {1}
    assert system.job.gone


def test_what_could_not_be_ended_is_replaced_once_it_ended_by_itself() -> None:
    system = System()
    system.tell(START, ev.RestartRequested(), ev.EndRefused(1, "not permitted", True))
    system.exit(1)
    system.group_empty(1)
    assert (system.job.state, system.job.reason) == (JobState.RUNNING, None)


@pytest.mark.parametrize(
    ("out_of_memory", "reason", "sentence"),
    [
        (True, "oom", "killed by SIGKILL: out of memory after"),
        (None, "killed (possibly out of memory)", "killed by SIGKILL (possibly out of memory) after"),
        (False, "signaled", "killed by SIGKILL after"),
    ],
)
def test_memory_that_ran_out_is_given_as_the_reason(out_of_memory: bool | None, reason: str, sentence: str) -> None:
    system = System()
    system.tell(START)
    system.tell(ev.Exited(1, 0, signal.SIGKILL, out_of_memory=out_of_memory))
    assert system.job.last_exit is not None
    assert system.job.last_exit.reason == reason
    assert sentence in system.job.why


class JobMachine(RuleBasedStateMachine):
    """Any order of requests and accidents: no slot holds two processes, and what is desired comes true in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.system = System(
            numprocesses=2, drain_timeout=1, flapping=FlappingInfo(attempts=4, window=0.5, retry_in=2, max_retry=10**6)
        )
        self.desired = False
        self.target = 2

    @rule()
    def start(self) -> None:
        if self.system.job.phase is not Phase.STARTED:
            self.target = self.system.job.config.numprocesses
        self.system.tell(START)
        self.desired = True

    @rule()
    def stop(self) -> None:
        self.system.tell(STOP)
        self.desired = False

    @rule(count=st.integers(0, 4))
    def scale(self, count: int) -> None:
        self.system.tell(ev.Scaled(count))
        self.target = count

    @rule(reset=st.booleans())
    def restart(self, reset: bool) -> None:
        self.system.tell(ev.RestartRequested(reset))
        if reset:
            self.target = self.system.job.config.numprocesses

    @rule(ready=st.booleans())
    def dependency(self, ready: bool) -> None:
        self.system.tell(ev.DependencyChanged(ready))

    @rule(drained=st.booleans())
    def drain(self, drained: bool) -> None:
        self.system.tell(ev.NodeDrained(drained))

    @rule(broken=st.booleans())
    def break_or_mend(self, broken: bool) -> None:
        self.system.broken = broken

    @rule(cmd=st.sampled_from(["true", "false"]), numprocesses=st.integers(0, 3), drain_timeout=st.sampled_from([0, 1]))
    def configure(self, cmd: str, numprocesses: int, drain_timeout: int) -> None:
        old = self.system.job.config
        config = ProcessConfig("j", cmd, numprocesses=numprocesses, drain_timeout=drain_timeout, flapping=old.flapping)
        self.system.tell(ev.ConfigChanged(config))
        if numprocesses != old.numprocesses:
            self.target = numprocesses

    @rule()
    def commit(self) -> None:
        self.system.tell(ev.Committed(self.system.next_pid(), 1.0))

    @precondition(lambda self: self.system.alive)
    @rule(data=st.data(), whole=st.booleans())
    def process_ends(self, data: st.DataObject, whole: bool) -> None:
        pid = data.draw(st.sampled_from(sorted(self.system.alive)))
        if pid not in self.system.zombies:
            self.system.exit(pid)
        if whole:
            self.system.group_empty(pid)

    @precondition(lambda self: self.system.job.pids(committed=True))
    @rule(data=st.data())
    def stop_process(self, data: st.DataObject) -> None:
        pid = data.draw(st.sampled_from(self.system.job.pids(committed=True)))
        self.system.tell(ev.ProcessStopRequested(pid))

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.system.advance(seconds)

    @invariant()
    def the_job_knows_exactly_the_living(self) -> None:
        job = self.system.job
        held = {slot.pid for slot in (*job.slots.values(), *job.committed.values()) if slot.pid is not None}
        assert self.system.alive.keys() == held
        assert set(job.pids(committed=True)) <= self.system.alive.keys() - self.system.zombies
        assert not (job.drained and job.pids())

    def teardown(self) -> None:
        self.system.broken = False
        self.system.tell(ev.DependencyChanged(True), ev.NodeDrained(False))
        self.system.settle()
        wanted = self.target if self.desired else 0
        in_slots = sorted(slot for slot in self.system.alive.values() if slot)
        assert in_slots == list(range(1, wanted + 1))
        self.system.tell(ev.Unloaded())
        self.system.settle()
        assert self.system.job.gone
        assert not self.system.alive


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_job_tells_its_last_events_when_one_can_not_happen() -> None:
    system = System()
    system.tell(ev.StartRequested())
    with pytest.raises(KeyError) as caught:
        system.job.handle(ev.GroupEmpty(7), system.now)
    (note,) = caught.value.__notes__
    assert "StartRequested() -> " in note
    assert "Spawned(pid=1, os_pid=1001)" in note
    assert note.endswith("GroupEmpty(pid=7) -> nothing")


def test_the_story_of_a_job_is_bounded_and_shows_no_secrets() -> None:
    system = System(env={"TOKEN": "secret"})
    for pid in range(100, 200):
        system.tell(ev.Committed(pid, 0, {"TOKEN": "secret"}))
    assert len(system.job.story) == STORY
    assert "secret" not in system.job.history()
