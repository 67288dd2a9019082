"""Gradual replacement: rolling restarts and updates, rollbacks, and recycling."""

from typing import Any
from unittest.mock import ANY

import pytest

from gaffer.jobs import events as ev
from gaffer.jobs.job import Job
from gaffer.jobs.rollout import RolloutKind, RolloutState, replaceable
from gaffer.jobs.slot import Slot, SlotState
from gaffer.jobs.states import JobState
from support.job_steps import (
    START,
    Story,
    commit,
    dies,
    drained,
    empties,
    ends,
    exits,
    job_of,
    retire,
    started,
    starts,
    stopped,
    terminate,
    timer,
    up,
)
from support.job_system import System
from support.playbook import nothing, play, wait

pytestmark = pytest.mark.pure

ON_CONNECTION = {"start": "on-connection", "socket": ["tcp:127.0.0.1:0"]}
ROLLING = ev.RestartRequested(rolling=True)


def rolls(book: Story, processes: int) -> Story:
    """A rolling restart of `processes` is requested."""
    data = {"rollout": "restart", "processes": processes}
    return book >> ROLLING << ev.Publish("restart") << ev.Publish("rollout", data=data)


def done(book: Story, replaced: int, kind: str = "restart") -> Story:
    return book << ev.Publish("rollout_done", data={"rollout": kind, "replaced": replaced})


def halted(book: Story, why: str, kind: str = "restart") -> Story:
    return book << ev.Publish("rollout_failed", data={"rollout": kind, "reason": why})


def spawned(book: Story, pid: int) -> Story:
    """The process `pid` runs, and is ready later."""
    return up(book, pid, startsecs=1.0)


def ready(book: Story, pid: int) -> Story:
    return book >> wait(1.0) >> timer("ready", pid) << ev.Publish("ready", pid)


def all_ready(job: Job) -> Story:
    """`job`, with a `startsecs` of a second, was started and is ready."""
    book = started(job)
    for pid in range(1, job.target + 1):
        book = book >> timer("ready", pid) << ev.Publish("ready", pid)
    return book


def outcome(job: Job) -> tuple[RolloutKind, RolloutState, int, int, str]:
    assert job.rollout is not None
    return job.rollout.kind, job.rollout.state, job.rollout.replaced, job.rollout.total, job.rollout.reason


@pytest.mark.parametrize(
    ("states", "target", "max_unavailable", "surge", "chosen"),
    [
        ("OOO", 3, 1, 0, [1]),
        ("OOO", 3, 2, 0, [1, 2]),
        ("OOO", 3, 5, 0, [1, 2, 3]),
        ("OO.", 3, 1, 0, []),  # one is not ready already
        ("OO.", 3, 2, 0, [1]),
        ("Oo.", 3, 1, 0, [2]),  # what does not serve is replaced whatever the others do
        ("oo.", 3, 1, 0, [1, 2]),
        ("ROR", 3, 1, 0, [2]),
        ("RRR", 3, 1, 0, []),
        ("OOO.", 3, 1, 1, []),  # the additional one is not ready yet
        ("OOOR", 3, 1, 1, [1]),
        ("OOOR", 3, 2, 1, [1]),
        (".OOR", 3, 1, 1, []),
        ("OOOO", 2, 1, 0, [1, 2, 3]),
        ("O", 1, 1, 0, [1]),
        ("O", 1, 1, 1, []),
        ("", 0, 1, 0, []),
    ],
)
def test_what_can_be_replaced_now(
    states: str, target: int, max_unavailable: int, surge: int, chosen: list[int]
) -> None:
    """O: outdated and ready; o: outdated, not ready; R: ready; a dot: neither."""
    slots = [
        Slot(index, SlotState.READY if each in "OR" else SlotState.STARTING, outdated=each in "Oo")
        for index, each in enumerate(states, start=1)
    ]
    assert sorted(slot.index for slot in replaceable(slots, target, max_unavailable, surge)) == chosen


