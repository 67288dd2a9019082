"""What calls for the processes of a job: a schedule, or connections to its sockets."""

from typing import Any
from unittest.mock import ANY

import pytest

from gaffer.jobs import events as ev
from gaffer.jobs.job import Job
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.states import JobState, Phase
from support.job_steps import (
    START,
    STOP,
    Story,
    dies,
    empties,
    ends,
    exits,
    job_of,
    retire,
    starts,
    stopped,
    terminate,
    timer,
    up,
)
from support.job_system import System
from support.playbook import nothing, play, wait

pytestmark = pytest.mark.pure

# Schedules


def armed(job: Job) -> Story:
    """`job`, which has a schedule, was started; no run is due yet."""
    return starts(play(job)) << ev.ArmSchedule()


def runs(book: Story, at: float, *pids: int) -> Story:
    """A run is due; its processes are `pids`, for the slots from 1."""
    book = book >> ev.ScheduleDue(at) << ev.Publish("run_started")
    return up(book << [ev.Spawn(pid, slot) for slot, pid in enumerate(pids, start=1)], *pids)


def run_ended(book: Story, success: bool) -> Story:
    return book << ev.Publish("run_ended", data={"success": success})


def skipped(book: Story, why: str) -> Story:
    return book << ev.Publish("run_skipped", data={"reason": why})


def test_a_scheduled_job_waits_for_its_run_and_runs_to_completion() -> None:
    job = job_of(every=30, numprocesses=2)
    book = armed(job)
    assert (job.state, job.reason, job.pids()) == (JobState.WAITING, "no run is due", [])
    assert book >> ev.ScheduleArmed(1.5e9) << nothing
    assert job.reason == "the next run is at 2017-07-14 02:40:00 UTC"
    book = runs(book, 1.5e9, 1, 2)
    assert (job.state, job.last_run) == (JobState.RUNNING, 1.5e9)
    book = dies(book, 1) << nothing
    assert run_ended(dies(book, 2), success=True)
    assert (job.state, job.active, job.restarts) == (JobState.WAITING, True, 0)
    assert runs(book, 1.5e9 + 30, 3, 4)
    assert job.last_run == 1.5e9 + 30


def test_a_run_fails_when_one_of_its_processes_does_and_the_next_one_is_due_all_the_same() -> None:
    job = job_of(schedule="* * * * *", numprocesses=2, essential=True)
    book = dies(runs(armed(job), 1.0, 1, 2), 2, 3) << nothing
    assert run_ended(dies(book, 1), success=False)
    assert (job.state, job.phase) == (JobState.WAITING, Phase.STARTED)
    assert run_ended(dies(dies(runs(book, 61.0, 3, 4), 3), 4), success=True)


def test_a_process_of_a_run_is_restarted_on_failure_if_wanted() -> None:
    job = job_of(every=30, restart="on-failure", max_restarts=1)
    book = runs(armed(job), 1.0, 1)
    book = up(dies(book, 1, 3) << ev.Spawn(2, 1), 2)
    assert run_ended(dies(book, 2), success=True)
    book = runs(book, 31.0, 3)
    book = up(dies(book, 3, 3) << ev.Spawn(4, 1), 4)
    why = "given up after 1 restart; the last process exited with 3 after 0.0 s"
    book = dies(book, 4, 3) << ev.CancelTimer(ev.RETRY) << ev.DisarmSchedule() << ev.Publish("failed", None, ANY)
    assert book >> ev.ScheduleDue(61.0) << nothing
    assert (job.state, job.reason) == (JobState.FAILED, why)


def test_by_default_a_run_that_is_due_during_another_one_is_skipped() -> None:
    job = job_of(every=30)
    book = skipped(runs(armed(job), 1.0, 1) >> ev.ScheduleDue(31.0), "the last run has not ended")
    assert job.last_run == 1.0
    assert run_ended(dies(book, 1), success=True) << nothing
    assert runs(book, 61.0, 2)


def test_one_run_is_queued_and_begins_when_the_one_before_has_ended() -> None:
    job = job_of(every=30, overlap="queue")
    book = runs(armed(job), 1.0, 1) >> ev.ScheduleDue(31.0) << nothing >> ev.ScheduleDue(61.0) << nothing
    book = run_ended(dies(book, 1, 3), success=False) << ev.Publish("run_started") << ev.Spawn(2, 1)
    assert job.last_run == 61.0
    assert run_ended(dies(up(book, 2), 2), success=True) << nothing
    assert runs(book, 91.0, 3)


