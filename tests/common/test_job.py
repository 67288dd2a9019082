"""The job's state machine: tables for what users rely on, and a stateful test against a simulated system."""

import signal
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gaffer.jobs import events as ev
from gaffer.jobs.queries import STORY
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.states import JobState, Phase
from support.job_steps import (
    START,
    STOP,
    commit,
    config_of,
    dies,
    drained,
    empties,
    ends,
    exits,
    job_of,
    started,
    stopped,
    terminate,
    timer,
    up,
)
from support.job_system import System
from support.playbook import nothing, play, wait

pytestmark = pytest.mark.pure


def test_a_crash_loop_is_one_until_a_process_stays_up() -> None:
    system = System()
    system.tell(ev.StartRequested())
    for _ in range(3):
        assert system.job.crash_loop(system.now) is None
        system.advance(2.0)
        system.die()
    assert system.job.crash_loop(system.now) == (
        "crash loop, 3 times in a row: the last process exited with 0 after 2.0 s"
    )
    system.advance(10.0)
    assert system.job.crash_loop(system.now) is None
    system.die()
    assert system.job.crash_loop(system.now) is None, "the last one had stayed up"


def test_processes_that_were_asked_to_end_are_no_crash_loop() -> None:
    system = System()
    system.tell(ev.StartRequested())
    for _ in range(5):
        system.tell(ev.RestartRequested())
        system.settle()
    assert system.job.crash_loop(system.now) is None


@pytest.mark.row("SUP-01", "TPL-11")
def test_a_start_fills_every_slot_and_an_exit_is_replaced() -> None:
    job = job_of(numprocesses=3)
    book = started(job) >> wait(2.0)
    assert job.pids() == [1, 2, 3]
    assert job.state is JobState.RUNNING
    assert up(dies(book, 2) << ev.Spawn(4, slot=2), 4)
    assert job.pids() == [1, 3, 4]
    assert job.restarts == 1


def test_a_process_that_lived_over_a_second_is_replaced_at_once() -> None:
    book = started(job_of(startsecs=1.0)) >> wait(1.0) >> timer("ready", 1) << ev.Publish("ready", 1)
    assert dies(book, 1) << ev.Spawn(2, 1)


def test_short_lives_are_answered_with_doubling_pauses_up_to_the_limit() -> None:
    job = job_of(startsecs=1.0)
    book = started(job)
    for pid, delay in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0], start=1):
        assert dies(book, pid, early=True) << ev.SetTimer(("backoff", 1), delay)
        assert job.state is JobState.BACKOFF
        book = book >> wait(delay) >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1)) << ev.Spawn(pid + 1, 1)
        assert up(book, pid + 1, startsecs=1.0)


def test_ten_seconds_alive_forget_earlier_failures() -> None:
    book = started(job_of(startsecs=20))
    for pid, delay in enumerate([0.1, 0.2, 0.4], start=1):
        book = dies(book, pid, early=True) << ev.SetTimer(("backoff", 1), delay) >> wait(delay)
        book = book >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1)) << ev.Spawn(pid + 1, 1)
        book = up(book, pid + 1, startsecs=20)
    assert dies(book >> wait(10.0), 4, early=True) << ev.SetTimer(("backoff", 1), 0.1)


def test_back_off_goes_on_with_the_next_manager() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    assert dies(started(job), 1, early=True) << ev.SetTimer(("backoff", 1), 0.1)
    failures, resumed = job.failures, ev.Publish("start", data={"adopted": True})
    assert failures is not None
    job = job_of(numprocesses=2, startsecs=1.0)
    left = failures.slots[1].retry_at - 100.04
    book = play(job, 100.04) >> ev.StartRequested(None, failures) << ev.CancelTimer(ev.RETRY) << resumed
    book = up(book << ev.SetTimer(("backoff", 1), left) << ev.Spawn(1, slot=2), 1, startsecs=1.0)
    book = book >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1)) << ev.Spawn(2, 1)
    assert dies(up(book, 2, startsecs=1.0), 2, early=True) << ev.SetTimer(("backoff", 1), 0.2)
    # What was due meanwhile, and what is not wanted any more, does not wait.
    later = play(job_of(startsecs=1.0), 200.0) >> ev.StartRequested(None, failures) << ev.CancelTimer(ev.RETRY)
    assert later << resumed << ev.Spawn(1, slot=1)


