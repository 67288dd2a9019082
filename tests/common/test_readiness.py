"""Readiness and liveness of processes: by time, by probes, and after a reload signal."""

import signal
from unittest.mock import ANY

import msgspec
import pytest

from gaffer.jobs import events as ev
from gaffer.jobs.probing import Question
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import JobState
from support.job_steps import (
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
    terminate,
    timer,
    up,
)
from support.job_system import System
from support.playbook import nothing, play, wait

pytestmark = pytest.mark.pure

READY, LIVE = Question.READY, Question.LIVE

RECORD = ProcessRecord(9, "s.j", 1, 90, 90, 1, "boot", "n:9", 30.0, True)


def good(pid: int, question: Question = READY) -> ev.ProbeResult:
    return ev.ProbeResult(pid, question, True)


def bad(pid: int, error: str = "refused", question: Question = READY) -> ev.ProbeResult:
    return ev.ProbeResult(pid, question, False, error)


def spawned(book: Story, pid: int, start_timeout: float = 60.0) -> Story:
    """The process `pid`, which has a `ready` probe, was spawned."""
    deadline = [ev.SetTimer(("start", pid), start_timeout)] if start_timeout else []
    book = book >> ev.Spawned(pid, 1000 + pid) << deadline << ev.StartProbes(pid)
    return book << ev.Publish("spawn", pid, {"os_pid": 1000 + pid})


def ready(book: Story, pid: int) -> Story:
    """The `ready` probe of the new process `pid` passes."""
    return book >> good(pid) << ev.CancelTimer(("start", pid)) << ev.Publish("ready", pid)


def state_of(book: Story, pid: int) -> SlotState | None:
    slot = book.machine.slot_of(pid)  # type: ignore[attr-defined]
    return None if slot is None else slot.state


def test_without_a_probe_a_process_is_ready_after_startsecs() -> None:
    job = job_of(startsecs=2.0)
    book = started(job)
    assert (job.state, job.all_started, job.all_ready) == (JobState.STARTING, True, False)
    assert book >> wait(2.0) >> timer("ready", 1) << ev.Publish("ready", 1)
    assert (job.state, job.all_started, job.all_ready) == (JobState.RUNNING, True, True)
    assert book >> timer("ready", 1) << nothing


def test_without_startsecs_it_is_ready_at_once() -> None:
    job = job_of()
    book = starts(play(job)) << ev.Spawn(1, 1)
    assert (job.state, job.all_started) == (JobState.STARTING, False)
    assert book >> ev.Spawned(1, 1001) << ev.Publish("spawn", 1, {"os_pid": 1001}) << ev.Publish("ready", 1)
    assert job.all_ready


def test_a_job_is_ready_only_when_all_its_processes_are() -> None:
    job = job_of(numprocesses=2, startsecs=1.0)
    book = started(job) >> timer("ready", 2) << ev.Publish("ready", 2)
    assert (job.state, job.all_ready) == (JobState.RUNNING, False)
    assert book >> timer("ready", 1) << ev.Publish("ready", 1)
    assert job.all_ready
    assert book >> ev.Scaled(0) << ev.Publish("update") << retire(2, 1, kind="reap")
    assert (job.all_ready, job.all_started) == (False, False), "no process is ready"


def test_a_probe_decides_when_a_process_is_ready_not_startsecs() -> None:
    job = job_of(ready="tcp:80", startsecs=1.0)
    book = spawned(starts(play(job)) << ev.Spawn(1, 1), 1) >> wait(5.0)
    assert job.state is JobState.STARTING
    assert job.reason is None
    assert book >> bad(1, "connection refused") << nothing
    assert job.reason == "process 1 is not ready: connection refused"
    assert ready(book, 1)
    assert (job.state, job.reason, job.all_ready) == (JobState.RUNNING, None, True)
    assert book >> timer("start", 1) << nothing


