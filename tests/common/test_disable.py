"""Jobs that are disabled: they have no process, keep what is desired of them, and go on once they are enabled."""

from typing import Any
from unittest.mock import ANY

import pytest

from gaffer.jobs import events as ev
from gaffer.jobs.desired import Desired
from gaffer.jobs.gates import obstacle
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.ordering import Condition
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.rollout import RolloutKind
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.states import Disabled, JobState, Phase
from support.job_steps import (
    START,
    STOP,
    Story,
    commit,
    config_of,
    dies,
    drained,
    empties,
    ends,
    exits,
    job_of,
    retire,
    started,
    starts,
    terminate,
    timer,
    up,
)
from support.job_system import System
from support.playbook import nothing, play

pytestmark = pytest.mark.pure

AT = 1.5e9  # 2017-07-14 02:40:00 UTC
WHY = "disabled: disk is replaced"


def disabling(seconds: float | None = None) -> ev.DisableRequested:
    return ev.DisableRequested("disk is replaced", AT, None if seconds is None else AT + seconds, seconds)


def disabled(book: Story, seconds: float | None = None) -> Story:
    """The job is disabled, for `seconds` or until it is enabled."""
    event = disabling(seconds)
    book = book >> event << (ev.CancelTimer(ev.DISABLED) if seconds is None else ev.SetTimer(ev.DISABLED, seconds))
    return book << ev.Publish("disabled", data={"reason": event.reason, "until": event.until})


def enabled(book: Story, event: ev.Event | None = None) -> Story:
    """The job, which is started, is enabled by an order or another event."""
    book = book >> (event or ev.EnableRequested()) << ev.CancelTimer(ev.DISABLED) << ev.Publish("enabled")
    return book << ev.CancelTimer(ev.RETRY)


def left(book: Story) -> Story:
    """What is published when a disabled job is unloaded or its manager stops."""
    return book << ev.CancelTimer(ev.RETRY) << ev.CancelTimer(ev.DISABLED) << ev.Publish("stop")


def seen(job: Job) -> tuple[JobState, str | None]:
    return job.state, job.reason


# Without processes


def test_a_stopped_job_stays_stopped_when_it_is_enabled() -> None:
    job = job_of()
    book = disabled(play(job))
    assert seen(job) == (JobState.STOPPED, WHY)
    assert book >> ev.EnableRequested() << ev.CancelTimer(ev.DISABLED) << ev.Publish("enabled")
    assert seen(job) == (JobState.STOPPED, None)
    assert book >> ev.EnableRequested() << nothing, "it is enabled already"


def test_what_is_ordered_of_a_disabled_job_counts_once_it_is_enabled() -> None:
    job = job_of()
    book = starts(disabled(play(job))) << nothing
    assert seen(job) == (JobState.STOPPED, WHY)
    book = book >> ev.Scaled(2) << ev.Publish("update")
    book = book >> ev.ConfigChanged(config_of(cmd="false", numprocesses=2)) << ev.Publish("update")
    book = up(enabled(book) << ev.Spawn(1, 1) << ev.Spawn(2, 2), 1, 2)
    assert seen(job) == (JobState.RUNNING, None)
    assert job.slots[1].config == config_of(cmd="false", numprocesses=2)

    book = disabled(book) << retire(1, 2)
    book = book >> STOP << ev.CancelTimer(ev.RETRY) << ev.Publish("stop")
    book = ends(ends(book, 1) << nothing, 2) << nothing
    assert book >> ev.EnableRequested() << ev.CancelTimer(ev.DISABLED) << ev.Publish("enabled")
    assert seen(job) == (JobState.STOPPED, None)


@pytest.mark.parametrize(("code", "state"), [(0, JobState.COMPLETED), (3, JobState.FAILED)])
def test_a_job_that_has_ended_keeps_its_result_and_its_reason(code: int, state: JobState) -> None:
    job = job_of(kind="once")
    book = dies(started(job), 1, code) << ev.CancelTimer(ev.RETRY) << ev.Publish(state.value, None, ANY)
    why = job.reason
    assert why is not None
    book = disabled(book)
    assert seen(job) == (state, WHY)
    assert book >> ev.EnableRequested() << ev.CancelTimer(ev.DISABLED) << ev.Publish("enabled")
    assert seen(job) == (state, why)


# With processes


def test_a_running_job_is_stopped_gracefully_and_started_when_it_is_enabled() -> None:
    job = job_of(numprocesses=2)
    book = disabled(started(job)) << retire(1, 2)
    assert seen(job) == (JobState.STOPPING, WHY)
    assert not job.pids()
    book = ends(ends(book, 1) << nothing, 2) << nothing
    assert seen(job) == (JobState.STOPPED, WHY)
    assert job.exits[0].reason == "stopped"
    assert (job.phase, job.target) == (Phase.STARTED, 2)
    assert up(enabled(book) << ev.Spawn(3, 1) << ev.Spawn(4, 2), 3, 4)
    assert seen(job) == (JobState.RUNNING, None)