def test_a_rolling_restart_replaces_one_process_when_the_one_before_is_ready() -> None:
    job = job_of(numprocesses=3, startsecs=1.0)
    book = rolls(all_ready(job), 3)
    for old in (1, 2, 3):
        new = old + 3
        book = ends(book << retire(old), old) << ev.Spawn(new, slot=old)
        assert outcome(job) == (RolloutKind.RESTART, RolloutState.RUNNING, old, 3, "")
        assert job.exits[0].reason == "restart"
        book = ready(spawned(book, new), new)
    assert done(book, 3)
    assert outcome(job) == (RolloutKind.RESTART, RolloutState.DONE, 3, 3, "")
    assert (job.pids(), job.restarts, job.all_ready, job.renewals) == ([4, 5, 6], 3, True, 4)


def test_max_unavailable_processes_are_replaced_at_a_time() -> None:
    job = job_of(numprocesses=3, startsecs=1.0, max_unavailable=2)
    book = rolls(all_ready(job), 3) << retire(1, 2)
    book = ends(ends(book, 2) << ev.Spawn(4, 2), 1) << ev.Spawn(5, 1)
    book = ready(spawned(spawned(book, 4), 5), 5) << retire(3)
    book = ends(book, 3) << ev.Spawn(6, 3)
    book = ready(spawned(book, 6), 6)
    assert done(book >> timer("ready", 4) << ev.Publish("ready", 4), 3)


def test_a_rolling_restart_drains_each_process_first() -> None:
    book = rolls(started(job_of(numprocesses=2, drain_timeout=5.0)), 2)
    for old in (1, 2):
        book = book << ev.Publish("stop_pid", old) << ev.SetTimer(("drain", old), 5.0)
        book = ends(book >> timer("drain", old) << drained(old), old) << ev.Spawn(old + 2, old)
        book = up(book, old + 2)
    assert done(book, 2)


def test_a_surge_starts_an_additional_process_first_and_ends_it_last() -> None:
    job = job_of(numprocesses=2, startsecs=1.0, surge=1)
    book = spawned(rolls(all_ready(job), 2) << ev.Spawn(3, slot=3), 3)
    assert job.pids() == [1, 2, 3], "nothing is stopped before it is ready"
    book = ends(ready(book, 3) << retire(1), 1) << ev.Spawn(4, 1)
    book = ends(ready(spawned(book, 4), 4) << retire(2), 2) << ev.Spawn(5, 2)
    book = done(ready(spawned(book, 5), 5), 2) << retire(3, kind="reap")
    assert ends(book, 3) << nothing
    assert (job.pids(), len(job.slots)) == ([4, 5], 2)


def test_a_surge_needs_no_process_when_none_is_to_be_replaced() -> None:
    job = job_of(surge=1, after=["db"])
    book = starts(play(job)) >> ROLLING << ev.Publish("restart") << ANY << nothing
    book = up(book >> ev.DependencyChanged(None) << ev.Spawn(1, 1), 1)
    assert done(book, 0)


def test_a_crash_of_an_old_process_is_mended_with_a_new_one_and_the_rollout_goes_on() -> None:
    job = job_of(numprocesses=3, startsecs=1.0, backoff=0)
    book = ends(rolls(all_ready(job), 3) << retire(1), 1) << ev.Spawn(4, 1)
    book = ready(spawned(dies(spawned(book, 4), 2, 3) << ev.Spawn(5, 2), 5), 5)
    assert outcome(job)[1:4] == (RolloutState.RUNNING, 2, 3), "the first new process is not ready yet"
    book = book >> timer("ready", 4) << ev.Publish("ready", 4) << retire(3)
    assert done(ready(spawned(ends(book, 3) << ev.Spawn(6, 3), 6), 6), 3)
    assert job.exits[1].reason == "exited"