def test_a_process_that_stops_being_ready_is_starting_again_but_has_no_deadline() -> None:
    job = job_of(ready="tcp:80", live="tcp:80", numprocesses=2)
    book = ready(spawned(starts(play(job)) << [ev.Spawn(1, 1), ev.Spawn(2, 2)], 1), 1)
    book = ready(spawned(book, 2), 2)
    assert book >> bad(1, "timeout") << ev.Publish("not_ready", 1, {"error": "timeout"})
    assert (state_of(book, 1), job.all_ready, job.pids()) == (SlotState.STARTING, False, [1, 2])
    assert (job.state, job.reason) == (JobState.RUNNING, "process 1 is not ready: timeout")
    assert book >> bad(1, "still") << nothing
    assert book >> good(1) << ev.Publish("ready", 1)
    assert (job.all_ready, job.reason) == (True, None)
    assert job.renewals == 1, "it is the same process, once started"


def adrift(book: Story, pid: int, cause: str, *cancelled: ev.Instruction) -> Story:
    """The process `pid` does not work and ends."""
    if cause == "not ready":
        book = book << ev.Publish("not_ready", pid, ANY)
    book = book << ev.Publish("stop_pid", pid, {"reason": cause, "message": ANY}) << cancelled << terminate(pid)
    return ends(book, pid)


@pytest.mark.parametrize("error", ["", "status 503"])
def test_a_process_that_is_not_ready_in_time_is_stopped_and_restarted_with_back_off(error: str) -> None:
    job = job_of(ready="tcp:80", start_timeout=7.0, startsecs=1.0)
    book = starts(play(job))
    for pid, delay in enumerate([0.1, 0.2, 0.4], start=1):
        book = spawned(book << ev.Spawn(pid, 1), pid, 7.0)
        if error:
            book = book >> bad(pid, error) << nothing
        book = book >> wait(7.0) >> timer("start", pid)
        book = adrift(book, pid, "not ready", ev.CancelTimer(("start", pid)), ev.StopProbes(pid))
        assert book << ev.SetTimer(("backoff", 1), delay)
        assert job.reason == f"process {pid} did not become ready within 7 s: {error or 'no answer'}"
        assert job.exits[0].reason == "not ready"
        assert (job.state, job.restarts) == (JobState.BACKOFF, pid)
        assert (job.crash_loop(book.now + 100.0) is not None) == (pid == 3), "however long the pause is"
        book = book >> wait(delay) >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1))
    book = ready(spawned(book << ev.Spawn(4, 1), 4, 7.0), 4)
    assert job.crash_loop(book.now) is not None, "they ended again and again"


def test_a_process_that_was_never_ready_is_restarted_with_back_off_however_long_it_lived() -> None:
    book = spawned(starts(play(job_of(ready="tcp:80", startsecs=1.0))) << ev.Spawn(1, 1), 1) >> wait(20.0)
    book = exits(book, 1, 3) << ev.CancelTimer(("start", 1)) << ev.StopProbes(1) << terminate(1)
    assert empties(book, 1) << ev.SetTimer(("backoff", 1), 0.1)


def test_a_process_that_was_ready_and_lived_startsecs_is_restarted_at_once() -> None:
    book = spawned(starts(play(job_of(ready="tcp:80", startsecs=1.0))) << ev.Spawn(1, 1), 1)
    book = exits(ready(book, 1) >> wait(1.0), 1, 3) << ev.StopProbes(1) << terminate(1)
    assert empties(book, 1) << ev.Spawn(2, 1)


def test_without_a_start_timeout_a_process_has_any_time_to_be_ready() -> None:
    job = job_of(ready="tcp:80", start_timeout=0)
    book = spawned(starts(play(job)) << ev.Spawn(1, 1), 1, 0) >> wait(1e6) >> good(1) << ev.Publish("ready", 1)
    assert book
    assert job.all_ready