def test_a_process_that_ignores_the_stop_signal_is_killed() -> None:
    book = disabled(started(job_of(graceful_timeout=5.0))) << ev.Publish("stop_pid", 1) << terminate(1, 5.0)
    assert ends(book >> timer("kill", 1) << ev.Signal(1, 9), 1) << nothing


def test_a_job_that_is_enabled_while_it_stops_starts_once_its_processes_are_gone() -> None:
    job = job_of()
    book = enabled(disabled(started(job)) << retire(1)) << nothing
    assert up(ends(book, 1) << ev.Spawn(2, 1), 2)
    assert seen(job) == (JobState.RUNNING, None)


def test_processes_are_drained_first() -> None:
    job = job_of(drain_timeout=5.0)
    book = disabled(started(job)) << ev.Publish("stop_pid", 1) << ev.SetTimer(("drain", 1), 5.0)
    assert seen(job) == (JobState.STOPPING, WHY)
    assert ends(book >> timer("drain", 1) << drained(1), 1) << nothing
    assert seen(job) == (JobState.STOPPED, WHY)


def test_a_process_that_is_draining_for_a_restart_is_not_replaced() -> None:
    job = job_of(drain_timeout=5.0)
    book = started(job) >> ev.RestartRequested() << ev.Publish("restart")
    book = disabled(book << ev.Publish("stop_pid", 1) << ev.SetTimer(("drain", 1), 5.0)) << nothing
    assert ends(book >> timer("drain", 1) << drained(1), 1) << nothing
    assert seen(job) == (JobState.STOPPED, WHY)


def test_what_is_about_to_be_spawned_is_not() -> None:
    job = job_of()
    book = disabled(starts(play(job)) << ev.Spawn(1, 1)) << nothing
    assert (job.expects(1), job.state) == (False, JobState.STOPPED)
    assert enabled(book) << ev.Spawn(2, 1)
    assert job.expects(2)


def test_a_back_off_ends_and_failures_are_forgotten() -> None:
    job = job_of(startsecs=1.0, backoff=8.0)
    book = dies(started(job), 1, 3, early=True) << ev.SetTimer(("backoff", 1), 8.0)
    book = disabled(book) << ev.CancelTimer(("backoff", 1))
    assert seen(job) == (JobState.STOPPED, WHY)
    book = up(enabled(book) << ev.Spawn(2, 1), 2, startsecs=1.0)
    assert dies(book, 2, 3, early=True) << ev.SetTimer(("backoff", 1), 8.0), "the first failure"


@pytest.mark.parametrize("early", [False, True])
def test_a_job_that_is_held_by_flapping_detection_runs_at_once_when_it_is_enabled(early: bool) -> None:
    job = job_of(flapping=FlappingInfo(attempts=1, window=1.0, retry_in=7.0))
    book = exits(started(job), 1, 3) << terminate(1) << ev.Publish("flap") << ev.SetTimer(ev.RETRY, 7.0)
    book = disabled(empties(book, 1))
    assert (job.phase, *seen(job)) == (Phase.HELD, JobState.STOPPED, WHY)
    if not early:
        book = book >> ev.TimerFired(ev.RETRY) << ev.CancelTimer(ev.RETRY)
    assert up(enabled(book) << ev.Spawn(2, 1), 2)
    assert seen(job) == (JobState.RUNNING, None)


def test_committed_processes_are_stopped_too() -> None:
    book = disabled(commit(started(job_of()), 7, timeout=2.0)) << retire(1)
    book = book << ev.Publish("stop_pid", 7) << terminate(7, 2.0)
    assert ends(ends(book, 1), 7) << nothing


def test_a_rollout_ends() -> None:
    job = job_of(numprocesses=2)
    book = started(job) >> ev.RestartRequested(rolling=True) << ev.Publish("restart")
    book = book << ev.Publish("rollout", data={"rollout": "restart", "processes": 2}) << retire(1)
    book = disabled(book) << retire(2)
    assert job.rollout is None
    book = ends(ends(book, 1) << nothing, 2) << nothing
    book = up(enabled(book) << ev.Spawn(3, 1) << ev.Spawn(4, 2), 3, 4)
    assert book >> ev.RestartRequested(rolling=True) << ev.Publish("restart") << ANY << retire(3)
    assert job.rollout is not None
    assert (job.rollout.kind, job.rollout.total) == (RolloutKind.RESTART, 2)