@pytest.mark.parametrize("how", ["exits", "not started", "not ready in time"])
def test_a_new_process_that_fails_stops_the_rollout(how: str) -> None:
    job = job_of(numprocesses=2, startsecs=1.0, ready="tcp:80" if how == "not ready in time" else None)
    system = System(numprocesses=2, startsecs=1.0, ready=job.config.ready)
    system.tell(START)
    system.settle()
    system.tell(ROLLING)
    if how == "not started":
        system.broken = True
    system.die(1)
    if how == "exits":
        system.die(3)
    if how == "not ready in time":
        system.advance(60.0)
    rollout = system.job.rollout
    assert rollout is not None
    assert (rollout.state, rollout.replaced) == (RolloutState.FAILED, 1)
    reasons = {
        "exits": "the last process exited with 0 after 0.0 s",
        "not started": "program_not_found: none",
        "not ready in time": "process 3 did not become ready within 60 s: no answer",
    }
    assert rollout.reason == reasons[how]
    assert "rollout_failed" in system.published
    system.broken = False
    system.settle()
    assert system.job.pids()[0] == 2, "the other old process goes on"
    assert len(system.job.pids()) == 2, "the new one is tried again"
    assert rollout.state is RolloutState.FAILED
    assert "rollout_done" not in system.published


def test_a_rollout_that_stopped_ends_its_additional_process() -> None:
    job = job_of(numprocesses=2, startsecs=1.0, surge=1, backoff=0)
    book = spawned(rolls(all_ready(job), 2) << ev.Spawn(3, slot=3), 3)
    book = exits(book, 3, 1) << ev.CancelTimer(("ready", 3)) << terminate(3)
    book = halted(book, "the last process exited with 1 after 0.0 s")
    assert empties(book, 3) << nothing
    assert (job.pids(), len(job.slots)) == ([1, 2], 2)


def test_recycling_after_a_rollout_that_stopped_replaces_only_what_exceeds_a_limit() -> None:
    job = job_of(numprocesses=3, startsecs=1.0, backoff=0)
    book = spawned(ends(rolls(all_ready(job), 3) << retire(1), 1) << ev.Spawn(4, 1), 4)
    book = halted(exits(book, 4, 1) << ev.CancelTimer(("ready", 4)) << terminate(4), ANY)
    book = ready(spawned(empties(book, 4) << ev.Spawn(5, 1), 5), 5)
    book = book >> ev.LimitExceeded(3, "max_memory", "much") << ev.Publish("limit_exceeded", 3, ANY) << retire(3)
    assert done(ready(spawned(ends(book, 3) << ev.Spawn(6, 3), 6), 6), 1, "recycle")
    assert job.pids() == [2, 5, 6]


def test_a_new_process_that_was_ready_and_ends_does_not_stop_the_rollout() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = ready(spawned(ends(rolls(all_ready(job), 2) << retire(1), 1) << ev.Spawn(3, 1), 3), 3)
    book = dies(book << retire(2), 3, 1) << ev.Spawn(4, 1)
    book = ready(spawned(ends(spawned(book, 4), 2) << ev.Spawn(5, 2), 5), 5)
    assert done(book >> timer("ready", 4) << ev.Publish("ready", 4), 2)


def test_a_stop_ends_a_rollout() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = stopped(rolls(all_ready(job), 2) << retire(1), 2)
    assert job.rollout is None
    assert ends(ends(book, 1), 2) << nothing
    assert job.state is JobState.STOPPED
    assert spawned(spawned(starts(book) << ev.Spawn(3, 1) << ev.Spawn(4, 2), 3), 4)
    assert job.rollout is None


def test_a_further_rolling_restart_replaces_the_one_before() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = ends(rolls(all_ready(job), 2) << retire(1), 1) << ev.Spawn(3, 1)
    book = rolls(spawned(book, 3), 2) << retire(3)[:1] << ev.CancelTimer(("ready", 3)) << terminate(3)
    assert outcome(job) == (RolloutKind.RESTART, RolloutState.RUNNING, 1, 2, "")
    book = ready(spawned(ends(book, 3) << ev.Spawn(4, 1), 4), 4) << retire(2)
    book = ready(spawned(ends(book, 2) << ev.Spawn(5, 2), 5), 5)
    assert done(book, 2)