def test_a_run_replaces_the_one_before() -> None:
    job = job_of(every=30, overlap="replace", numprocesses=2)
    book = dies(runs(armed(job), 1.0, 1, 2), 1) >> ev.ScheduleDue(31.0) << ev.Publish("run_started")
    book = up(book << retire(2) << ev.Spawn(3, 1), 3)
    assert job.last_run == 31.0
    book = up(ends(book, 2) << ev.Spawn(4, 2), 4)
    assert run_ended(dies(dies(book, 3), 4), success=True)


def test_a_stop_in_the_middle_of_a_run_ends_it_and_what_was_queued() -> None:
    job = job_of(every=30, overlap="queue")
    book = runs(armed(job), 1.0, 1) >> ev.ScheduleArmed(61.0) >> ev.ScheduleDue(31.0) << nothing
    book = book >> STOP << ev.CancelTimer(ev.RETRY) << ev.DisarmSchedule() << ev.Publish("stop") << retire(1)
    assert ends(book >> ev.ScheduleDue(61.0) << nothing, 1) << nothing
    assert (job.state, job.next_run) == (JobState.STOPPED, None)
    assert starts(book) << ev.ArmSchedule() << nothing
    assert runs(book, 91.0, 2)


def test_a_scheduled_job_can_be_stopped_between_runs() -> None:
    job = job_of(every=30)
    book = armed(job) >> STOP << ev.CancelTimer(ev.RETRY) << ev.DisarmSchedule() << ev.Publish("stop")
    assert job.state is JobState.STOPPED
    assert book >> ev.ScheduleDue(1.0) << nothing


def test_a_drained_node_skips_runs_and_continues_the_one_that_it_interrupted() -> None:
    job = job_of(every=30)
    book = skipped(armed(job) >> ev.NodeDrained(True) << nothing >> ev.ScheduleDue(1.0), "the node is drained")
    book = runs(book >> ev.NodeDrained(False) << nothing, 31.0, 1)
    book = ends(book >> ev.NodeDrained(True) << retire(1), 1) << nothing
    book = skipped(book >> ev.ScheduleDue(61.0), "the node is drained")
    assert job.state is JobState.WAITING
    book = up(book >> ev.NodeDrained(False) << ev.Spawn(2, 1), 2)
    assert run_ended(dies(book, 2), success=True)


def test_a_run_that_is_due_during_a_pause_by_flapping_is_skipped_and_says_why() -> None:
    job = job_of(every=30, flapping=FlappingInfo(attempts=1, window=1.0, retry_in=7.0))
    book = exits(runs(armed(job), 1.0, 1), 1, 3) << terminate(1) << ev.Publish("flap") << ev.SetTimer(ev.RETRY, 7.0)
    book = run_ended(empties(book, 1), success=False)
    why = "flapping: 1 exits within 1 s, retry 1 of 5 after 7 s; the last process exited with 3 after 0.0 s"
    book = skipped(book >> ev.ScheduleDue(31.0), why)
    assert job.reason == why
    book = book >> timer(*ev.RETRY) << ev.CancelTimer(ev.RETRY)
    assert runs(book, 61.0, 2)


def test_a_start_of_a_scheduled_job_that_is_started_changes_nothing() -> None:
    book = runs(armed(job_of(every=30)), 1.0, 1)
    assert starts(book) << nothing
    assert run_ended(dies(book, 1), success=True)


def test_a_run_needs_no_processes() -> None:
    job = job_of(every=30, numprocesses=0)
    book = armed(job)
    for at in (1.0, 31.0):
        book = run_ended(book >> ev.ScheduleDue(at) << ev.Publish("run_started"), success=True)
    assert book


def test_a_run_ends_with_the_last_process_that_is_still_wanted() -> None:
    job = job_of(every=30, numprocesses=2)
    book = dies(runs(armed(job), 1.0, 1, 2), 1) >> ev.Scaled(1) << ev.Publish("update")
    assert run_ended(book << retire(2, kind="reap"), success=True)


def test_successful_runs_are_no_crashes() -> None:
    system = System(every=1, flapping=FlappingInfo(attempts=2, window=60.0, retry_in=7.0), max_restarts=1)
    system.tell(START)
    for _ in range(5):
        system.tell(ev.ScheduleDue(system.now))
        system.die()
    assert system.job.phase is Phase.STARTED
    assert system.job.crash_loop(system.now) is None
    assert "flap" not in system.published


