"""Which processes are restarted, when a job has completed or failed, and what is kept of exits."""

from typing import Any, TypeAlias
from unittest.mock import ANY

import pytest

from gaffer.jobs import events as ev
from gaffer.jobs.exits import KEPT
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.states import JobState, Phase
from support.job_steps import (
    START,
    Story,
    commit,
    dies,
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

Ending: TypeAlias = tuple[int | None, int | None]  # the exit code and the signal

SUCCESS: Ending = 0, 0
FAILURE: Ending = 3, 0
KILLED: Ending = None, 9
UNKNOWN: Ending = None, None


def completed(book: Story, why: str) -> Story:
    return book << ev.CancelTimer(ev.RETRY) << ev.Publish("completed", data={"reason": why})


def failed(book: Story, why: str) -> Story:
    return book << ev.CancelTimer(ev.RETRY) << ev.Publish("failed", data={"reason": why})


def end_of(how: Ending, after: float = 0.0) -> str:
    """The sentence about it."""
    words = {SUCCESS: "exited with 0", FAILURE: "exited with 3", KILLED: "was killed by SIGKILL"}
    return f"the last process {words.get(how, 'ended in an unknown way')} after {after:.1f} s"


@pytest.mark.parametrize("how", [SUCCESS, FAILURE, KILLED, UNKNOWN])
@pytest.mark.parametrize(
    ("config", "restarted"),
    [
        ({}, {SUCCESS, FAILURE, KILLED, UNKNOWN}),
        ({"restart": "always"}, {SUCCESS, FAILURE, KILLED, UNKNOWN}),
        ({"restart": "on-failure"}, {FAILURE, KILLED, UNKNOWN}),
        ({"restart": "on-failure", "exit_codes": [0, 3]}, {KILLED, UNKNOWN}),
        ({"restart": "on-failure", "exit_codes": [3]}, {SUCCESS, KILLED, UNKNOWN}),
        ({"restart": "never"}, set()),
        ({"kind": "once"}, set()),
        ({"kind": "once", "restart": "on-failure"}, {FAILURE, KILLED, UNKNOWN}),
    ],
)
def test_the_policy_decides_by_how_the_process_ended(
    config: dict[str, Any], restarted: set[Ending], how: Ending
) -> None:
    job = job_of(**config)
    book = dies(started(job), 1, *how)
    if how in restarted:
        assert up(book << ev.Spawn(2, 1), 2)
        assert (job.state, job.restarts) == (JobState.RUNNING, 1)
        return
    if how[0] in config.get("exit_codes", [0]):
        assert completed(book, end_of(how))
        assert (job.state, job.phase) == (JobState.COMPLETED, Phase.COMPLETED)
    else:
        assert failed(book, end_of(how))
        assert (job.state, job.phase) == (JobState.FAILED, Phase.FAILED)
    assert job.reason == end_of(how)
    assert (job.active, job.restarts, job.pids()) == (False, 0, [])


@pytest.mark.parametrize("restart", ["on-failure", "never"])
def test_what_was_stopped_on_request_is_replaced_whatever_the_policy_says(restart: str) -> None:
    book = started(job_of(restart=restart)) >> ev.ProcessStopRequested(1) << retire(1)
    book = up(ends(book, 1) << ev.Spawn(2, 1), 2) >> ev.RestartRequested() << ev.Publish("restart") << retire(2)
    assert ends(book, 2) << ev.Spawn(3, 1)


@pytest.mark.parametrize("code", [0, 1])
def test_a_process_that_ends_while_it_is_replaced_is_replaced(code: int) -> None:
    job = job_of(kind="once", drain_timeout=3.0)
    book = started(job) >> ev.RestartRequested() << ev.Publish("restart") << ev.Publish("stop_pid", 1)
    book = book << ev.SetTimer(("drain", 1), 3.0)
    book = exits(book, 1, code) << ev.CancelTimer(("drain", 1)) << terminate(1)
    assert empties(book, 1) << ev.Spawn(2, 1)


def test_a_process_that_does_not_work_has_failed_also_when_it_exits_with_success() -> None:
    job = job_of(restart="on-failure", ready="tcp:80")
    book = starts(play(job)) << ev.Spawn(1, 1) >> ev.Spawned(1, 1001) << ev.SetTimer(("start", 1), 60.0)
    book = book << [ANY, ANY] >> timer("start", 1) << ev.Publish("not_ready", 1, ANY) << ev.Publish("stop_pid", 1, ANY)
    book = ends(book << ev.CancelTimer(("start", 1)) << [ANY, *terminate(1)], 1)
    assert book << ev.SetTimer(("backoff", 1), 0.1)


def test_max_restarts_gives_up_with_the_reason() -> None:
    job = job_of(max_restarts=2, backoff=0)
    book = started(job)
    for pid in (1, 2):
        book = up(dies(book >> wait(1.0), pid, 3) << ev.Spawn(pid + 1, 1), pid + 1)
    why = f"given up after 2 restarts; {end_of(FAILURE, 1.0)}"
    assert failed(dies(book >> wait(1.0), 3, 3), why)
    assert (job.state, job.reason, job.restarts) == (JobState.FAILED, why, 2)
    assert up(starts(book) << ev.Spawn(4, 1), 4)
    assert up(dies(book, 4, 3) << ev.Spawn(5, 1), 5), "a start gives it all its restarts again"


def test_restarts_count_towards_the_limit_only_when_they_follow_each_other_soon() -> None:
    book = started(job_of(max_restarts=1, backoff=0))
    for pid in range(1, 6):
        book = up(dies(book >> wait(10.0), pid, 3) << ev.Spawn(pid + 1, 1), pid + 1)
    assert failed(dies(book, 6, 3), f"given up after 1 restart; {end_of(FAILURE)}")


def test_a_requested_stop_of_a_process_begins_the_count_of_restarts_again() -> None:
    book = up(dies(started(job_of(max_restarts=1, backoff=0)), 1, 3) << ev.Spawn(2, 1), 2)
    book = up(ends(book >> ev.ProcessStopRequested(2) << retire(2), 2) << ev.Spawn(3, 1), 3)
    assert up(dies(book, 3, 3) << ev.Spawn(4, 1), 4)


def test_starts_that_fail_count_towards_the_limit_and_stop_the_other_processes() -> None:
    job = job_of(max_restarts=1, numprocesses=2)
    book = starts(play(job)) << ev.Spawn(1, 1) << ev.Spawn(2, 2)
    book = up(book, 2)
    for pid in (1, 3):
        book = book >> ev.SpawnFailed(pid, "program_not_found", "no such file") << ev.Publish("start_failed", pid, ANY)
        if pid == 1:
            book = book << ev.SetTimer(("backoff", 1), 0.1) >> timer("backoff", 1)
            book = book << ev.CancelTimer(("backoff", 1)) << ev.Spawn(3, 1)
    book = failed(book, "given up after 1 restart; program_not_found: no such file") << retire(2)
    assert ends(book, 2) << nothing
    assert (job.state, job.pids()) == (JobState.FAILED, [])


def test_a_once_job_completes_when_its_last_process_has_succeeded() -> None:
    job = job_of(kind="once", numprocesses=3)
    book = dies(dies(started(job) >> wait(2.0), 2), 1) << nothing
    assert (job.state, job.active, job.pids()) == (JobState.RUNNING, True, [3])
    assert completed(dies(book, 3), end_of(SUCCESS, 2.0))
    assert (job.state, job.all_ready, job.all_started) == (JobState.COMPLETED, False, False)


def test_a_once_job_fails_when_one_of_its_processes_has_but_lets_the_others_end() -> None:
    job = job_of(kind="once", numprocesses=3)
    book = dies(dies(started(job), 2, 3), 1) << nothing
    assert (job.state, job.pids()) == (JobState.RUNNING, [3])
    assert failed(dies(book, 3), end_of(SUCCESS))
    assert job.state is JobState.FAILED


def test_a_process_that_has_run_to_its_end_does_not_come_back_by_other_events() -> None:
    job = job_of(kind="once", numprocesses=2)
    book = dies(started(job), 1) << nothing
    assert book >> ev.NameFreed(True) << nothing >> ev.DependencyChanged(None) << nothing
    assert book >> ev.Scaled(3) << ev.Publish("update") << ev.Spawn(3, 3)
    assert book >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start") << nothing
    assert job.pids() == [2]


def test_fewer_processes_may_be_all_that_a_once_job_waits_for() -> None:
    job = job_of(kind="once", numprocesses=2)
    book = dies(started(job), 1) >> ev.Scaled(1) << ev.Publish("update") << retire(2, kind="reap")
    assert completed(book, end_of(SUCCESS))
    assert job.state is JobState.STOPPING
    assert ends(book, 2) << nothing
    assert (job.state, job.active) == (JobState.COMPLETED, False)


@pytest.mark.parametrize("how", [SUCCESS, FAILURE])
def test_a_job_that_has_ended_runs_again_from_the_beginning(how: Ending) -> None:
    job = job_of(kind="once", numprocesses=2)
    book = (completed if how == SUCCESS else failed)(dies(dies(started(job), 1), 2, *how), ANY)
    book = book >> ev.RestartRequested() << ev.CancelTimer(ev.RETRY) << ev.Publish("start")
    book = up(book << ev.Spawn(3, 1) << ev.Spawn(4, 2), 3, 4)
    assert (job.state, job.reason) == (JobState.RUNNING, None)
    book = completed(dies(dies(book, 4), 3), ANY)
    assert starts(book) << ev.Spawn(5, 1) << ev.Spawn(6, 2)
    assert stopped(book)
    assert job.state is JobState.STOPPED


def test_a_job_that_has_ended_stays_so_until_it_is_started() -> None:
    job = job_of(kind="once")
    book = completed(dies(started(job), 1), ANY)
    assert book >> ev.Scaled(2) << ev.Publish("update") >> ev.NodeDrained(True) << nothing
    assert book >> ev.NodeDrained(False) << nothing >> ev.DependencyChanged(None) << nothing
    assert book >> ev.ConfigChanged(job.config.replace(cmd="false")) << ev.Publish("update")
    assert book >> ev.RollbackRequested() << ev.Publish("update")
    assert job.state is JobState.COMPLETED


def test_a_stop_of_a_once_job_is_no_failure() -> None:
    job = job_of(kind="once")
    assert ends(stopped(started(job), 1), 1) << nothing
    assert job.state is JobState.STOPPED


@pytest.mark.parametrize(
    ("config", "how", "code"),
    [
        ({"kind": "once"}, SUCCESS, 0),
        ({"kind": "once"}, FAILURE, 3),
        ({"kind": "once"}, KILLED, 137),
        ({"kind": "once"}, UNKNOWN, 1),
        ({"restart": "never", "exit_codes": [3]}, FAILURE, 3),
        ({"restart": "on-failure"}, SUCCESS, 0),
    ],
)
def test_an_essential_job_ends_the_manager_with_its_exit_code(config: dict[str, Any], how: Ending, code: int) -> None:
    job = job_of(essential=True, **config)
    book = (completed if how[0] in config.get("exit_codes", [0]) else failed)(dies(started(job), 1, *how), ANY)
    assert book << ev.EndManager(code, f"s.j is essential: {end_of(how)}")


def test_an_essential_job_that_is_given_up_ends_the_manager() -> None:
    job = job_of(essential=True, max_restarts=1)
    book = up(dies(started(job), 1, 3) << ev.Spawn(2, 1), 2)
    assert failed(dies(book, 2, 3), ANY) << ev.EndManager(3, f"s.j is essential: {job.why}")


def test_an_essential_job_that_can_not_be_started_ends_the_manager_with_1() -> None:
    job = job_of(essential=True, kind="once")
    book = starts(play(job)) << ev.Spawn(1, 1) >> ev.SpawnFailed(1, "program_not_found", "none") << ANY
    assert failed(book, ANY) << ev.EndManager(1, "s.j is essential: program_not_found: none")


def test_a_flapping_essential_job_ends_the_manager() -> None:
    system = System(essential=True, flapping=FlappingInfo(attempts=1, window=1.0, retry_in=5.0, max_retry=0))
    system.tell(START)
    system.die(1, code=4)
    assert system.ended == [4]


@pytest.mark.parametrize("order", [ev.StopRequested(), ev.Unloaded(), ev.ManagerStopping()])
def test_an_essential_job_that_is_ended_on_request_leaves_the_manager_alone(order: ev.Event) -> None:
    system = System(essential=True, kind="once")
    system.tell(START, order)
    system.settle()
    assert not system.alive
    assert system.ended == []


def test_the_newest_exits_come_first_and_the_oldest_are_forgotten() -> None:
    system = System(backoff=0)
    system.tell(START)
    for pid in range(1, KEPT + 6):
        system.exit(pid, code=pid)
        system.group_empty(pid)
    assert KEPT == 20
    assert [each.pid for each in system.job.exits] == [*range(KEPT + 5, 5, -1)]
    assert system.job.last_exit is system.job.exits[0]
    assert system.job.last_exit.exit_code == KEPT + 5


def test_an_exit_is_kept_with_all_that_is_known_of_it() -> None:
    job = job_of(after_exit="notify-me", numprocesses=2)
    book = started(job) >> wait(2.0) >> ev.Exited(2, None, 9, 1002, "killed", True, 1.5e9)
    data = {"exit_code": None, "exit_status": None, "term_signal": 9, "reason": "oom", "uptime": 2.0, "oom": True}
    more = {"stopped": False, "restarts": 0, "once": False, "os_pid": 1002, "output": "killed", "rusage": None}
    book = book << ev.Publish("exit", 2, data | more) << terminate(2)
    assert book << ev.AfterExit(2, 2, None, 9, "oom")
    (kept,) = job.exits
    assert (kept.pid, kept.slot, kept.exit_code, kept.term_signal, kept.reason) == (2, 2, None, 9, "oom")
    assert (kept.uptime, kept.at, kept.output, kept.oom) == (2.0, 1.5e9, "killed", True)


def test_a_start_that_failed_is_among_the_exits() -> None:
    job = job_of()
    book = starts(play(job)) << ev.Spawn(1, 1) >> ev.SpawnFailed(1, "program_not_found", "no such file", 1.5e9)
    assert book << ev.Publish("start_failed", 1, ANY) << ev.SetTimer(("backoff", 1), 0.1)
    (kept,) = job.exits
    assert (kept.exit_code, kept.term_signal, kept.uptime, kept.at) == (None, None, 0.0, 1.5e9)
    assert (kept.reason, kept.output) == ("program_not_found", "no such file")


@pytest.mark.parametrize(
    ("how", "asked", "reason"),
    [
        (SUCCESS, False, "exited"),
        (FAILURE, False, "exited"),
        (KILLED, False, "signaled"),
        (UNKNOWN, False, "unknown"),
        (SUCCESS, True, "stopped"),
        (KILLED, True, "stopped"),
        (UNKNOWN, True, "unknown"),
    ],
)
def test_the_reason_of_an_exit(how: Ending, asked: bool, reason: str) -> None:
    job = job_of()
    book = started(job)
    if asked:
        assert exits(book >> ev.ProcessStopRequested(1) << retire(1), 1, *how)
    else:
        assert exits(book, 1, *how) << terminate(1)
    assert job.exits[0].reason == reason
    assert (job.exits[0].exit_code, job.exits[0].term_signal) == how


def test_the_exit_of_a_committed_process_decides_nothing_about_the_job() -> None:
    job = job_of(kind="once", essential=True, max_restarts=1)
    book = commit(started(job), 7, 0)
    assert dies(book, 7, 3) << nothing
    assert (job.state, job.exits[0].pid, job.exits[0].slot) == (JobState.RUNNING, 7, 0)


def test_a_restart_ends_a_pause_for_flapping() -> None:
    system = System(flapping=FlappingInfo(attempts=1, window=60, retry_in=7, max_retry=5))
    system.tell(START)
    system.die()
    assert system.job.phase is Phase.HELD
    assert not system.alive
    system.tell(ev.RestartRequested())
    assert len(system.alive) == 1


def test_when_a_slot_starts_again_after_failures() -> None:
    system = System(startsecs=1.0)
    system.tell(START)
    slot = system.job.slots[1]
    assert system.job.retry_at(slot) is None
    system.die()
    assert system.job.retry_at(slot) == system.timers["backoff", 1] > system.now
    system.advance(1.0)
    assert system.job.retry_at(slot) is None
    system = System(flapping=FlappingInfo(attempts=1, window=60, retry_in=7, max_retry=5))
    system.tell(START)
    system.die()
    slot = system.job.slots[1]
    assert (system.job.phase, system.job.retry_at(slot)) == (Phase.HELD, system.now + 7)
    system.tell(ev.StopRequested())
    assert system.job.retry_at(slot) is None