def test_an_update_of_a_disabled_job_needs_no_rollout() -> None:
    job = job_of(surge=1)
    book = ends(disabled(started(job)) << retire(1), 1) << nothing
    book = book >> ev.ConfigChanged(config_of(cmd="false", surge=1), rolling=True) << ev.Publish("update")
    assert (job.rollout, job.definitions.generation) == (None, 2)
    assert up(enabled(book) << ev.Spawn(2, 1), 2)


# Until when


def test_it_ends_by_itself() -> None:
    job = job_of()
    book = ends(disabled(started(job), 7200.0) << retire(1), 1) << nothing
    assert job.reason == "disabled until 2017-07-14 04:40:00 UTC: disk is replaced"
    assert job.disabled == Disabled("disk is replaced", AT, AT + 7200)
    assert up(enabled(book, ev.TimerFired(ev.DISABLED)) << ev.Spawn(2, 1), 2)
    assert seen(job) == (JobState.RUNNING, None)


def test_a_second_order_changes_the_time_and_the_reason() -> None:
    job = job_of()
    book = disabled(play(job), 60.0)
    book = disabled(book, 30.0)
    assert job.reason == "disabled until 2017-07-14 02:40:30 UTC: disk is replaced"
    book = disabled(book)
    assert job.reason == WHY
    book = book >> ev.DisableRequested("moved", AT, AT + 1, 1.0) << ev.SetTimer(ev.DISABLED, 1.0)
    assert book << ev.Publish("disabled", data={"reason": "moved", "until": AT + 1})
    assert job.reason == "disabled until 2017-07-14 02:40:01 UTC: moved"


def test_the_time_left_is_what_counts_after_a_restart_of_the_manager() -> None:
    job = job_of()
    assert disabled(play(job), 60.0)
    desired = Desired.of(job)
    assert desired is not None
    assert desired.disabling(AT + 50) == ev.DisableRequested("disk is replaced", AT, AT + 60, 10.0)
    assert desired.disabling(AT + 60) is None
    assert disabled(play(job))
    assert (again := Desired.of(job)) is not None
    assert again.disabling(AT + 50) == disabling()


# What calls for processes


def test_runs_are_skipped_with_the_reason() -> None:
    job = job_of(every=30)
    book = disabled(starts(play(job)) << ev.ArmSchedule())
    book = book >> ev.ScheduleDue(1.0) << ev.Publish("run_skipped", data={"reason": WHY})
    assert seen(job) == (JobState.STOPPED, WHY)
    book = enabled(book) << nothing
    assert job.state is JobState.WAITING
    assert book >> ev.ScheduleDue(31.0) << ev.Publish("run_started") << ev.Spawn(1, 1)


def test_a_run_that_was_interrupted_continues() -> None:
    job = job_of(every=30)
    book = up(starts(play(job)) << ev.ArmSchedule() >> ev.ScheduleDue(1.0) << ev.Publish("run_started") << ANY, 1)
    book = ends(disabled(book) << retire(1), 1) << nothing
    book = book >> ev.ScheduleDue(31.0) << ev.Publish("run_skipped", data={"reason": WHY})
    book = up(enabled(book) << ev.Spawn(2, 1), 2)
    assert dies(book, 2) << ev.Publish("run_ended", data={"success": True})


CONNECTED: dict[str, Any] = {"start": "on-connection", "socket": ["tcp:127.0.0.1:0"]}


def test_sockets_are_closed_until_the_job_is_enabled() -> None:
    job = job_of(**CONNECTED)
    book = disabled(starts(play(job)) << ev.AwaitConnection()) << ev.CloseSockets()
    assert not job.awaits_connection
    book = book >> ev.ConnectionWaiting() << nothing  # it was on its way
    book = book >> ev.ConfigChanged(config_of(cmd="false", **CONNECTED)) << ev.Publish("update")
    book = enabled(book) << ev.AwaitConnection()
    assert seen(job) == (JobState.WAITING, "waiting for a connection")
    book = up(book >> ev.ConnectionWaiting() << ev.Spawn(1, 1), 1)

    book = disabled(book) << retire(1)
    book = ends(book >> ev.ConnectionsIdle() << nothing, 1) << ev.CloseSockets()
    assert enabled(book) << ev.AwaitConnection(), "it starts with the next connection"


def test_a_job_that_is_restored_disabled_opens_no_sockets() -> None:
    job = job_of(**CONNECTED)
    book = starts(disabled(play(job))) << nothing
    assert enabled(book) << ev.AwaitConnection()