def test_a_new_schedule_is_armed_and_an_old_one_disarmed() -> None:
    job = job_of(every=30)
    book = armed(job) >> ev.ConfigChanged(job.config.replace(every=60)) << ev.Publish("update") << ev.ArmSchedule()
    book = book >> ev.ConfigChanged(job.config.replace(every=0)) << ev.Publish("update") << ev.DisarmSchedule()
    assert up(book << ev.Spawn(1, 1), 1)
    assert book >> ev.ScheduleDue(1.0) << nothing
    book = book >> ev.ConfigChanged(job.config.replace(every=5)) << ev.Publish("update") << ev.ArmSchedule()
    assert book << retire(1), "it now runs only when it is due"


def test_a_new_schedule_does_not_end_the_run() -> None:
    job = job_of(every=30, numprocesses=2)
    book = dies(runs(armed(job), 1.0, 1, 2), 1)
    book = book >> ev.ConfigChanged(job.config.replace(every=60)) << ev.Publish("update") << ev.ArmSchedule()
    assert run_ended(dies(book, 2), success=True)


def test_an_update_between_runs_holds_for_the_next_one() -> None:
    job = job_of(every=30)
    book = armed(job) >> ev.ConfigChanged(job.config.replace(cmd="false"), rolling=True) << ev.Publish("update")
    assert book << nothing
    assert job.rollout is None
    assert run_ended(dies(runs(book, 1.0, 1), 1), success=True)


def test_a_rolling_restart_ends_with_the_run() -> None:
    job = job_of(every=30, startsecs=1.0)
    book = armed(job) >> ev.ScheduleDue(1.0) << ev.Publish("run_started") << ev.Spawn(1, 1)
    book = up(book, 1, startsecs=1.0) >> timer("ready", 1) << ev.Publish("ready", 1)
    book = book >> ev.RestartRequested(rolling=True) << ev.Publish("restart") << ev.Publish("rollout", None, ANY)
    book = up(ends(book << retire(1), 1) << ev.Spawn(2, 1), 2, startsecs=1.0)
    book = run_ended(dies(book, 2, early=True), success=True)
    assert book << ev.Publish("rollout_done", data={"rollout": "restart", "replaced": 1})


# Connections

SOCKET: dict[str, Any] = {"start": "on-connection", "socket": ["tcp:127.0.0.1:0"]}


def awaits(job: Job) -> Story:
    """`job` was started and waits for a connection."""
    return starts(play(job)) << ev.AwaitConnection()


def connects(book: Story, *pids: int, idle: bool = False) -> Story:
    """A client connects; the processes `pids` start, for the slots from 1."""
    book = book >> ev.ConnectionWaiting() << ([ev.AwaitIdle()] if idle else [])
    return up(book << [ev.Spawn(pid, slot) for slot, pid in enumerate(pids, start=1)], *pids)


def test_the_first_connection_starts_the_processes() -> None:
    job = job_of(numprocesses=2, **SOCKET)
    book = awaits(job)
    assert (job.state, job.reason) == (JobState.WAITING, "waiting for a connection")
    book = connects(book, 1, 2)
    assert (job.state, job.pids()) == (JobState.RUNNING, [1, 2])
    assert book >> ev.ConnectionWaiting() << nothing


def test_a_clean_exit_awaits_the_next_connection() -> None:
    job = job_of(**SOCKET)
    book = dies(connects(awaits(job), 1), 1) << ev.Publish("went_idle") << ev.AwaitConnection()
    assert (job.state, job.reason, job.restarts) == (JobState.WAITING, "waiting for a connection", 0)
    assert connects(book, 2)
    assert job.state is JobState.RUNNING


def test_a_clean_exit_right_after_the_start_awaits_the_next_connection_after_a_pause() -> None:
    job = job_of(startsecs=1.0, backoff=0.5, **SOCKET)
    book = up(awaits(job) >> ev.ConnectionWaiting() << ev.Spawn(1, 1), 1, startsecs=1.0)
    book = dies(book, 1, early=True) << ev.Publish("went_idle") << ev.SetTimer(ev.CONNECTION, 0.5)
    assert book >> ev.TimerFired(ev.CONNECTION) << ev.AwaitConnection()
    assert stopped(book) << ev.CloseSockets() >> ev.TimerFired(ev.CONNECTION) << nothing