def test_a_restart_of_all_processes_ends_a_rolling_one() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = rolls(all_ready(job), 2) << retire(1) >> ev.RestartRequested() << ev.Publish("restart") << retire(2)
    assert job.rollout is None
    assert ends(ends(book, 1) << ev.Spawn(3, 1), 2) << ev.Spawn(4, 2)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_number_of_processes_may_change_during_a_rolling_restart(count: int) -> None:
    system = System(numprocesses=3, startsecs=1.0, surge=1)
    system.tell(START)
    system.settle()
    system.tell(ROLLING)
    system.tell(ev.Scaled(count))
    system.settle()
    assert system.job.rollout is not None
    assert system.job.rollout.state is RolloutState.DONE
    pids = system.job.pids()
    assert (len(pids), sorted(system.alive.values())) == (count, [*range(1, count + 1)])
    assert min(pids) > 3, "no old process is left"


def test_processes_of_a_larger_number_are_ready_before_the_next_is_replaced() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = ends(rolls(all_ready(job), 2) << retire(1), 1) << ev.Spawn(3, 1)
    book = spawned(book, 3) >> ev.Scaled(3) << ev.Publish("update") << ev.Spawn(4, 3)
    assert ready(spawned(book, 4), 3) << nothing
    assert book >> timer("ready", 4) << ev.Publish("ready", 4) << retire(2)


def test_a_process_that_waits_for_its_next_start_is_started_at_once() -> None:
    job = job_of(startsecs=1.0)
    book = dies(started(job), 1, 3, early=True) << ev.SetTimer(("backoff", 1), 0.1)
    book = rolls(book, 1) << ev.CancelTimer(("backoff", 1)) << ev.Spawn(2, 1)
    assert done(ready(spawned(book, 2), 2), 1)


def test_a_rolling_restart_leaves_committed_processes_alone() -> None:
    book = commit(started(job_of()), 7, 0)
    book = ends(rolls(book, 1) << retire(1), 1) << ev.Spawn(2, 1)
    assert done(up(book, 2), 1)


@pytest.mark.parametrize("before", [[], [ev.StopRequested()], [START, ev.NodeDrained(True)]])
def test_without_processes_a_rolling_restart_has_nothing_to_do(before: list[ev.Event]) -> None:
    system = System()
    system.tell(*before, ROLLING)
    assert system.job.rollout is None
    assert "rollout" not in system.published


def test_the_return_from_draining_continues_no_rollout() -> None:
    job = job_of(numprocesses=2)
    book = rolls(started(job), 2) << retire(1) >> ev.NodeDrained(True) << retire(2)
    assert job.rollout is None
    book = ends(ends(book, 2), 1) >> ev.NodeDrained(False) << ev.Spawn(3, 1) << ev.Spawn(4, 2)
    assert up(book, 3, 4)


# Updates and rollbacks


def update(job: Job, rolling: bool = True, **changes: Any) -> ev.ConfigChanged:
    return ev.ConfigChanged(job.config.replace(**changes), rolling=rolling)


def rolled_out(book: Story, processes: int, kind: str = "update") -> Story:
    return book << ev.Publish("update") << ev.Publish("rollout", data={"rollout": kind, "processes": processes})


@pytest.mark.parametrize(
    ("config", "rolling", "gradual"),
    [({}, False, False), ({}, True, True), ({"surge": 1}, False, True), ({"auto_rollback": True}, False, True)],
)
def test_an_update_is_gradual_if_it_is_asked_for_or_configured(
    config: dict[str, Any], rolling: bool, gradual: bool
) -> None:
    system = System(numprocesses=2)
    system.tell(START)
    system.tell(update(system.job, rolling, cmd="false", **config))
    stopping = [pid for pid in system.alive if system.state(pid) is SlotState.STOPPING]
    assert stopping == ([1] if gradual else [1, 2])
    system.settle()
    assert {slot.config for slot in system.job.slots.values() if slot.config is not system.job.config} == set()


def test_an_update_of_live_settings_replaces_nothing() -> None:
    job = job_of()
    assert started(job) >> update(job, graceful_timeout=3) << ev.Publish("update")
    assert job.rollout is None
    assert job.definitions.generation == 2