def test_the_pause_before_the_next_connection_opens_no_sockets() -> None:
    job = job_of(startsecs=1.0, backoff=2.0, **CONNECTED)
    book = starts(play(job)) << ev.AwaitConnection() >> ev.ConnectionWaiting() << ev.Spawn(1, 1)
    book = dies(up(book, 1, startsecs=1.0), 1, early=True) << ev.Publish("went_idle") << ev.SetTimer(ev.CONNECTION, 2.0)
    book = disabled(book) << ev.CloseSockets()
    assert book >> ev.TimerFired(ev.CONNECTION) << nothing


def test_sockets_of_other_jobs_are_closed_and_opened_with_their_processes() -> None:
    system = System(socket=["tcp:127.0.0.1:0"])
    system.tell(START)
    assert system.sockets_open
    system.tell(disabling())
    assert system.sockets_open, "processes still finish their requests"
    system.settle()
    assert not system.sockets_open
    system.tell(ev.EnableRequested())
    assert system.sockets_open


# Order


def test_jobs_that_come_after_it_say_what_they_wait_for() -> None:
    db = job_of()
    book = disabled(started(db)) << retire(1)
    waiting = f"waiting for s.j, which is {WHY}"
    for condition in (Condition.READY, Condition.STARTED, Condition.RESTART):
        assert obstacle(db.name, db, condition) == waiting
    book = ends(book, 1)
    assert obstacle(db.name, db, Condition.READY) == waiting
    assert up(enabled(book) << ev.Spawn(2, 1), 2)
    assert obstacle(db.name, db, Condition.READY) is None

    connected = job_of(**CONNECTED)
    assert disabled(starts(play(connected)) << ev.AwaitConnection()) << ev.CloseSockets()
    assert obstacle(JobName("s", "j"), connected, Condition.READY) == waiting


def test_a_completed_job_still_counts_as_completed() -> None:
    job = job_of(kind="once")
    book = dies(started(job), 1) << ev.CancelTimer(ev.RETRY) << ev.Publish("completed", None, ANY)
    assert disabled(book)
    assert obstacle(job.name, job, Condition.COMPLETED) is None


def test_it_waits_again_for_the_jobs_that_it_comes_after() -> None:
    job = job_of(after=["db"])
    book = starts(play(job)) >> ev.DependencyChanged(None) << ev.Spawn(1, 1)
    book = ends(disabled(up(book, 1)) << retire(1), 1) << nothing
    book = enabled(book) << nothing
    assert seen(job) == (JobState.WAITING, "waiting for db")
    assert book >> ev.DependencyChanged(None) << ev.Spawn(2, 1)


def test_a_drained_node_starts_nothing_that_is_enabled() -> None:
    job = job_of()
    book = ends(disabled(started(job)) << retire(1), 1) << nothing
    book = enabled(book >> ev.NodeDrained(True) << nothing) << nothing
    assert seen(job) == (JobState.WAITING, "the node is drained")
    book = disabled(book) >> ev.NodeDrained(False) << nothing
    assert seen(job) == (JobState.STOPPED, WHY)


# Its end


def test_it_can_be_unloaded() -> None:
    job = job_of()
    book = disabled(started(job), 60.0) << retire(1)
    book = left(book >> ev.Unloaded()) << ev.Publish("delete")
    book = book >> ev.TimerFired(ev.DISABLED) << nothing >> ev.EnableRequested() << nothing >> disabling() << nothing
    assert ends(book, 1) << nothing
    assert job.gone


@pytest.mark.parametrize("detach", [False, True])
def test_a_manager_that_stops_ends_its_processes_and_forgets_nothing(detach: bool) -> None:
    """Also those of a detached job, which are to end."""
    job = job_of(detach=detach)
    book = disabled(started(job), 60.0) << retire(1)
    desired = Desired.of(job)
    assert desired is not None
    assert (desired.phase, desired.disabled) == (Phase.STARTED, Disabled("disk is replaced", AT, AT + 60))
    assert ends(left(book >> ev.ManagerStopping(False)), 1) << nothing
    assert job.gone
    assert job.disabled == desired.disabled


def test_a_detached_process_that_a_disabled_job_adopts_is_stopped() -> None:
    """Its gafferd was killed before the process had ended."""
    job = job_of(detach=True)
    book = disabled(play(job))
    record = ProcessRecord(9, "s.j", 1, 90, 90, 1, "boot", "n:9", 30.0, True)
    book = book >> ev.Adopted(1, record, 100.0) << ev.Adopt(1, record) << ev.Publish("adopt", 1, {"os_pid": 90})
    book = starts(book << ev.Publish("ready", 1), adopted=True) << retire(1)
    assert ends(book, 1) << nothing
    assert seen(job) == (JobState.STOPPED, WHY)
