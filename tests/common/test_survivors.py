"""A job that takes over the processes that an earlier manager left."""

import signal

import msgspec
import pytest
from msgspec import structs

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.rollout import RolloutKind, RolloutState
from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import JobState, Phase
from support.job_steps import START
from support.job_system import System

pytestmark = pytest.mark.pure


def record_of(config: JobConfig, state: SlotState = SlotState.READY, slot: int = 1) -> ProcessRecord:
    return ProcessRecord(
        1, "s.j", slot, 90, 90, 1, "boot", "n:9", 30.0, False, state=state, definition=config.launch_digest
    )


def adopts(system: System, record: ProcessRecord, age: float = 50.0) -> int:
    """`system` adopts a process and is started; return its pid."""
    pid = system.next_pid()
    system.tell(ev.Adopted(pid, record, age), START)
    return pid


def test_a_process_goes_on_in_its_slot_and_is_restarted_like_any_other() -> None:
    system = System()
    pid = adopts(system, record_of(system.job.config))
    assert (system.job.state, system.job.pids(), system.signals) == (JobState.RUNNING, [pid], [])
    system.exit(pid, 3)
    system.group_empty(pid)
    assert system.job.exits[0].exit_code == 3
    assert system.job.restarts == 1
    assert system.job.pids() == [pid + 1]


def test_one_that_passed_its_probe_is_ready_before_the_next_probe() -> None:
    system = System(ready="tcp:80")
    pid = adopts(system, record_of(system.job.config))
    assert system.job.all_ready
    assert system.probes == {pid}
    system.probe(pid, good=False)
    assert not system.job.all_ready


def test_one_that_was_not_ready_yet_is_probed_first() -> None:
    system = System(ready="tcp:80")
    adopts(system, record_of(system.job.config, SlotState.STARTING))
    assert not system.job.all_ready


@pytest.mark.parametrize("state", [SlotState.STOPPING, SlotState.DRAINING])
def test_one_that_was_being_stopped_is_stopped_and_replaced(state: SlotState) -> None:
    system = System()
    pid = adopts(system, record_of(system.job.config, state))
    assert system.signals == [(pid, signal.SIGTERM)]
    system.exit(pid)
    system.group_empty(pid)
    assert (system.job.pids(), system.job.exits[0].reason) == ([pid + 1], "stopped")


def test_one_of_another_definition_is_replaced() -> None:
    system = System(cmd="new")
    pid = adopts(system, record_of(system.job.config.replace(cmd="old")))
    assert system.signals == [(pid, signal.SIGTERM)]
    system.exit(pid)
    system.group_empty(pid)
    assert (system.job.pids(), system.job.exits[0].reason) == ([pid + 1], "update")


@pytest.mark.parametrize("kind", [RolloutKind.UPDATE, RolloutKind.RESTART])
def test_a_rollout_goes_on(kind: RolloutKind) -> None:
    system = System(cmd="new", numprocesses=3)
    config = system.job.config.replace(cmd="old") if kind is RolloutKind.UPDATE else system.job.config
    record = structs.replace(record_of(config), outdated=kind)
    pids = [system.next_pid() for _ in range(3)]
    adopted = [ev.Adopted(pid, structs.replace(record, slot=slot), 50.0) for slot, pid in enumerate(pids, 1)]
    system.tell(*adopted, START)
    for number, pid in enumerate(pids, 1):
        assert system.signals == [(each, signal.SIGTERM) for each in pids[:number]]
        system.exit(pid)
        system.group_empty(pid)
        assert system.job.exits[0].reason == kind.value
        system.advance(system.job.config.startsecs)
    assert system.job.rollout is not None
    assert (system.job.rollout.state, system.job.rollout.replaced) == (RolloutState.DONE, 3)


def test_one_of_a_definition_that_differs_only_in_live_settings_goes_on() -> None:
    system = System(graceful_timeout=7.0)
    adopts(system, record_of(system.job.config.replace(graceful_timeout=8.0)))
    assert system.signals == []