def test_a_new_definition_applies_to_the_sockets_that_await_a_connection() -> None:
    job = job_of(**SOCKET)
    book = awaits(job) >> ev.ConfigChanged(job.config.replace(socket=["tcp:127.0.0.1:1"])) << ev.Publish("update")
    assert book << ev.AwaitConnection()


def test_a_job_without_its_schedule_has_no_next_run() -> None:
    job = job_of(every=30)
    book = armed(job) >> ev.ScheduleArmed(61.0) << nothing
    book = book >> ev.ConfigChanged(job.config.replace(every=0)) << ev.Publish("update") << ev.DisarmSchedule()
    assert book << ev.Spawn(1, 1)
    assert job.next_run is None


@pytest.mark.parametrize("how", [(3, 0), (None, 11), (None, None)])
def test_a_crash_is_restarted(how: tuple[int | None, int | None]) -> None:
    job = job_of(**SOCKET)
    assert up(dies(connects(awaits(job), 1), 1, *how) << ev.Spawn(2, 1), 2)
    assert job.restarts == 1


def test_a_clean_exit_of_one_of_several_processes_is_replaced() -> None:
    job = job_of(numprocesses=2, **SOCKET)
    assert up(dies(connects(awaits(job), 1, 2), 1) << ev.Spawn(3, 1), 3)


def test_a_process_that_was_stopped_on_request_is_replaced() -> None:
    book = connects(awaits(job_of(**SOCKET)), 1) >> ev.ProcessStopRequested(1) << retire(1)
    assert ends(book, 1) << ev.Spawn(2, 1)


def test_idle_processes_are_stopped_until_the_next_connection() -> None:
    job = job_of(numprocesses=2, idle_timeout=5, drain_timeout=3, **SOCKET)
    book = connects(awaits(job), 1, 2, idle=True) >> ev.ConnectionsIdle() << ev.Publish("went_idle")
    for pid in (1, 2):
        book = book << ev.Publish("stop_pid", pid) << ev.SetTimer(("drain", pid), 3)
    book = book << ev.AwaitConnection() >> ev.ConnectionsIdle() << nothing
    for pid in (1, 2):
        book = exits(book, pid) << ev.CancelTimer(("drain", pid)) << terminate(pid)
        book = empties(book, pid) << nothing
    assert job.exits[0].reason == "idle"
    assert job.state is JobState.WAITING
    assert connects(book, 3, 4, idle=True)


def test_a_new_idle_timeout_applies_to_processes_that_run() -> None:
    job = job_of(idle_timeout=5, **SOCKET)
    book = awaits(job) >> ev.ConfigChanged(job.config.replace(idle_timeout=6)) << ev.Publish("update")
    book = connects(book << nothing, 1, idle=True)
    assert book >> ev.ConfigChanged(job.config.replace(idle_timeout=7)) << ev.Publish("update") << ev.AwaitIdle()


def test_a_connection_while_idle_processes_stop_starts_new_ones_afterwards() -> None:
    book = connects(awaits(job_of(idle_timeout=5, **SOCKET)), 1, idle=True)
    book = book >> ev.ConnectionsIdle() << ev.Publish("went_idle") << retire(1) << ev.AwaitConnection()
    book = book >> ev.ConnectionWaiting() << ev.AwaitIdle()
    assert up(ends(book, 1) << ev.Spawn(2, 1), 2)


@pytest.mark.parametrize("connected", [False, True])
def test_the_sockets_are_closed_when_a_job_was_stopped_and_its_processes_have_ended(connected: bool) -> None:
    job = job_of(**SOCKET)
    book = awaits(job)
    if connected:
        book = ends(stopped(connects(book, 1), 1), 1) << ev.CloseSockets()
    else:
        book = stopped(book) << ev.CloseSockets()
    assert book >> ev.ConnectionWaiting() << nothing >> ev.ConnectionsIdle() << nothing >> STOP << ANY << ANY
    assert starts(book) << ev.AwaitConnection(), "a start opens them again"


def test_the_sockets_of_a_service_stay_open_until_it_is_stopped() -> None:
    book = up(starts(play(job_of(socket=["tcp:127.0.0.1:0"]))) << ev.Spawn(1, 1), 1)
    book = up(dies(book, 1, 3) << ev.Spawn(2, 1), 2)
    book = ends(book >> ev.NodeDrained(True) << retire(2), 2) << nothing
    assert stopped(book) << ev.CloseSockets()