def test_a_process_that_is_no_longer_live_is_replaced_with_back_off_and_the_reason() -> None:
    job = job_of(ready="notify", live="tcp:80", startsecs=1.0)
    book = ready(spawned(starts(play(job)) << ev.Spawn(1, 1), 1), 1) >> wait(5.0)
    book = book >> bad(1, "timeout", LIVE) << ev.Publish("not_live", 1, {"error": "timeout"})
    assert adrift(book, 1, "not live", ev.StopProbes(1)) << ev.SetTimer(("backoff", 1), 0.1)
    assert job.reason == "process 1 did not pass its live probe: timeout"
    assert (job.exits[0].reason, job.exits[0].exit_code, job.exits[0].uptime) == ("not live", 0, 5.0)
    book = book >> wait(0.1) >> timer("backoff", 1) << ev.CancelTimer(("backoff", 1)) << ev.Spawn(2, 1)
    assert ready(spawned(book, 2), 2)
    assert job.renewals == 2


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_a_live_probe_needs_no_ready_probe(seconds: float) -> None:
    job = job_of(live="tcp:80", startsecs=1.0)
    book = starts(play(job)) << ev.Spawn(1, 1) >> ev.Spawned(1, 1001) << ev.SetTimer(("ready", 1), 1.0)
    book = book << ev.StartProbes(1) << ev.Publish("spawn", 1, {"os_pid": 1001})
    assert book >> good(1, LIVE) << nothing
    assert job.state is JobState.STARTING, "it says nothing about readiness"
    cancelled = [ev.CancelTimer(("ready", 1))]
    if seconds == 1.0:
        book = book >> wait(1.0) >> timer("ready", 1) << ev.Publish("ready", 1)
        cancelled = []
    book = book >> bad(1, "timeout", LIVE) << ev.Publish("not_live", 1, {"error": "timeout"})
    assert adrift(book, 1, "not live", *cancelled, ev.StopProbes(1)) << ev.SetTimer(("backoff", 1), 0.1)


def stopped_by(book: Story, pid: int) -> Story:
    """Process `pid`, which has probes, is stopped on request."""
    book = book >> ev.ProcessStopRequested(pid) << ev.Publish("stop_pid", pid)
    return book << ev.StopProbes(pid) << terminate(pid)


@pytest.mark.parametrize("question", Question)
def test_a_verdict_on_what_was_not_asked_changes_nothing(question: Question) -> None:
    job = job_of(startsecs=1.0)
    book = commit(started(job), 7, 0)
    for pid in (1, 7, 99):
        assert book >> good(pid, question) << nothing >> bad(pid, "no", question) << nothing
    assert (state_of(book, 1), job.reason) == (SlotState.STARTING, None)


def test_a_late_verdict_on_a_process_that_stops_changes_nothing() -> None:
    job = job_of(ready="tcp:80", live="tcp:80")
    book = ready(spawned(starts(play(job)) << ev.Spawn(1, 1), 1), 1)
    book = stopped_by(book, 1) >> bad(1) << nothing >> bad(1, "no", LIVE) << nothing >> good(1) << nothing
    assert exits(book, 1)
    assert job.exits[0].reason == "stopped"


def test_draining_ends_the_probes_of_a_process() -> None:
    book = ready(spawned(starts(play(job_of(ready="tcp:80", drain_timeout=3.0))) << ev.Spawn(1, 1), 1), 1)
    book = book >> ev.ProcessStopRequested(1) << ev.Publish("stop_pid", 1) << ev.StopProbes(1)
    assert book << ev.SetTimer(("drain", 1), 3.0)


def test_a_reload_signals_the_leaders_and_probes_them_again() -> None:
    job = job_of(reload_signal="HUP", ready="tcp:80", live="tcp:80", numprocesses=2)
    book = ready(spawned(starts(play(job)) << [ev.Spawn(1, 1), ev.Spawn(2, 2)], 1), 1)
    book = spawned(book, 2) >> ev.ReloadRequested() << ev.Publish("reload")
    for pid in (1, 2):
        book = book << ev.Signal(pid, signal.SIGHUP, leader_only=True) << ev.StartProbes(pid, again=True)
    assert book >> bad(1, "reloading") << ev.Publish("not_ready", 1, {"error": "reloading"})
    assert book >> good(1) << ev.Publish("ready", 1)
    assert (job.pids(), job.renewals, job.restarts) == ([1, 2], 1, 0)