def test_pauses_of_flapping_detection_go_on_with_the_next_manager() -> None:
    policy = FlappingInfo(attempts=1, window=1, retry_in=5, max_retry=1)
    system = System(flapping=policy)
    system.tell(START)
    system.die(1)
    failures = system.job.failures
    assert failures is not None
    job = job_of(flapping=policy)
    book = play(job, failures.paused_until - 2) >> ev.StartRequested(None, failures)
    book = book << ev.CancelTimer(ev.RETRY) << ev.Publish("start", data={"adopted": True}) << ev.SetTimer(ev.RETRY, 2)
    book = book >> wait(2) >> ev.TimerFired(ev.RETRY) << ev.CancelTimer(ev.RETRY) << ev.Spawn(1, slot=1)
    assert up(book, 1)
    job.handle(ev.Exited(1, 1, 0), book.now)
    assert job.phase is Phase.FAILED, "the retry before counts"


@pytest.mark.row("TPL-20")
def test_without_flapping_and_backoff_every_exit_is_replaced_at_once() -> None:
    book = started(job_of(backoff=0, startsecs=1.0))
    for pid in range(1, 51):
        assert up(dies(book, pid, early=True) << ev.Spawn(pid + 1, 1), pid + 1, startsecs=1.0)


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
    assert system.job.phase == Phase.STARTED, "the exit before the stop no longer counts"
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
    job = job_of(backoff=0)
    book = play(job) >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start")
    for pid in range(1, 10):
        assert (
            book
            << ev.Spawn(pid, 1)
            >> ev.SpawnFailed(pid, "program_not_found", "none")
            << ev.Publish("start_failed", pid, {"reason": "program_not_found", "message": "none"})
            << ev.SetTimer(("backoff", 1), 0.1)
        )
        assert job.state is JobState.BACKOFF
        assert job.reason == "program_not_found: none"
        book = book >> wait(0.1) >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1))
    assert book << ev.Spawn(10, 1)


@pytest.mark.row("SUP-04")
def test_a_crash_loop_can_be_stopped() -> None:
    job = job_of(startsecs=1.0)
    book = dies(started(job), 1, early=True) << ev.SetTimer(("backoff", 1), 0.1)
    assert stopped(book) << ev.CancelTimer(("backoff", 1)) >> wait(100.0) >> timer("backoff", 1) << nothing
    assert job.state is JobState.STOPPED


@pytest.mark.row("SUP-03", "TPL-16")
def test_stopping_is_term_then_kill_after_the_graceful_timeout() -> None:
    job = job_of(graceful_timeout=5)
    book = (
        started(job)
        >> STOP
        << ev.CancelTimer(ev.RETRY)
        << ev.Publish("stop")
        << ev.Publish("stop_pid", 1)
        << ev.Signal(1, signal.SIGTERM)
        << ev.SetTimer(("kill", 1), 5)
    )
    assert (job.state, job.active) == (JobState.STOPPING, False)
    assert ends(book >> timer("kill", 1) << ev.Signal(1, signal.SIGKILL), 1)
    assert job.state is JobState.STOPPED


def test_a_start_while_stopping_wins_after_the_last_exit() -> None:
    book = stopped(started(job_of()), 1) >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start") << nothing
    assert ends(book, 1) << ev.Spawn(2, 1)


def test_a_stop_cancels_a_start_that_waits() -> None:
    job = job_of()
    book = stopped(started(job), 1) >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start")
    assert ends(stopped(book), 1) << nothing
    assert job.state is JobState.STOPPED


