"""The order of jobs: what keeps one from starting, and several that come after each other."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gaffer.jobs import events as ev
from gaffer.jobs.gates import obstacle
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.ordering import Condition, dependencies, find_cycle, find_mistakes, in_order
from gaffer.jobs.slot import ALIVE, SlotState
from gaffer.jobs.states import Phase
from gaffer.supervision.job_table import JobTable
from gaffer.supervision.order import Ordering
from support.job_steps import (
    START,
    STOP,
    dies,
    ends,
    job_of,
    retire,
    starts,
    stopped,
    up,
)
from support.job_system import System
from support.playbook import nothing, play

pytestmark = pytest.mark.pure

GO_ON = ev.DependencyChanged(None)
GATE = "waiting for db"

# One job


def test_a_job_that_comes_after_others_waits_until_it_may_start() -> None:
    job = job_of(after=["db", "cache:started"], numprocesses=2)
    book = starts(play(job)) << nothing
    assert (job.state, job.reason, job.gated) == ("waiting", "waiting for db, cache:started", True)
    assert book >> ev.DependencyChanged("waiting for db to be ready: it is starting") << nothing
    assert job.reason == "waiting for db to be ready: it is starting"
    assert up(book >> GO_ON << ev.Spawn(1, 1) << ev.Spawn(2, 2), 1, 2)
    assert not job.gated


def test_a_job_that_has_started_waits_no_more_when_it_crashes_or_is_replaced() -> None:
    job = job_of(after=["db"])
    book = up(starts(play(job)) >> GO_ON << ev.Spawn(1, 1), 1)
    book = up(dies(book, 1, 3) << ev.Spawn(2, 1), 2)
    book = book >> ev.RestartRequested() << ev.Publish("restart") << retire(2)
    book = up(ends(book, 2) << ev.Spawn(3, 1), 3)
    assert starts(book) << nothing, "it is started already"
    assert not job.gated


def test_a_stop_and_a_start_make_it_wait_again() -> None:
    job = job_of(after=["db"])
    book = ends(stopped(up(starts(play(job)) >> GO_ON << ev.Spawn(1, 1), 1), 1), 1)
    assert not job.gated
    assert starts(book) << nothing
    assert job.reason == GATE
    assert stopped(book), "it can be stopped while it waits"
    assert job.waiting_for is None


def test_the_return_from_draining_makes_it_wait_again() -> None:
    job = job_of(after=["db"])
    book = up(starts(play(job)) >> GO_ON << ev.Spawn(1, 1), 1) >> ev.NodeDrained(True) << retire(1)
    assert not job.gated
    assert ends(book, 1) >> ev.NodeDrained(False) << nothing
    assert job.reason == GATE
    assert book >> GO_ON << ev.Spawn(2, 1)


def test_a_stopped_job_does_not_wait_after_draining() -> None:
    job = job_of(after=["db"])
    assert play(job) >> ev.NodeDrained(True) << nothing >> ev.NodeDrained(False) << nothing
    assert job.waiting_for is None


def test_a_job_that_is_given_up_waits_again_when_it_is_restarted() -> None:
    job = job_of(after=["db"], restart="never")
    book = dies(up(starts(play(job)) >> GO_ON << ev.Spawn(1, 1), 1), 1, 3)
    assert book << ev.CancelTimer(ev.RETRY) << ev.Publish("failed", data={"reason": job.why})
    assert book >> ev.RestartRequested() << ev.CancelTimer(ev.RETRY) << ev.Publish("start")
    assert job.reason == GATE


def test_a_scale_does_not_open_the_gate() -> None:
    book = starts(play(job_of(after=["db"]))) >> ev.Scaled(3) << ev.Publish("update")
    assert book >> GO_ON << [ev.Spawn(1, 1), ev.Spawn(2, 2), ev.Spawn(3, 3)]


def test_a_job_without_processes_that_waits_is_replaced_by_nothing() -> None:
    book = starts(play(job_of(after=["db"]))) >> ev.RestartRequested() << ev.Publish("restart") << nothing
    assert book >> ev.ProcessStopRequested(1) << nothing


# What a job waits for

DB = JobName("s", "db")


def prepared(config: dict[str, Any], *steps: str) -> Job:
    """A job named db in some state."""
    system = System("db", **config)
    events: dict[str, ev.Event] = {
        "start": START,
        "stop": STOP,
        "connect": ev.ConnectionWaiting(),
        "due": ev.ScheduleDue(1.0),
        "drain": ev.NodeDrained(True),
        "restart": ev.RestartRequested(),
    }
    for step in steps:
        if step in events:
            system.tell(events[step])
        elif step == "settle":
            system.settle()
        elif step == "fail":
            system.die(code=3)
        else:
            system.die()
    return system.job


ON_CONNECTION = {"start": "on-connection", "socket": ["tcp:127.0.0.1:0"]}


@pytest.mark.parametrize(
    ("config", "steps", "condition", "why"),
    [
        ({}, "", "ready", "waiting for s.db, which is stopped: start it"),
        ({}, "start stop", "ready", "waiting for s.db, which is stopped: start it"),
        ({}, "start", "ready", None),
        ({}, "start", "restart", None),
        ({}, "start", "started", None),
        ({}, "start restart", "ready", "waiting for s.db to be ready: it is stopping"),
        ({}, "start restart", "started", "waiting for s.db to start: it is stopping"),
        ({"startsecs": 1.0}, "start", "ready", "waiting for s.db to be ready: it is starting"),
        ({"startsecs": 1.0}, "start", "restart", "waiting for s.db to be ready: it is starting"),
        ({"startsecs": 1.0}, "start", "started", None),
        ({"startsecs": 1.0}, "start settle", "ready", None),
        ({}, "start drain", "ready", "waiting for s.db to be ready: it is stopping"),
        ({"after": ["x"]}, "start", "started", "waiting for s.db to start: it is waiting (waiting for x)"),
        ({"numprocesses": 0}, "start", "ready", "waiting for s.db, which has no processes: scale it up"),
        (
            {"max_restarts": 1},
            "start fail fail",
            "ready",
            "waiting for s.db, which has failed: given up after 1 restart; the last process exited with 3 after 0.0 s",
        ),
        (
            {},
            "start",
            "completed",
            "waiting for s.db to complete, which never happens: set its kind to once",
        ),
        ({"restart": "on-failure"}, "start", "completed", "waiting for s.db to complete: it is running"),
        ({"restart": "on-failure"}, "start end", "completed", None),
        ({"kind": "once"}, "start", "completed", "waiting for s.db to complete: it is running"),
        ({"kind": "once"}, "start", "ready", "waiting for s.db to be ready: it is running"),
        ({"kind": "once"}, "start", "started", None),
        ({"kind": "once"}, "start end", "completed", None),
        ({"kind": "once"}, "start end", "ready", None),
        ({"kind": "once"}, "start end", "started", None),
        (
            {"kind": "once"},
            "start fail",
            "completed",
            "waiting for s.db, which has failed: the last process exited with 3 after 0.0 s",
        ),
        ({"kind": "once"}, "start end stop", "completed", "waiting for s.db, which is stopped: start it"),
        (
            {"every": 30},
            "start due",
            "ready",
            "waiting for s.db to be ready, which never happens: a schedule runs it again and again",
        ),
        (
            {"every": 30},
            "start due end",
            "completed",
            "waiting for s.db to complete, which never happens: a schedule runs it again and again",
        ),
        ({"every": 30}, "start due", "started", None),
        (ON_CONNECTION, "start", "ready", None),
        (ON_CONNECTION, "start", "started", None),
        (
            ON_CONNECTION,
            "start drain",
            "started",
            "waiting for s.db to start: it is waiting (the node is drained)",
        ),
        (ON_CONNECTION | {"startsecs": 1.0}, "start connect", "ready", "waiting for s.db to be ready: it is starting"),
        (ON_CONNECTION, "", "started", "waiting for s.db, which is stopped: start it"),
    ],
)
def test_what_a_job_waits_for(config: dict[str, Any], steps: str, condition: str, why: str | None) -> None:
    assert obstacle(DB, prepared(config, *steps.split()), Condition(condition)) == why


def test_a_job_that_does_not_exist_is_an_obstacle() -> None:
    assert obstacle(DB, None, Condition.STARTED) == "waiting for s.db, which does not exist: load it"


def test_a_job_that_comes_after_an_unknown_one_is_not_suggested_to_come_after_itself() -> None:
    api, apis, app = (JobName("s", name) for name in ("api", "apis", "app"))
    [mistake] = find_mistakes({api: [apis], app: []}, [api])
    assert mistake.hint == "load it first"
    [mistake] = find_mistakes({api: [apis], app: [apis]}, [app])[:1]
    assert mistake.hint == "did you mean 'api'?"
    other = JobName("data", "db")
    [mistake] = find_mistakes({api: [JobName("dta", "db")], other: []}, [api])
    assert mistake.hint == "did you mean 'data.db'?"


# Several jobs

NAMES = st.sampled_from([JobName("s", each) for each in "abcdef"])


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3)))
def test_a_cycle_is_found_exactly_when_there_is_one(graph: dict[JobName, list[JobName]]) -> None:
    cycle = find_cycle(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        assert cycle is not None
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(after in graph[name] for name, after in pairwise(cycle))
    else:
        assert cycle is None
        order = in_order(graph)
        assert sorted(order) == sorted(graph)
        for name, others in graph.items():
            assert all(order.index(each) < order.index(name) for each in others if each in graph)


class Ordered(System):
    """A job of several; `may_start` is whether it was allowed to since it was last asked to start."""

    def __init__(self, jobs: "Jobs", name: str, **config: Any) -> None:
        super().__init__(name, **config)
        self.jobs = jobs
        self.may_start = not self.job.config.after
        self.was_active = self.was_drained = False

    def after_event(self, event: ev.Event) -> None:
        if (self.job.active and not self.was_active) or (self.was_drained and not self.job.drained):
            self.may_start = not self.job.config.after
        self.was_active, self.was_drained = self.job.active, self.job.drained
        if event == GO_ON:
            assert self.jobs.allow(self.job)
            self.may_start = True
        assert not any(isinstance(each, ev.Spawn) for each in self.queue) or self.may_start
        self.jobs.ordering.changed(self.job)


class Jobs:
    """Several jobs in their order, which carries out each event before the next one."""

    def __init__(self) -> None:
        self.table = JobTable()
        self.ordering = Ordering(self.table, lambda job, event: self.systems[job.name.name].tell(event))
        self.systems: dict[str, Ordered] = {}

    def load(self, name: str, **config: Any) -> Ordered:
        system = self.systems[name] = Ordered(self, name, **config)
        self.table.add(system.job)
        self.ordering.changed(system.job)
        return system

    def allow(self, job: Job) -> bool:
        """Whether all that `job` comes after is as it has to be."""
        return all(self.is_met(each.job, each.condition) for each in dependencies(job.config.after, "s"))

    def is_met(self, name: JobName, condition: Condition) -> bool:
        job = self.systems[name.name].job
        states = [slot.state for slot in job.slots.values() if slot.index <= job.target]
        if job.phase is Phase.COMPLETED:
            return True
        if condition is Condition.COMPLETED or not job.active or not states:
            return False
        if condition is Condition.STARTED:
            return all(state in ALIVE for state in states)
        return job.config.kind != "once" and all(state is SlotState.READY for state in states)

    def settle(self) -> None:
        for _ in range(20):
            before = [len(system.published) for system in self.systems.values()]
            for system in self.systems.values():
                system.settle()
            if before == [len(system.published) for system in self.systems.values()]:
                return
        raise AssertionError("they never settle")


def shop() -> Jobs:
    """A web server after a database, which is to be migrated first; a worker is replaced with the database."""
    jobs = Jobs()
    jobs.load("db", ready="tcp:80")
    jobs.load("migrate", kind="once", after=["db"])
    jobs.load("web", after=["migrate:completed", "db:started"], numprocesses=2)
    jobs.load("worker", after=["db:restart"])
    return jobs


def running(jobs: Jobs) -> list[str]:
    return [name for name, system in jobs.systems.items() if system.job.pids()]


def test_jobs_start_when_those_they_come_after_allow_it() -> None:
    jobs = shop()
    for name in ("worker", "web", "migrate", "db"):
        jobs.systems[name].tell(START)
    assert running(jobs) == ["db"]
    assert (
        jobs.systems["web"].job.reason
        == "waiting for s.migrate to complete: it is waiting (waiting for s.db to be ready: it is starting)"
    )
    jobs.systems["db"].probe(1, good=True)
    assert running(jobs) == ["db", "migrate", "worker"]
    jobs.systems["migrate"].die()
    assert running(jobs) == ["db", "web", "worker"]


def test_a_crash_of_what_it_came_after_leaves_a_job_alone() -> None:
    jobs = shop()
    for system in jobs.systems.values():
        system.tell(START)
    jobs.systems["db"].probe(1, good=True)
    jobs.systems["migrate"].die()
    jobs.systems["db"].tell(STOP)
    jobs.systems["db"].settle()
    jobs.systems["web"].die(1)
    assert jobs.systems["web"].job.pids() == [2, 3]


def test_a_job_is_restarted_when_what_it_follows_was_replaced_and_is_ready() -> None:
    jobs = shop()
    for system in jobs.systems.values():
        system.tell(START)
    db, worker = jobs.systems["db"], jobs.systems["worker"]
    db.probe(1, good=True)
    for pid, restarted in enumerate([False, True], start=1):
        if restarted:
            db.tell(ev.RestartRequested())
        db.die(pid)
        assert worker.published.count("restart") == pid - 1, "it is not ready yet"
        db.probe(pid + 1, good=True)
        assert worker.published.count("restart") == pid
        worker.settle()
        db.probe(pid + 1, good=False)
        db.probe(pid + 1, good=True)
        assert worker.published.count("restart") == pid, "the same process became ready again"
    jobs.settle()
    assert worker.job.pids() == [3]
    assert jobs.systems["web"].published.count("restart") == 0


@pytest.mark.parametrize("event", [ev.NodeDrained(True), ev.ManagerStopping()])
def test_jobs_end_in_reverse_order(event: ev.Event) -> None:
    jobs = shop()
    for system in jobs.systems.values():
        system.tell(START)
    jobs.systems["db"].probe(1, good=True)
    jobs.systems["migrate"].die()
    db, web, worker = (jobs.systems[name] for name in ("db", "web", "worker"))

    def gone(job: Job) -> bool:
        return job.empty and (job.drained or job.gone)

    jobs.ordering.end(jobs.table.all()[::-1], event, gone)
    assert (bool(web.signals), bool(worker.signals), bool(db.signals)) == (True, True, False)
    web.settle()
    assert not db.signals, "the worker still runs"
    worker.settle()
    assert db.signals


def test_jobs_in_a_cycle_end_one_after_the_other() -> None:
    jobs = Jobs()
    a, b, c = jobs.load("a"), jobs.load("b", after=["a"]), jobs.load("c", after=["b"])
    for system in (a, b, c):
        system.tell(START)
        system.advance(5.0)
    a.tell(ev.ConfigChanged(a.job.config.replace(after=["c"])))
    jobs.ordering.end(jobs.table.all()[::-1], ev.ManagerStopping(), lambda job: job.gone)
    jobs.settle()
    assert all(system.job.gone for system in (a, b, c))


AFTER: dict[str, list[list[str]]] = {
    "db": [[]],
    "cache": [[], ["db"], ["db:started"]],
    "migrate": [["db"], ["db", "cache:restart"]],
    "web": [["migrate:completed"], ["db:restart", "cache"], ["cache:started", "migrate"]],
    "worker": [["web:started", "db"], ["migrate", "cache:restart"]],
}


class AnyJobs(RuleBasedStateMachine):
    """Jobs that come after each other, with any events in any order."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.jobs = Jobs()
        for name, choices in AFTER.items():
            kind = "once" if name == "migrate" else "service"
            ready = data.draw(st.sampled_from([None, "notify"]))
            startsecs = data.draw(st.sampled_from([0.0, 1.0]))
            after = data.draw(st.sampled_from(choices))
            self.jobs.load(name, after=after, kind=kind, ready=ready, startsecs=startsecs, backoff=0, numprocesses=2)
        assert find_cycle(self.graph()) is None

    def graph(self) -> dict[JobName, Iterable[JobName]]:
        jobs = [system.job for system in self.jobs.systems.values()]
        return {job.name: [each.job for each in dependencies(job.config.after, "s")] for job in jobs}

    def system(self, number: int) -> Ordered:
        return [*self.jobs.systems.values()][number]

    @rule()
    def start_all(self) -> None:
        for system in [*self.jobs.systems.values()][::-1]:
            system.tell(START)

    @rule(number=st.integers(0, 4), event=st.sampled_from([START, STOP, ev.RestartRequested(rolling=True)]))
    def order(self, number: int, event: ev.Event) -> None:
        self.system(number).tell(event)

    @rule(drained=st.booleans())
    def drain(self, drained: bool) -> None:
        if drained:
            jobs = self.jobs.table.all()[::-1]
            self.jobs.ordering.end(jobs, ev.NodeDrained(True), lambda job: job.drained and job.empty)
        else:
            for system in self.jobs.systems.values():
                system.tell(ev.NodeDrained(False))

    @rule(number=st.integers(0, 4), count=st.integers(0, 2))
    def scale(self, number: int, count: int) -> None:
        self.system(number).tell(ev.Scaled(count))

    @rule(number=st.integers(0, 4), index=st.integers(0, 3), code=st.sampled_from([0, 1]))
    def process_ends(self, number: int, index: int, code: int) -> None:
        system = self.system(number)
        for pid in sorted(system.alive)[index : index + 1]:
            system.die(pid, code=code)

    @rule(number=st.integers(0, 4), good=st.booleans())
    def probe(self, number: int, good: bool) -> None:
        system = self.system(number)
        for pid in sorted(system.probes):
            system.probe(pid, good)

    @rule(seconds=st.floats(0.01, 5))
    def time_passes(self, seconds: float) -> None:
        for system in self.jobs.systems.values():
            system.advance(seconds)

    @invariant()
    def each_job_is_in_order(self) -> None:
        for system in self.jobs.systems.values():
            system.check()
            assert not (system.job.gated and self.jobs.allow(system.job)), "it waits for nothing"

    def teardown(self) -> None:
        if not hasattr(self, "jobs"):
            return
        for system in self.jobs.systems.values():
            system.tell(ev.NodeDrained(False), START, ev.Scaled(2))
        self.jobs.settle()
        migrate = self.jobs.systems["migrate"]
        for _ in range(5):  # one of its processes may have failed before, or is being replaced
            migrate.die()
            if migrate.job.phase is Phase.FAILED:
                migrate.tell(START)
            self.jobs.settle()
        self.jobs.settle()
        for system in self.jobs.systems.values():
            assert not system.job.gated
            assert system.job.phase is Phase.COMPLETED or system.job.all_ready


TestAnyJobs = AnyJobs.TestCase
TestAnyJobs.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