def test_a_reload_signal_reaches_only_processes_that_go_on() -> None:
    book = commit(started(job_of(reload_signal="USR1", numprocesses=3)), 7, 0)
    book = book >> ev.ProcessStopRequested(1) << retire(1)
    assert (
        book
        >> ev.ReloadRequested()
        << ev.Publish("reload")
        << [ev.Signal(pid, signal.SIGUSR1, leader_only=True) for pid in (2, 3)]
    )


def test_without_a_reload_signal_a_reload_replaces_the_processes() -> None:
    book = started(job_of()) >> ev.Scaled(2) << ev.Publish("update") << ev.Spawn(2, 2)
    book = up(book, 2) >> ev.ReloadRequested() << ev.Publish("restart") << retire(1) << retire(2, kind="reap")
    assert ends(ends(book, 2), 1) << ev.Spawn(3, 1)


def test_only_a_process_that_became_ready_in_the_place_of_one_renews_the_job() -> None:
    job = job_of(startsecs=1.0, backoff=0)
    book = up(dies(started(job), 1, early=True) << ev.Spawn(2, 1), 2, startsecs=1.0)
    assert book >> wait(1.0) >> timer("ready", 2) << ev.Publish("ready", 2)
    assert job.renewals == 1, "it was started once, but the first one was never ready"
    book = up(dies(book, 2) << ev.Spawn(3, 1), 3, startsecs=1.0)
    book = up(dies(book, 3, early=True) << ev.Spawn(4, 1), 4, startsecs=1.0)
    assert job.renewals == 1, "the third one was not ready either"
    assert book >> wait(1.0) >> timer("ready", 4) << ev.Publish("ready", 4)
    assert job.renewals == 2


def test_an_adopted_process_is_ready_at_once_only_without_a_probe() -> None:
    probed = play(job_of(detach=True, ready="tcp:80")) >> ev.Adopted(7, RECORD, age=50.0) << ev.Adopt(7, RECORD)
    probed = probed << ev.SetTimer(("start", 7), 60.0) << ev.StartProbes(7)
    assert ready(probed << ev.Publish("adopt", 7, {"os_pid": 90}), 7)
    young = (
        play(job_of(detach=True, startsecs=60.0, max_lifetime=100.0))
        >> ev.Adopted(7, RECORD, age=50.0)
        << ev.Adopt(7, RECORD)
    )
    young = (
        young
        << ev.SetTimer(("ready", 7), 10.0)
        << ev.SetTimer(("lifetime", 7), 45.0)
        << ev.Publish("adopt", 7, {"os_pid": 90})
    )
    assert young >> timer("ready", 7) << ev.Publish("ready", 7)


def test_an_adopted_committed_process_is_ready_at_once() -> None:
    job = job_of(detach=True, startsecs=60.0, ready="tcp:80", live="tcp:80", max_lifetime=100.0)
    record = msgspec.structs.replace(RECORD, slot=0)
    book = play(job) >> ev.Adopted(7, record, age=1.0) << ev.Adopt(7, record)
    assert book << ev.Publish("adopt", 7, {"os_pid": 90})
    assert state_of(book, 7) is SlotState.READY


def test_a_manager_that_stops_leaves_a_detached_process_without_probes_and_timers() -> None:
    system = System(detach=True, ready="tcp:80", live="tcp:80", max_lifetime=100.0)
    system.tell(ev.StartRequested())
    system.probe(1, good=True)
    system.tell(ev.ManagerStopping())
    assert system.released == {1}
    assert system.timers == {}
    assert system.probes == set()
    assert system.signals == []