def test_a_replacement_waits_until_nothing_of_the_old_process_is_left() -> None:
    assert (
        started(job_of())
        >> wait(2.0)
        >> ev.Exited(1, 0, 0)
        << ev.Publish("exit", 1, ANY)
        << ev.Signal(1, signal.SIGTERM)  # to the rest of the group
        << ev.SetTimer(("kill", 1), 30.0)
        >> wait(30.0)
        >> timer("kill", 1)
        << ev.Signal(1, signal.SIGKILL)
        >> ev.GroupEmpty(1)
        << ev.CancelTimer(("kill", 1))
        << ev.Spawn(2, 1)
    )


@pytest.mark.row("MGR-37", "SUP-02", "SUP-01")
def test_scaling_down_takes_the_highest_slots() -> None:
    job = job_of(numprocesses=4)
    book = (
        started(job)
        >> ev.Scaled(2)
        << ev.Publish("update")
        << [ev.Publish("reap", 4), *terminate(4)]
        << [ev.Publish("reap", 3), *terminate(3)]
    )
    assert ends(ends(book, 3), 4) << nothing
    assert job.pids() == [1, 2]
    assert book >> ev.Scaled(3) << ev.Publish("update") << ev.Spawn(5, slot=3)


def test_scaling_up_again_while_the_surplus_still_stops_reuses_its_slot() -> None:
    book = started(job_of(numprocesses=2)) >> ev.Scaled(1) << ev.Publish("update")
    book = book << ev.Publish("reap", 2) << terminate(2) >> ev.Scaled(2) << ev.Publish("update") << nothing
    assert ends(book, 2) << ev.Spawn(3, slot=2)


@pytest.mark.row("MGR-32")
def test_a_reload_goes_back_to_the_configured_count_with_new_processes() -> None:
    book = started(job_of(numprocesses=1)) >> ev.Scaled(2) << ev.Publish("update") << ev.Spawn(2, 2)
    book = up(book, 2) >> ev.RestartRequested(reset=True) << ev.Publish("restart")
    book = book << ev.Publish("stop_pid", 1) << terminate(1) << ev.Publish("reap", 2) << terminate(2)
    assert ends(ends(book, 2) << nothing, 1) << ev.Spawn(3, 1)


def test_an_identical_config_changes_nothing() -> None:
    assert started(job_of()) >> ev.ConfigChanged(config_of(numprocesses=1)) << nothing


@pytest.mark.parametrize(
    "change",
    [
        {"graceful_timeout": 1},
        {"flapping": FlappingInfo()},
        {"priority": 3},
        {"labels": {"a": "b"}},
        {"backoff": 3},
        {"survive": False},
        {"orphans": "end"},
    ],
)
def test_live_settings_apply_without_a_restart(change: dict[str, Any]) -> None:
    assert started(job_of()) >> ev.ConfigChanged(config_of(**change)) << ev.Publish("update")


def test_a_job_that_is_scaled_to_0_waits_unless_a_process_runs_once() -> None:
    job = job_of()
    book = started(job) >> ev.Scaled(0) << ev.Publish("update") << ev.Publish("reap", 1) << terminate(1)
    assert job.state == JobState.STOPPING
    book = ends(book, 1)
    assert (job.state, job.reason, job.active) == (JobState.WAITING, "scaled to 0 processes", True)
    commit(book, 2, 1.0)
    assert (job.state, job.reason) == (JobState.RUNNING, None)


@pytest.mark.row("MGR-33")
def test_a_scaled_count_stays_until_the_configured_one_changes() -> None:
    book = started(job_of()) >> ev.Scaled(3) << ev.Publish("update") << ev.Spawn(2, 2) << ev.Spawn(3, 3)
    assert up(book, 2, 3) >> ev.ConfigChanged(config_of(priority=1)) << ev.Publish("update")
    assert (
        book
        >> ev.ConfigChanged(config_of(numprocesses=2, priority=1))
        << ev.Publish("update")
        << [ev.Publish("reap", 3), *terminate(3)]
    )