def test_an_update_that_does_not_become_ready_is_rolled_back_and_only_new_processes_are_replaced() -> None:
    job = job_of(numprocesses=3, startsecs=1.0, auto_rollback=True, backoff=0)
    old = job.config
    book = rolled_out(all_ready(job) >> update(job, cmd="false"), 3)
    book = spawned(ends(book << retire(1), 1) << ev.Spawn(4, 1), 4)
    assert job.exits[0].reason == "update"
    why = "the last process exited with 1 after 0.0 s"
    book = exits(book, 4, 1) << ev.CancelTimer(("ready", 4)) << terminate(4)
    book = rolled_out(halted(book, why, "update"), 0, "rollback")
    assert (job.config, job.definitions.generation) == (old, 3)
    book = ready(spawned(empties(book, 4) << ev.Spawn(5, 1), 5), 5)
    assert done(book, 0, "rollback")
    assert job.pids() == [2, 3, 5], "the old processes go on"


def test_what_was_updated_already_is_taken_back() -> None:
    job = job_of(numprocesses=3, startsecs=1.0, auto_rollback=True, backoff=0)
    book = rolled_out(all_ready(job) >> update(job, cmd="false"), 3)
    book = ready(spawned(ends(book << retire(1), 1) << ev.Spawn(4, 1), 4), 4)
    book = spawned(ends(book << retire(2), 2) << ev.Spawn(5, 2), 5)
    book = exits(book, 5, 1) << ev.CancelTimer(("ready", 5)) << terminate(5)
    book = rolled_out(halted(book, ANY, "update"), 1, "rollback") << nothing
    book = ready(spawned(empties(book, 5) << ev.Spawn(6, 2), 6), 6) << retire(4)
    book = ready(spawned(ends(book, 4) << ev.Spawn(7, 1), 7), 7)
    assert done(book, 1, "rollback")
    assert job.pids() == [3, 6, 7]


def test_a_rollback_that_fails_is_not_rolled_back() -> None:
    job = job_of(startsecs=1.0, auto_rollback=True)
    old = job.config
    system = System(startsecs=1.0, auto_rollback=True)
    system.tell(START)
    system.settle()
    system.broken = True
    system.tell(update(system.job, cmd="false"))
    system.die(1)
    assert system.published.count("rollout_failed") == 1
    assert system.job.config == old
    for _ in range(5):
        system.advance(30.0)
    assert system.published.count("rollout_failed") == 2
    assert outcome(system.job)[:2] == (RolloutKind.ROLLBACK, RolloutState.FAILED)
    assert system.job.definitions.generation == 3


@pytest.mark.parametrize("further", [{"priority": 1}, {"cmd": "missing"}])
def test_a_rollback_returns_to_the_last_definition_that_was_ready(further: dict[str, Any]) -> None:
    system = System(startsecs=1.0, auto_rollback=True, numprocesses=2)
    old = system.job.config
    system.tell(START)
    system.settle()
    system.tell(update(system.job, cmd="false"), update(system.job, **{"cmd": "false", **further}))
    system.broken = True
    system.die(1)
    assert outcome(system.job)[:2] == (RolloutKind.ROLLBACK, RolloutState.RUNNING)
    assert (system.job.config, system.job.definitions.generation) == (old, 4)
    system.broken = False
    system.settle()
    assert system.job.rollout is not None
    assert system.job.rollout.state is RolloutState.DONE
    assert 2 in system.job.pids()


def test_without_auto_rollback_an_update_that_fails_stops_there() -> None:
    job = job_of(numprocesses=2, startsecs=1.0, backoff=0)
    book = rolled_out(all_ready(job) >> update(job, cmd="false"), 2)
    book = spawned(ends(book << retire(1), 1) << ev.Spawn(3, 1), 3)
    book = halted(exits(book, 3, 1) << ev.CancelTimer(("ready", 3)) << terminate(3), ANY, "update")
    assert ready(spawned(empties(book, 3) << ev.Spawn(4, 1), 4), 4) << nothing
    assert (job.config.cmd, job.pids(), job.definitions.generation) == ("false", [2, 4], 2)


def test_a_rolling_restart_that_fails_is_not_rolled_back() -> None:
    system = System(startsecs=1.0, auto_rollback=True)
    system.tell(START, ev.ConfigChanged(system.job.config.replace(priority=1)))
    system.settle()
    system.broken = True
    system.tell(ROLLING)
    system.die(1)
    assert outcome(system.job)[:2] == (RolloutKind.RESTART, RolloutState.FAILED)
    assert system.job.config.priority == 1