def test_one_that_is_not_to_survive_is_replaced() -> None:
    system = System(survive=False)
    pid = adopts(system, record_of(system.job.config))
    assert system.signals == [(pid, signal.SIGTERM)]


def test_the_newest_of_two_takes_the_slot() -> None:
    system = System()
    old, new = system.next_pid(), system.next_pid()
    record = record_of(system.job.config)
    for pid in (new, old):
        system.tell(ev.Adopted(pid, msgspec.structs.replace(record, pid=pid), 50.0))
    system.tell(START)
    assert (system.job.pids(), system.signals) == ([new], [(old, signal.SIGTERM)])


@pytest.mark.parametrize("definition", ["new", "old"])
def test_one_that_has_exited_is_not_stopped_first(definition: str) -> None:
    system = System(cmd="new")
    pid = system.next_pid()
    record = record_of(system.job.config.replace(cmd=definition))
    system.tell(ev.Adopted(pid, record, 50.0, exited=True), START)
    assert system.signals == []
    system.exit(pid, 42)
    system.group_empty(pid)
    assert (system.job.exits[0].exit_code, system.job.exits[0].reason) == (42, "exited")
    assert system.job.pids() == [pid + 1]


def test_the_exit_of_one_that_was_replaced_already_has_no_further_effect() -> None:
    system = System(max_restarts=1)
    old, new = system.next_pid(), system.next_pid()
    record = record_of(system.job.config)
    system.tell(ev.Adopted(new, msgspec.structs.replace(record, pid=new), 1.0))
    system.tell(ev.Adopted(old, record, 50.0, exited=True), START)
    system.exit(old, 42)
    system.group_empty(old)
    assert (system.job.pids(), system.job.restarts) == ([new], 0)
    assert (system.job.exits[0].exit_code, system.job.exits[0].reason) == (42, "exited")


def test_a_run_of_a_schedule_goes_on_and_ends_as_usual() -> None:
    system = System(every=30)
    pid = adopts(system, record_of(system.job.config))
    assert (system.job.state, system.signals) == (JobState.RUNNING, [])
    system.exit(pid, 0)
    system.group_empty(pid)
    assert system.job.state is JobState.WAITING
    system.tell(ev.ScheduleDue(1.0))
    assert system.job.pids() == [pid + 1]


def test_a_job_that_runs_once_completes_with_it() -> None:
    system = System(kind="once")
    pid = adopts(system, record_of(system.job.config))
    system.exit(pid, 0)
    system.group_empty(pid)
    assert system.job.phase is Phase.COMPLETED


def test_one_that_a_connection_started_goes_on_until_it_is_idle() -> None:
    system = System(start="on-connection", idle_timeout=5.0, socket=["http=tcp:127.0.0.1:80"])
    pid = adopts(system, record_of(system.job.config))
    assert system.signals == []
    assert ev.AwaitIdle() in [each for step in system.job.story for each in step.instructions]
    system.tell(ev.ConnectionsIdle())
    assert system.signals == [(pid, signal.SIGTERM)]


@pytest.mark.parametrize("survive", [False, True])
def test_a_stop_closes_the_sockets_of_an_adopted_process(survive: bool) -> None:
    system = System(socket=["tcp:127.0.0.1:80"], survive=survive)
    pid = system.next_pid()
    system.tell(ev.Adopted(pid, record_of(system.job.config), 50.0), START, ev.StopRequested())
    assert system.sockets_open
    system.exit(pid)
    system.group_empty(pid)
    assert not system.sockets_open


def test_a_stop_forgets_what_called_for_an_adopted_process() -> None:
    system = System(every=30)
    pid = system.next_pid()
    system.tell(ev.Adopted(pid, record_of(system.job.config), 50.0), ev.StopRequested(), START)
    system.exit(pid)
    system.group_empty(pid)
    assert (system.job.state, system.job.pids()) == (JobState.WAITING, [])