@pytest.mark.row("MGR-33")
@pytest.mark.parametrize("change", [{"cmd": "false"}, {"env": {"A": "1"}}, {"cwd": "/"}, {"redirect_output": ["o"]}])
def test_other_settings_replace_the_processes(change: dict[str, Any]) -> None:
    config = config_of(**{"numprocesses": 2, **change})
    book = started(job_of(numprocesses=2)) >> ev.ConfigChanged(config) << ev.Publish("update")
    book = book << ev.Publish("stop_pid", 1) << terminate(1) << ev.Publish("stop_pid", 2) << terminate(2)
    assert ends(ends(book, 1) << ev.Spawn(3, 1), 2) << ev.Spawn(4, 2)


def test_a_new_count_in_the_config_applies_at_once() -> None:
    book = started(job_of()) >> ev.ConfigChanged(config_of(numprocesses=3))
    assert book << ev.Publish("update") << ev.Spawn(2, 2) << ev.Spawn(3, 3)


@pytest.mark.row("MGR-40")
def test_a_stopped_process_is_replaced() -> None:
    book = started(job_of(numprocesses=2)) >> ev.ProcessStopRequested(1) << ev.Publish("stop_pid", 1) << terminate(1)
    assert ends(book, 1) << ev.Spawn(3, slot=1)


@pytest.mark.row("MGR-38")
def test_a_committed_process_is_neither_counted_nor_kept_alive() -> None:
    job = job_of()
    book = commit(started(job), 7, 0)
    assert job.pids() == [1]
    assert job.pids(committed=True) == [1, 7]
    book = book >> ev.Scaled(0) << ev.Publish("update") << ev.Publish("reap", 1) << terminate(1)
    assert dies(ends(book, 1), 7) << nothing
    assert not job.committed


@pytest.mark.row("MGR-38")
def test_a_committed_process_has_its_own_patience() -> None:
    book = commit(play(job_of(graceful_timeout=30)), 7, 2.0)
    book = book >> STOP << ev.CancelTimer(ev.RETRY) << ev.Publish("stop") << ev.Publish("stop_pid", 7)
    assert book << terminate(7, 2.0) >> timer("kill", 7) << ev.Signal(7, signal.SIGKILL)


def test_draining_comes_before_the_signal() -> None:
    job = job_of(drain_timeout=3)
    book = started(job) >> STOP << ev.CancelTimer(ev.RETRY) << ev.Publish("stop") << ev.Publish("stop_pid", 1)
    assert book << ev.SetTimer(("drain", 1), 3)
    assert job.pids() == []
    assert book >> timer("drain", 1) << drained(1)


@pytest.mark.parametrize("early", ["exit", "hurried stop"])
def test_an_early_end_of_draining_cancels_its_timer(early: str) -> None:
    book = started(job_of(drain_timeout=3)) >> STOP << ev.CancelTimer(ev.RETRY) << ev.Publish("stop")
    book = book << ev.Publish("stop_pid", 1) << ev.SetTimer(("drain", 1), 3)
    if early == "exit":
        assert exits(book, 1) << drained(1)
    else:
        book = book >> ev.ManagerStopping(hurry=True) << ev.CancelTimer(ev.RETRY) << ev.Publish("stop")
        assert book << ev.CancelTimer(("drain", 1)) << ev.Signal(1, signal.SIGKILL)


@pytest.mark.parametrize(
    "message", [ev.Committed(1, 2.0, {"A": "secret"}), ev.Spawn(1, 2, {"A": "secret"}), ev.Exited(1, 3, 0, 4, "secret")]
)
def test_the_text_of_an_event_has_no_environment_and_no_output(message: ev.Event | ev.Spawn) -> None:
    assert repr(message).startswith(f"{type(message).__name__}(pid=1")
    assert "secret" not in repr(message)


def test_a_drained_node_ends_what_runs_and_keeps_what_is_desired() -> None:
    job = job_of(numprocesses=2, drain_timeout=3)
    book = started(job) >> ev.NodeDrained(True)
    for pid in (1, 2):
        book = book << ev.Publish("stop_pid", pid) << ev.SetTimer(("drain", pid), 3)
    for pid in (1, 2):
        assert ends(book >> timer("drain", pid) << drained(pid), pid)
    assert (job.state, job.active) == (JobState.WAITING, True)
    assert job.reason == "the node is drained"
    assert (
        book
        >> ev.RestartRequested()
        << ev.Publish("restart")
        >> ev.Scaled(3)
        << ev.Publish("update")
        >> ev.NodeDrained(False)
        << [ev.Spawn(3, 1), ev.Spawn(4, 2), ev.Spawn(5, 3)]
    )