def test_a_first_definition_that_fails_has_nothing_to_go_back_to() -> None:
    job = job_of(auto_rollback=True)
    assert dies(started(job), 1, 1) << ev.Spawn(2, 1) >> ev.RollbackRequested() << nothing
    assert job.definitions.generation == 1


@pytest.mark.parametrize("config", [{"kind": "once"}, {"restart": "on-failure"}, ON_CONNECTION])
def test_a_new_process_that_has_done_its_work_fails_no_rollout(config: dict[str, Any]) -> None:
    system = System(startsecs=1.0, **config)
    system.tell(START, ev.ConnectionWaiting())
    system.settle()
    system.tell(ROLLING)
    system.die(1)
    assert sorted(system.alive) == [2]
    system.die(2)
    assert "rollout_failed" not in system.published
    assert system.job.rollout is None or not system.job.rollout.running


def test_a_rollback_returns_to_a_generation_as_a_new_one() -> None:
    job = job_of()
    first = job.config
    book = started(job)
    for pid, cmd in ((1, "two"), (2, "three")):
        book = book >> update(job, rolling=False, cmd=cmd) << ev.Publish("update") << retire(pid)
        book = up(ends(book, pid) << ev.Spawn(pid + 1, 1), pid + 1)
    assert book >> ev.RollbackRequested(9) << nothing
    book = rolled_out(book >> ev.RollbackRequested(1), 1, "rollback") << retire(3)
    assert (job.config, job.definitions.generation) == (first, 4)
    book = done(up(ends(book, 3) << ev.Spawn(4, 1), 4), 1, "rollback")
    assert job.exits[0].reason == "rollback"
    assert rolled_out(book >> ev.RollbackRequested(), 1, "rollback") << retire(4)
    assert (job.config.cmd, job.definitions.generation) == ("three", 5)


def test_a_rollback_changes_also_the_number_of_processes_and_needs_no_processes() -> None:
    job = job_of(numprocesses=2)
    book = started(job) >> update(job, numprocesses=1) << ev.Publish("update") << retire(2, kind="reap")
    book = ends(book, 2) >> ev.RollbackRequested() << ev.Publish("update") << ev.Spawn(3, 2)
    assert up(book, 3)
    assert ends(ends(stopped(book, 3, 1), 1), 3) >> ev.RollbackRequested() << ev.Publish("update")
    assert (job.target, job.pids(), job.definitions.generation) == (1, [], 4)


# Limits and lifetimes


def test_a_process_that_exceeds_a_limit_is_replaced_when_the_others_allow_it() -> None:
    job = job_of(numprocesses=2, startsecs=1.0, drain_timeout=2.0)
    book = all_ready(job)
    for pid in (2, 1):
        limit = {"reason": "max_memory", "message": "70M of 64M"}
        book = book >> ev.LimitExceeded(pid, "max_memory", "70M of 64M") << ev.Publish("limit_exceeded", pid, limit)
        if pid == 2:
            book = book << ev.Publish("stop_pid", 2) << ev.SetTimer(("drain", 2), 2.0)
    book = ends(book >> timer("drain", 2) << drained(2), 2) << ev.Spawn(3, 2)
    assert job.exits[0].reason == "max_memory"
    assert outcome(job) == (RolloutKind.RECYCLE, RolloutState.RUNNING, 1, 2, "")
    book = ready(spawned(book, 3), 3) << ev.Publish("stop_pid", 1) << ev.SetTimer(("drain", 1), 2.0)
    book = ends(book >> timer("drain", 1) << drained(1), 1) << ev.Spawn(4, 1)
    assert done(ready(spawned(book, 4), 4), 2, "recycle")


def test_a_limit_that_is_exceeded_again_means_nothing_more() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = (
        all_ready(job) >> ev.LimitExceeded(1, "max_memory", "much") << ev.Publish("limit_exceeded", 1, ANY) << retire(1)
    )
    book = book >> ev.LimitExceeded(2, "max_memory", "much") << ev.Publish("limit_exceeded", 2, ANY)
    assert book >> ev.LimitExceeded(2, "max_memory", "more") << nothing >> timer("lifetime", 2) << nothing
    assert outcome(job) == (RolloutKind.RECYCLE, RolloutState.RUNNING, 1, 2, "")


