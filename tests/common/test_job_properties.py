"""Jobs with any settings that meet any events in any order, held against what must be true of all of them."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gaffer.jobs import events as ev
from gaffer.jobs import exits
from gaffer.jobs.desired import Desired
from gaffer.jobs.probing import Question
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.slot import ALIVE, SlotState
from gaffer.jobs.states import JobState, Phase
from support.job_steps import START, STOP
from support.job_system import System

pytestmark = pytest.mark.pure

PATIENT = FlappingInfo(attempts=4, window=0.5, retry_in=2, max_retry=10**6)

# What calls for the processes of a job, and whether they are to go on.
KINDS: list[dict[str, Any]] = [
    {},
    {"restart": "on-failure"},
    {"restart": "never"},
    {"kind": "once"},
    {"kind": "once", "restart": "on-failure"},
    {"every": 30, "overlap": "skip"},
    {"every": 30, "overlap": "queue", "restart": "on-failure"},
    {"schedule": "* * * * *", "overlap": "replace"},
    {"start": "on-connection", "socket": ["tcp:127.0.0.1:0"]},
    {"start": "on-connection", "socket": ["tcp:127.0.0.1:0"], "idle_timeout": 5, "restart": "on-failure"},
]


def choices(**values: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({key: st.sampled_from(each) for key, each in values.items()})


SETTINGS = choices(
    numprocesses=[1, 2, 3, 0],
    ready=[None, "notify"],
    live=[None, "exec:true"],
    startsecs=[0.0, 1.0],
    start_timeout=[5.0, 0.0],
    drain_timeout=[0.0, 1.0],
    max_restarts=[0, 2],
    flapping=[None, PATIENT],
    essential=[False, True],
    max_unavailable=[1, 2],
    surge=[0, 1],
    auto_rollback=[False, True],
    max_lifetime=[0.0, 50.0],
    reload_signal=[None, "HUP"],
    after=[(), ("db",)],
    detach=[False, True],
)

CHANGES = choices(
    cmd=["true", "false", "missing"],
    numprocesses=[1, 2, 3, 0],
    startsecs=[0.0, 1.0],
    ready=[None, "notify"],
    live=[None, "exec:true"],
    surge=[0, 1],
    auto_rollback=[False, True],
    max_lifetime=[0.0, 50.0],
    priority=[None, 1],
)


class AnyJob(RuleBasedStateMachine):
    """`wanted` is what was ordered last: whether the job is to run."""

    @initialize(kind=st.sampled_from(KINDS), config=SETTINGS)
    def begin(self, kind: dict[str, Any], config: dict[str, Any]) -> None:
        self.system = System(**config, **kind)
        self.wanted = False
        self.left = False
        self.starts = 0

    def tell(self, *events: ev.Event) -> None:
        before, ended = self.system.job.active, len(self.system.ended)
        self.system.tell(*events)
        # A program that can't be started may end the job at once.
        self.starts += not before and (self.system.job.active or len(self.system.ended) > ended)

    def order(self, event: ev.Event) -> None:
        """Something that changes what is desired, which is the same whatever the processes do."""
        before = Desired.of(self.system.job)
        self.system.broken, broken = False, self.system.broken
        self.tell(event)
        self.system.broken = broken
        if before is not None:
            assert Desired.of(self.system.job) == before.after(event)

    def any_pid(self, number: int) -> int:
        """A process that is, was, or will be."""
        return number % (self.system.count + 2) + 1

    @precondition(lambda self: self.system.count == 0 and self.system.job.phase is Phase.STOPPED)
    @rule(
        slot=st.integers(0, 3),
        age=st.sampled_from([0.5, 100.0]),
        state=st.sampled_from([SlotState.STARTING, SlotState.READY, SlotState.STOPPING]),
        detach=st.booleans(),
    )
    def adopt(self, slot: int, age: float, state: SlotState, detach: bool) -> None:
        record = ProcessRecord(9, "s.j", slot, 90, 90, 1, "boot", "n:9", 30.0, detach, state=state)
        self.wanted = not self.left
        self.tell(ev.Adopted(self.system.next_pid(), record, age), START)

    # Orders

    @rule()
    def start(self) -> None:
        self.wanted = not self.left
        self.order(START)

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.order(STOP)

    @rule(count=st.integers(0, 4))
    def scale(self, count: int) -> None:
        self.order(ev.Scaled(count))

    @rule(reset=st.booleans(), rolling=st.booleans())
    def restart(self, reset: bool, rolling: bool) -> None:
        if self.system.job.phase in (Phase.COMPLETED, Phase.FAILED):
            self.wanted = True
        self.order(ev.RestartRequested(reset, rolling))

    @rule()
    def reload(self) -> None:
        if self.system.job.phase in (Phase.COMPLETED, Phase.FAILED) and not self.system.job.config.reload_signal:
            self.wanted = True
        self.order(ev.ReloadRequested())

    @rule(changes=CHANGES, start=st.booleans(), rolling=st.booleans())
    def configure(self, changes: dict[str, Any], start: bool, rolling: bool) -> None:
        self.wanted = not self.left and (self.wanted or start)
        self.order(ev.ConfigChanged(self.system.job.config.replace(**changes), start=start, rolling=rolling))

    @rule(kind=st.sampled_from(KINDS))
    def change_kind(self, kind: dict[str, Any]) -> None:
        plain = {"restart": None, "kind": "service", "every": 0, "schedule": None, "start": True, "socket": ()}
        changed = self.system.job.config.replace(**{**plain, "idle_timeout": 0, **kind})
        self.order(ev.ConfigChanged(changed))

    @rule(generation=st.one_of(st.none(), st.integers(1, 4)))
    def roll_back(self, generation: int | None) -> None:
        self.order(ev.RollbackRequested(generation))

    @rule(seconds=st.sampled_from([None, 5.0]))
    def disable(self, seconds: float | None) -> None:
        until = self.system.now + seconds if seconds is not None else None
        self.order(ev.DisableRequested("maintenance", self.system.now, until, seconds))

    @rule()
    def enable(self) -> None:
        self.order(ev.EnableRequested())

    @rule(drained=st.booleans())
    def drain(self, drained: bool) -> None:
        self.tell(ev.NodeDrained(drained))

    @rule(free=st.booleans())
    def name_freed(self, free: bool) -> None:
        self.tell(ev.NameFreed(free))

    @precondition(lambda self: self.system.job.gated)
    @rule(waiting_for=st.sampled_from([None, None, "waiting for db"]))
    def dependency(self, waiting_for: str | None) -> None:
        self.tell(ev.DependencyChanged(waiting_for))

    @precondition(lambda self: not self.left)
    @rule()
    def commit(self) -> None:
        self.tell(ev.Committed(self.system.next_pid(), 1.0))

    # Accidents

    @rule(broken=st.booleans(), slow=st.booleans())
    def weather(self, broken: bool, slow: bool) -> None:
        self.system.broken, self.system.slow = broken, slow
        self.system.launch()

    @precondition(lambda self: self.system.alive)
    @rule(data=st.data(), whole=st.booleans(), code=st.sampled_from([0, 0, 1, None]))
    def process_ends(self, data: st.DataObject, whole: bool, code: int | None) -> None:
        pid = data.draw(st.sampled_from(sorted(self.system.alive)))
        if pid not in self.system.zombies:
            self.system.exit(pid, code)
        if whole and pid in self.system.alive:
            self.system.group_empty(pid)

    @rule(number=st.integers(0, 50))
    def stop_process(self, number: int) -> None:
        self.tell(ev.ProcessStopRequested(self.any_pid(number)))

    @rule(number=st.integers(0, 50), question=st.sampled_from(Question), good=st.booleans())
    def probe(self, number: int, question: Question, good: bool) -> None:
        self.system.probe(self.any_pid(number), good, question)

    @rule(good=st.booleans())
    def probe_all(self, good: bool) -> None:
        for pid in list(self.system.probes):
            self.system.probe(pid, good)

    @rule(number=st.integers(0, 50))
    def exceed_limit(self, number: int) -> None:
        self.tell(ev.LimitExceeded(self.any_pid(number), "max_memory", "much"))

    @rule(number=st.integers(0, 50))
    def refuse_to_end(self, number: int) -> None:
        self.tell(ev.EndRefused(self.any_pid(number), "not permitted", False))

    @precondition(lambda self: self.system.armed)
    @rule()
    def due(self) -> None:
        self.tell(ev.ScheduleArmed(self.system.now + 30), ev.ScheduleDue(self.system.now))

    @rule()
    def connect(self) -> None:
        if self.system.awaited == "connection":
            self.system.awaited = None
            self.tell(ev.ConnectionWaiting())

    @rule()
    def become_idle(self) -> None:
        if self.system.awaited == "idle":
            self.system.awaited = None
            self.tell(ev.ConnectionsIdle())

    @precondition(lambda self: self.system.job.config.socket)
    @rule()
    def sockets_fail(self) -> None:
        self.tell(ev.SocketsFailed("address in use"))

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.system.advance(seconds)

    @rule()
    def settle(self) -> None:
        self.system.broken = False
        self.system.settle()

    # What ends it

    @rule()
    def unload(self) -> None:
        self.wanted, self.left = False, True
        self.tell(ev.Unloaded())

    @rule(hurry=st.booleans())
    def manager_stops(self, hurry: bool) -> None:
        self.wanted, self.left = False, True
        self.tell(ev.ManagerStopping(hurry))

    # What is always true

    @invariant()
    def each_process_is_where_it_should_be(self) -> None:
        self.system.check()
        job = self.system.job
        surge = job.config.surge if job.rollout is not None and job.rollout.running else 0
        serving = [slot for slot in job.slots.values() if slot.state in (*ALIVE, SlotState.SPAWNING)]
        assert len(serving) <= (job.target + surge if job.active and not job.disabled else 0)
        assert all(index > 0 for index in job.slots)
        assert len(job.exits) <= exits.KEPT

    @invariant()
    def nothing_starts_by_itself(self) -> None:
        job = self.system.job
        assert self.wanted or not job.active
        assert job.phase is not Phase.LEAVING or self.left
        if not job.active:
            assert job.waiting_for is None
            assert job.rollout is None or not job.rollout.running

    @invariant()
    def demand_is_watched_while_the_job_runs(self) -> None:
        job = self.system.job
        assert self.system.armed == (job.active and job.config.scheduled)
        if job.reason == "waiting for a connection":
            assert self.system.awaited == "connection"
        if (job.disabled or not job.active) and not self.system.alive and not self.system.launching:
            assert not self.system.sockets_open
        if job.active and not (job.disabled or job._demand) and job.config.start == "on-connection":
            assert self.system.awaited == "connection" or ev.CONNECTION in self.system.timers

    @invariant()
    def a_job_that_waits_says_why(self) -> None:
        assert self.system.job.state is not JobState.WAITING or self.system.job.reason

    @invariant()
    def the_manager_ends_only_with_what_is_essential(self) -> None:
        job = self.system.job
        assert len(self.system.ended) <= (self.starts if job.config.essential else 0)

    def teardown(self) -> None:
        if not hasattr(self, "system"):
            return
        system, job = self.system, self.system.job
        system.broken = False
        system.launch()
        self.tell(ev.NameFreed(True), ev.NodeDrained(False), ev.EnableRequested(), ev.DependencyChanged(None))
        system.settle()
        self.each_process_is_where_it_should_be()
        assert job.rollout is None or not job.rollout.running
        assert not any(slot.outdated for slot in job.slots.values())
        for event in (ev.ConnectionWaiting(), ev.ScheduleDue(system.now)):
            self.tell(event)
            system.settle()
        if job.phase is Phase.STARTED and (job.config.restart_policy == "always" or job.config.scheduled):
            ready = sorted(index for index, slot in job.slots.items() if slot.state is SlotState.READY)
            finished = [index for index, slot in job.slots.items() if slot.result is not None]
            assert not finished or job.config.scheduled
            assert sorted(ready + finished) == list(range(1, job.target + 1))
            assert sorted(slot for slot in system.alive.values() if slot) == ready
            assert job.state is (JobState.RUNNING if job.slots or job.committed else JobState.WAITING)
        self.tell(ev.Unloaded())
        system.settle()
        assert job.gone
        assert not system.alive
        assert not system.timers
        assert not system.probes


TestAnyJob = AnyJob.TestCase
TestAnyJob.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