def test_a_process_that_ends_when_the_node_is_back_is_replaced_once_it_is_gone() -> None:
    book = started(job_of()) >> ev.NodeDrained(True) << ev.Publish("stop_pid", 1) << terminate(1)
    assert ends(book >> ev.NodeDrained(False) << nothing, 1) << ev.Spawn(2, 1)


def test_a_drained_node_ends_what_was_committed_and_what_waits_for_its_next_start() -> None:
    job = job_of(startsecs=1.0)
    book = dies(started(job), 1, early=True) << ev.SetTimer(("backoff", 1), 0.1)
    book = commit(book, 7, 1.0)
    assert job.state is JobState.BACKOFF
    assert (
        book
        >> ev.NodeDrained(True)
        << ev.CancelTimer(("backoff", 1))
        << [ev.Publish("stop_pid", 7), *terminate(7, 1.0)]
        >> timer("backoff", 1)
        << nothing
    )


@pytest.mark.row("TPL-23", "TPL-25", "EVT-12")
def test_flapping_pauses_the_job_and_then_gives_up() -> None:
    job = job_of(flapping=FlappingInfo(attempts=2, window=1.0, retry_in=7.0, max_retry=1))
    book = up(dies(started(job), 1) << ev.Spawn(2, 1), 2)
    book = exits(book, 2) << terminate(2) << ev.Publish("flap") << ev.SetTimer(ev.RETRY, 7.0)
    assert empties(book, 2) << nothing
    assert (job.state, job.active) == (JobState.WAITING, True)
    book = up(book >> wait(7.0) >> ev.TimerFired(ev.RETRY) << ev.CancelTimer(ev.RETRY) << ev.Spawn(3, 1), 3)
    book = up(dies(book, 3) << ev.Spawn(4, 1), 4)
    book = exits(book, 4) << terminate(4) << ev.Publish("flap") << ev.CancelTimer(ev.RETRY)
    book = book << ev.Publish("failed", data={"reason": job.why})
    assert empties(book, 4) << nothing
    assert (job.state, job.active) == (JobState.FAILED, False)
    assert "given up after 1 retry" in (job.reason or "")
    assert book >> wait(1000.0) >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start") << ev.Spawn(5, 1)


def test_flapping_stops_the_other_instances_too() -> None:
    job = job_of(numprocesses=3, flapping=FlappingInfo(attempts=2, window=1.0, retry_in=7.0))
    book = up(dies(started(job), 1) << ev.Spawn(4, 1), 4)
    book = exits(book, 2) << terminate(2) << ev.Publish("flap") << ev.SetTimer(ev.RETRY, 7.0)
    book = book << ev.Publish("stop_pid", 4) << terminate(4) << ev.Publish("stop_pid", 3) << terminate(3)
    for pid in (2, 3, 4):
        book = (empties if pid == 2 else ends)(book, pid) << nothing
    assert (
        book >> ev.TimerFired(ev.RETRY) << ev.CancelTimer(ev.RETRY) << [ev.Spawn(4 + slot, slot) for slot in (1, 2, 3)]
    )


def test_stops_by_request_are_no_crashes() -> None:
    system = System(flapping=FlappingInfo(attempts=2, window=10.0))
    system.tell(START)
    for _ in range(5):
        system.tell(ev.RestartRequested())
        system.settle()
    assert "flap" not in system.published


def test_a_job_waits_for_its_predecessor() -> None:
    job = job_of()
    book = play(job) >> ev.NameFreed(False) >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start") << nothing
    assert book
    assert job.state is JobState.WAITING
    assert book >> ev.NameFreed(True) << ev.Spawn(1, 1)