def test_recycling_goes_on_after_a_new_process_that_fails() -> None:
    system = System(numprocesses=3, startsecs=1.0, max_lifetime=100.0, auto_rollback=True)
    system.tell(START)
    system.settle()
    system.broken = True
    system.advance(100.0)
    system.die(1)
    system.advance(60.0)
    assert system.job.pids() == [2, 3], "they go on while there is no new process"
    system.broken = False
    system.settle()
    assert min(system.job.pids()) > 3
    assert len(system.job.pids()) == 3
    assert "rollout_failed" not in system.published
    assert "rollout_done" in system.published


def test_a_process_is_replaced_at_the_end_of_its_life_which_differs_by_up_to_a_tenth() -> None:
    job = job_of(max_lifetime=100.0)
    book = starts(play(job)) << ev.Spawn(1, 1) >> ev.Spawned(1, 1001) << ev.SetTimer(("lifetime", 1), 95.0)
    book = book << ev.Publish("spawn", 1, {"os_pid": 1001}) << ev.Publish("ready", 1)
    book = book >> timer("lifetime", 1) << ev.Publish("stop_pid", 1)
    book = ends(book << ev.CancelTimer(("lifetime", 1)) << terminate(1), 1) << ev.Spawn(2, 1)
    assert job.exits[0].reason == "max_lifetime"
    assert book >> timer("lifetime", 1) << nothing


def test_a_new_lifetime_counts_from_the_start_of_the_processes_that_run() -> None:
    job = job_of()
    book = started(job) >> wait(30.0) >> update(job, max_lifetime=100.0, rolling=False) << ev.Publish("update")
    book = book << ev.SetTimer(("lifetime", 1), 65.0)
    book = book >> wait(30.0) >> update(job, max_lifetime=50.0, rolling=False) << ev.Publish("update")
    book = book << ev.SetTimer(("lifetime", 1), 0.0)
    book = book >> update(job, max_lifetime=0.0, rolling=False) << ev.Publish("update")
    assert book << ev.CancelTimer(("lifetime", 1))
    assert book >> ev.ProcessStopRequested(1) << retire(1)


@pytest.mark.parametrize(("rand", "delay"), [(0.0, 100.0), (0.999999, 90.0)])
def test_the_jitter_of_a_lifetime(rand: float, delay: float) -> None:
    system = System(max_lifetime=100.0)
    system.job._rand = lambda: rand
    system.tell(START)
    assert system.timers["lifetime", 1] - system.now == pytest.approx(delay, abs=1e-3)


def test_a_limit_of_a_process_that_stops_already_means_nothing() -> None:
    book = started(job_of()) >> ev.ProcessStopRequested(1) << retire(1)
    assert book >> ev.LimitExceeded(1, "max_memory", "much") << nothing
    assert book >> ev.LimitExceeded(9, "max_memory", "much") << nothing


def test_a_committed_process_that_exceeds_a_limit_is_stopped() -> None:
    job = job_of()
    book = (
        commit(started(job), 7, 2.0)
        >> ev.LimitExceeded(7, "max_memory", "much")
        << ev.Publish("limit_exceeded", 7, ANY)
    )
    book = ends(book << ev.Publish("stop_pid", 7) << terminate(7, 2.0), 7) << nothing
    assert (job.exits[0].reason, job.rollout) == ("max_memory", None)


def test_a_limit_during_a_rolling_restart_is_part_of_it() -> None:
    job = job_of(numprocesses=3, startsecs=1.0)
    book = ready(spawned(ends(rolls(all_ready(job), 3) << retire(1), 1) << ev.Spawn(4, 1), 4), 4) << retire(2)
    book = book >> ev.LimitExceeded(4, "max_memory", "much") << ev.Publish("limit_exceeded", 4, ANY)
    assert outcome(job) == (RolloutKind.RESTART, RolloutState.RUNNING, 2, 4, "")
    assert ready(spawned(ends(book, 2) << ev.Spawn(5, 2), 5), 5) << retire(4)