@pytest.mark.parametrize("event", [ev.Unloaded(), ev.ManagerStopping()])
def test_the_sockets_are_closed_when_a_job_is_gone(event: ev.Event) -> None:
    system = System(**SOCKET)
    system.tell(START, ev.ConnectionWaiting())
    assert system.sockets_open
    system.tell(event)
    assert system.sockets_open
    system.settle()
    assert not system.sockets_open


def test_sockets_that_can_not_be_opened_fail_the_job() -> None:
    job = job_of(essential=True, **SOCKET)
    book = awaits(job) >> ev.SocketsFailed("address in use") << ev.CancelTimer(ev.RETRY)
    book = book << ev.Publish("failed", data={"reason": "address in use"})
    assert book << ev.EndManager(1, "s.j is essential: address in use") << ev.CloseSockets()
    assert (job.state, job.reason) == (JobState.FAILED, "address in use")
    assert starts(book) << ev.AwaitConnection()


def test_sockets_of_a_stopped_job_fail_nothing() -> None:
    job = job_of(essential=True, **SOCKET)
    assert stopped(awaits(job)) << ev.CloseSockets() >> ev.SocketsFailed("address in use") << nothing
    assert job.state is JobState.STOPPED


def test_clean_exits_are_no_crashes() -> None:
    system = System(flapping=FlappingInfo(attempts=2, window=60.0, retry_in=7.0), max_restarts=1, **SOCKET)
    system.tell(START)
    for _ in range(5):
        system.tell(ev.ConnectionWaiting())
        system.die()
    assert system.job.reason == "waiting for a connection"
    system.tell(ev.ConnectionWaiting())
    system.die(code=1)
    assert system.job.pids() != [], "this is the first crash"


def test_a_connection_during_a_pause_by_flapping_starts_the_processes_afterwards() -> None:
    job = job_of(flapping=FlappingInfo(attempts=1, window=1.0, retry_in=7.0), numprocesses=2, **SOCKET)
    book = exits(connects(awaits(job), 1, 2), 1, 3) << terminate(1) << ev.Publish("flap")
    book = book << ev.SetTimer(ev.RETRY, 7.0) << retire(2) >> ev.ConnectionsIdle() << ev.Publish("went_idle")
    book = book << ev.AwaitConnection() >> ev.ConnectionWaiting() << nothing
    book = ends(empties(book, 1), 2) << nothing
    assert job.state is JobState.WAITING
    assert book >> wait(7.0) >> timer(*ev.RETRY) << ev.CancelTimer(ev.RETRY) << ev.Spawn(3, 1) << ev.Spawn(4, 2)


def test_a_drained_node_starts_nothing_on_connection_until_it_returns() -> None:
    job = job_of(**SOCKET)
    book = awaits(job) >> ev.NodeDrained(True) << nothing >> ev.ConnectionWaiting() << nothing
    assert (job.state, job.reason) == (JobState.WAITING, "the node is drained")
    assert up(book >> ev.NodeDrained(False) << ev.Spawn(1, 1), 1)


def test_a_job_that_becomes_a_service_starts_at_once() -> None:
    job = job_of(**SOCKET)
    book = awaits(job) >> ev.ConfigChanged(job.config.replace(start=True)) << ev.Publish("update")
    assert up(book << ev.Spawn(1, 1), 1)
    assert book >> ev.ConnectionsIdle() << nothing >> ev.ConnectionWaiting() << nothing


@pytest.mark.parametrize("settings", [{"kind": "once"}, {"every": 30.0}])
@pytest.mark.parametrize("limit", ["max_memory", "max_lifetime"])
def test_a_process_that_should_run_to_completion_fails_at_its_limits(limit: str, settings: dict[str, Any]) -> None:
    system = System(max_lifetime=10.0, **settings)
    system.tell(START, *([ev.ScheduleDue(1.0)] if "every" in settings else []))
    if limit == "max_memory":
        system.tell(ev.LimitExceeded(1, "max_memory", "too much"))
    else:
        system.advance(10.0)
    system.settle()
    assert system.count == 1, "no other process begins the work again"
    assert system.job.exits[0].reason == limit
    assert system.job.state is (JobState.WAITING if "every" in settings else JobState.FAILED)