def test_the_end_of_a_pause_starts_nothing_while_the_name_is_taken() -> None:
    job = job_of(startsecs=1.0)
    book = dies(started(job), 1, early=True) << ev.SetTimer(("backoff", 1), 0.1) >> ev.NameFreed(False) << nothing
    assert book >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1))
    assert job.state is JobState.WAITING
    assert book >> ev.NameFreed(True) << ev.Spawn(2, 1)


def test_an_unloaded_job_is_gone_when_its_processes_are() -> None:
    job = job_of(numprocesses=2)
    book = started(job) >> ev.Unloaded() << ev.CancelTimer(ev.RETRY) << ev.Publish("stop")
    book = book << ev.Publish("stop_pid", 2) << terminate(2) << ev.Publish("stop_pid", 1) << terminate(1)
    assert ends(book << ev.Publish("delete"), 1)
    assert not job.gone
    assert ends(book, 2)
    assert job.gone
    assert book >> START << nothing


@pytest.mark.row("TPL-10")
def test_a_detached_process_survives_the_manager_but_not_a_stop() -> None:
    job = job_of(detach=True)
    book = started(job) >> ev.ManagerStopping() << ev.CancelTimer(ev.RETRY) << ev.Publish("stop")
    assert book << ev.Release(1)
    assert job.gone
    assert stopped(started(job_of(detach=True)), 1)


def test_a_manager_in_a_hurry_kills_at_once_also_what_stops_already() -> None:
    book = started(job_of(numprocesses=3, drain_timeout=5)) >> ev.ProcessStopRequested(1) << ev.Publish("stop_pid", 1)
    book = book << ev.SetTimer(("drain", 1), 5) >> timer("drain", 1) << drained(1)
    book = book >> ev.ProcessStopRequested(2) << ev.Publish("stop_pid", 2) << ev.SetTimer(("drain", 2), 5)
    book = book >> ev.ManagerStopping(hurry=True) << ev.CancelTimer(ev.RETRY) << ev.Publish("stop")
    assert (
        book
        << ev.Signal(1, signal.SIGKILL)
        << ev.Publish("stop_pid", 3)
        << ev.Signal(3, signal.SIGKILL)
        << ev.CancelTimer(("drain", 2))
        << ev.Signal(2, signal.SIGKILL)
    )


@pytest.mark.row("EVT-03", "EVT-04", "EVT-05", "EVT-07", "EVT-08", "EVT-09", "EVT-10", "EVT-11")
def test_what_is_published() -> None:
    exit_1 = {"exit_code": 3, "exit_status": 3, "term_signal": 0, "reason": "exited", "uptime": 2.0, "restarts": 0}
    more = {"stopped": False, "once": False, "os_pid": 1001, "oom": False, "output": None, "rusage": None}
    book = (
        play(job_of())
        >> START
        << ev.CancelTimer(ev.RETRY)
        << ev.Publish("start")
        << ev.Spawn(1, 1)
        >> ev.Spawned(1, 1001)
        << ev.Publish("spawn", 1, {"os_pid": 1001})
        << ev.Publish("ready", 1)
        >> wait(2.0)
        >> ev.Exited(1, 3, 0, 1001)
        << ev.Publish("exit", 1, {**exit_1, **more})
        << terminate(1)
    )
    book = up(empties(book, 1) << ev.Spawn(2, 1), 2)
    book = book >> ev.RestartRequested() << ev.Publish("restart") << ev.Publish("stop_pid", 2) << terminate(2)
    book = up(ends(book, 2) << ev.Spawn(3, 1), 3)
    book = book >> ev.Scaled(0) << ev.Publish("update") << ev.Publish("reap", 3) << terminate(3)
    assert book >> ev.Unloaded() << ev.CancelTimer(ev.RETRY) << ev.Publish("stop") << ev.Publish("delete")


RECORD = ProcessRecord(9, "s.j", 2, 90, 90, 1, "boot", "n:9", 30.0, True)


@pytest.mark.row("TPL-10")
def test_an_adopted_process_counts_as_the_one_of_its_slot() -> None:
    job = job_of(numprocesses=2, detach=True)
    book = play(job) >> ev.Adopted(7, RECORD, age=50.0) << ev.Adopt(7, RECORD)
    book = book << ev.Publish("adopt", 7, {"os_pid": RECORD.os_pid}) << ev.Publish("ready", 7)
    book = up(
        book >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start", data={"adopted": True}) << ev.Spawn(1, slot=1),
        1,
    )
    book = book >> ev.Exited(7, None, None) << ev.Publish("exit", 7, ANY)
    assert empties(book << terminate(7), 7) << ev.Spawn(2, slot=2)
    assert job.last_exit is not None
    assert (job.last_exit.reason, job.last_exit.uptime) == ("unknown", 50.0)


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
    job = job_of()
    book = stopped(started(job), 1) >> ev.EndRefused(1, "not permitted", False) << nothing
    leaving: list[ev.Instruction] = [ev.CancelTimer(ev.RETRY), ev.Publish("stop")]
    if refused_first:
        book = book >> ev.EndRefused(1, "not permitted", True) << nothing
    assert book
    assert (job.state, job.reason) == (JobState.STOPPING, "process 1 can't be ended: not permitted")
    if refused_first:
        assert book >> ev.ManagerStopping() << leaving << ev.Release(1)
    else:
        assert book >> ev.ManagerStopping() << leaving
        assert not job.gone
        assert book >> ev.EndRefused(1, "not permitted", True) << ev.Release(1)
    assert job.gone


def test_what_could_not_be_ended_is_replaced_once_it_ended_by_itself() -> None:
    job = job_of()
    book = started(job) >> ev.RestartRequested() << ev.Publish("restart") << ev.Publish("stop_pid", 1) << terminate(1)
    assert up(ends(book >> ev.EndRefused(1, "not permitted", True), 1) << ev.Spawn(2, 1), 2)
    assert (job.state, job.reason) == (JobState.RUNNING, None)


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
        flapping = FlappingInfo(attempts=4, window=0.5, retry_in=2, max_retry=10**6)
        self.system = System(numprocesses=2, drain_timeout=1, startsecs=1.0, flapping=flapping)
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
        self.system.tell(ev.NameFreed(ready))

    @rule(drained=st.booleans())
    def drain(self, drained: bool) -> None:
        self.system.tell(ev.NodeDrained(drained))

    @rule(broken=st.booleans())
    def break_or_mend(self, broken: bool) -> None:
        self.system.broken = broken

    @rule(cmd=st.sampled_from(["true", "false"]), numprocesses=st.integers(0, 3), drain_timeout=st.sampled_from([0, 1]))
    def configure(self, cmd: str, numprocesses: int, drain_timeout: int) -> None:
        old = self.system.job.config
        config = old.replace(cmd=cmd, numprocesses=numprocesses, drain_timeout=drain_timeout)
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
        self.system.check()
        assert not (job.drained and job.pids())

    def teardown(self) -> None:
        self.system.broken = False
        self.system.tell(ev.NameFreed(True), ev.NodeDrained(False))
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
    assert "StartRequested(count=None, failures=None) -> " in note
    assert "Spawned(pid=1, os_pid=1001)" in note
    assert note.endswith("GroupEmpty(pid=7) -> nothing")


def test_the_story_of_a_job_is_bounded_and_shows_no_secrets() -> None:
    system = System(env={"TOKEN": "secret"})
    for pid in range(100, 200):
        system.tell(ev.Committed(pid, 0, {"TOKEN": "secret"}))
    assert len(system.job.story) == STORY
    assert "secret" not in system.job.history()


def test_a_stop_of_a_process_that_is_gone_means_nothing() -> None:
    book = started(job_of()) >> ev.ProcessStopRequested(7) << nothing >> ev.EndRefused(7, "gone", False) << nothing
    assert book >> ev.EndRefused(1, "it was not asked to end", False) << nothing


def test_a_signal_without_a_name_is_given_by_its_number() -> None:
    job = job_of()
    assert started(job) >> ev.Exited(1, 0, 60) << ev.Publish("exit", 1, ANY) << terminate(1)
    assert "killed by signal 60" in job.why
