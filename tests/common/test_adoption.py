"""A detached process that an earlier manager left is counted again, and only if it is the one."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.failures import Failures, SlotFailures
from gaffer.jobs.recorder import Past, Recorder
from gaffer.jobs.records import ProcessRecord
from gaffer.loop import new_loop
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gaffer.processes import procfs
from gaffer.processes.survivors import Survivor
from support.managers import Recording, last_exit, running_manager
from support.poll import eventually

row = pytest.mark.row

CONFIG = ProcessConfig("j", "/bin/sleep 1000", detach=True, port="auto", graceful_timeout=60)


# Ends at SIGTERM, but what it starts in its group does not.
DEAF_CHILD = "(trap '' TERM; touch up; while :; do sleep 0.1; done) & exec sleep 1000"


@pytest.fixture
def left() -> Iterator[ProcessRecord]:
    """A process that a manager detached, and that is nobody's child any more."""
    with left_by_a_manager(CONFIG) as record:
        yield record


@contextmanager
def left_by_a_manager(config: ProcessConfig) -> Iterator[ProcessRecord]:
    loop = new_loop()
    records: dict[int, ProcessRecord] = {}

    class Records(Recorder):
        def spawned(self, record: ProcessRecord) -> None:
            records[record.pid] = record
            loop.call_soon(manager.stop)

        def ended(self, pid: int) -> None:
            raise AssertionError("a detached process does not end with its manager")

        def exited(self, job: str, exits: Iterable[ExitRecord], restarts: int, failures: object) -> None:
            raise AssertionError("a detached process does not end with its manager")

        def ran(self, job: str, at: float) -> None:
            raise AssertionError("no job has a schedule")

    manager = Manager(loop, recorder=Records(), node_id="n:1")
    manager.start()
    manager.load(config)
    manager.run()
    loop.close()
    (record,) = records.values()
    yield record
    if procfs.read_stat(record.os_pid) is not None:
        os.kill(record.os_pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # a subreaper, which is its parent only here, has reaped it
        os.waitpid(record.os_pid, 0)


def ended(record: ProcessRecord) -> bool:
    stat = procfs.read_stat(record.os_pid)
    return stat is None or stat.state == "Z"


@row("TPL-10")
def test_it_is_counted_watched_and_stopped_again(left: ProcessRecord) -> None:
    recording = Recording()
    with running_manager([recording], survivors=[Survivor(left)], node_id="n:2") as manager:
        manager.load(CONFIG)
        eventually(lambda: manager.pids("j"))
        (instance,) = manager.info("j")["instances"]
        assert instance["os_pid"] == left.os_pid
        assert instance["endpoints"][0]["port"] == left.port
        assert abs(instance["uptime"] - procfs.age(left.start_time)) < 1
        assert recording.of("adopt")[0]["os_pid"] == left.os_pid
        assert not recording.of("spawn")
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")
        assert ended(left)
        (message,) = eventually(lambda: recording.of("exit"))
        assert message["exit_code"] is None
        assert last_exit(manager, "j")["reason"] == "unknown"


def test_its_end_is_noticed_and_it_is_replaced(left: ProcessRecord) -> None:
    with running_manager(survivors=[Survivor(left)]) as manager:
        manager.load(CONFIG.replace(detach=True, startsecs=0))
        pid = eventually(lambda: manager.pids("j"))[0]
        manager.kill(pid, "KILL")
        new = eventually(lambda: [process for process in manager.list("j") if process.pid != pid])[0]
        assert ended(left)
        assert new.os_pid != left.os_pid
        manager.stop_job("j")
        eventually(lambda: not manager.running)


@pytest.mark.expects_errors("default.j is not adopted")
def test_another_process_under_its_number_is_left_alone(left: ProcessRecord) -> None:
    stranger = msgspec.structs.replace(left, start_time=left.start_time - 1)
    with running_manager(survivors=[Survivor(stranger)]) as manager:
        manager.load(CONFIG.replace(startsecs=0))
        eventually(lambda: manager.pids("j") and manager.list("j")[0].os_pid != left.os_pid)
        assert not ended(left)
        manager.stop_job("j")
        eventually(lambda: not manager.running)
        assert not ended(left)


@pytest.mark.parametrize(("changes", "start"), [({"detach": False}, True), ({}, False), ({"numprocesses": 0}, True)])
def test_a_job_that_does_not_want_it_ends_it(left: ProcessRecord, changes: dict[str, object], start: bool) -> None:
    with running_manager(survivors=[Survivor(left)]) as manager:
        manager.load(CONFIG.replace(**changes), start=start)
        eventually(lambda: ended(left))
        manager.stop_job("j")
        eventually(lambda: not manager.running)


def test_what_no_job_claims_runs_on(left: ProcessRecord) -> None:
    with running_manager(survivors=[Survivor(left)]) as manager:
        manager.load(CONFIG.replace(name="other", detach=False))
        eventually(lambda: manager.pids("other"))
    assert not ended(left)


def test_it_keeps_the_port_of_its_env_file(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("PORT=5000\n")
    config = CONFIG.replace(port=None, env_file=["env"], cwd=str(tmp_path))
    with left_by_a_manager(config) as record, running_manager(survivors=[Survivor(record)]) as manager:
        (tmp_path / "env").write_text("PORT=6000\n")
        manager.load(config)
        eventually(lambda: manager.pids("j"))
        assert manager.info("j")["instances"][0]["port"] == 5000
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")


@pytest.mark.parametrize("subreaper", [True, False])
def test_what_outlives_it_in_its_group_is_killed(tmp_path: Path, subreaper: bool) -> None:
    config = CONFIG.replace(cmd="/bin/sh", args=["-c", DEAF_CHILD], cwd=str(tmp_path), graceful_timeout=0.2)
    with left_by_a_manager(config) as record:
        eventually((tmp_path / "up").exists)
        with running_manager(survivors=[Survivor(record)], subreaper=subreaper) as manager:
            manager.load(config)
            eventually(lambda: manager.pids("j"))
            manager.stop_job("j")
            eventually(lambda: manager.info("j")["state"] == "stopped")
            assert not [pid for pid in procfs.all_pids() if is_member(pid, record.pgid)]


def is_member(pid: int, group: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.pgrp == group and stat.state not in "ZX"


def test_survivors_of_a_job_that_no_longer_exists_are_ended_before_its_name_is_used_again(left: ProcessRecord) -> None:
    record = msgspec.structs.replace(left, detach=False, definition="another")
    recording = Recording()
    with running_manager([recording], survivors=[Survivor(record)]) as manager:
        assert manager.end_unclaimed() == ["default.j"]
        assert manager.end_unclaimed() == []
        manager.load(CONFIG.replace(startsecs=0))
        eventually(lambda: manager.pids("j"))
        assert ended(left)
        (message,) = recording.of("exit")
        assert (message["os_pid"], message["stopped"]) == (left.os_pid, True)
        manager.stop_job("j")
        eventually(lambda: not manager.running)


def test_no_process_gets_the_id_of_an_exit_that_is_remembered() -> None:
    past = {"default.j": Past(exits=[ExitRecord(pid, 1, 3, 0, "exited", 1.0, 0.0) for pid in (7, 6)])}
    with running_manager(past=past) as manager:
        manager.load(ProcessConfig("j", "sleep 1000"))
        eventually(lambda: list(manager.running) == [8])
        assert [each["pid"] for each in manager.exits("j")] == [7, 6]


def test_exits_of_survivors_that_are_stored_already_are_not_counted_again_and_keep_their_order() -> None:
    config = ProcessConfig("j", "sleep 1000", backoff=1000, backoff_max=1000)
    with subprocess.Popen("true") as gone:
        gone.wait()
    survivors, exits = [], []
    for pid in (2, 1):  # the second one has replaced the first
        record = ProcessRecord(pid, "default.j", 1, gone.pid, gone.pid, 1, procfs.boot_id(), f"n:{pid}", 30.0, False)
        kept = msgspec.structs.replace(
            record, definition=config.launch_digest, restarts=pid - 1, spawned_at=time.monotonic()
        )
        survivors.append(Survivor(kept, exited=True, status=3 << 8))
        exits.append(ExitRecord(pid, 1, 3, 0, "exited", 0.1, 0.0, restarts=pid - 1))
    manager = Manager(new_loop(), survivors=survivors, past={"default.j": Past(exits=exits, restarts=2)})
    manager.start()
    manager.load(config)
    manager.adopt()
    assert [each["pid"] for each in manager.exits("j")] == [2, 1]
    assert (manager.info("j")["restarts"], manager.info("j")["state"]) == (2, "backoff")
    manager.stop()
    manager.run()
    manager.loop.close()


class Parent:
    """What is said to be the parent of survivors."""

    connected = True

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.report: Callable[[int | None, float | None], object] | None = None

    def watch(self, os_pid: int, callback: Callable[[int | None, float | None], object]) -> None:
        self.report = callback


@pytest.mark.parametrize("holds", [True, False])
def test_the_group_of_one_that_has_exited_is_ours_only_while_its_parent_holds_it(tmp_path: Path, holds: bool) -> None:
    config = CONFIG.replace(cmd="/bin/sh", args=["-c", DEAF_CHILD], cwd=str(tmp_path))
    with left_by_a_manager(config) as left:
        eventually((tmp_path / "up").exists)
        stat = procfs.read_stat(left.os_pid)
        assert stat is not None
        parent, config = Parent(stat.ppid if holds else stat.pid), config.replace(detach=False)
        record = msgspec.structs.replace(left, detach=False, definition=config.launch_digest)
        with running_manager(survivors=[Survivor(record, {}, parent)]) as manager:
            manager.load(config)
            process = eventually(lambda: manager.running.get(left.pid))
            report = eventually(lambda: parent.report)
            assert process.pins_group
            os.kill(left.os_pid, signal.SIGKILL)
            manager.loop.call_soon_threadsafe(report, signal.SIGKILL, None)
            eventually(lambda: process.exit_status is not None)
            assert process.pins_group is holds
        assert not [pid for pid in procfs.all_pids() if is_member(pid, record.pgid)]


@pytest.mark.parametrize("same", [True, False])
def test_back_off_goes_on_unless_the_definition_has_changed(same: bool) -> None:
    config = ProcessConfig("j", "sleep 1000")
    failures = Failures(config.launch_digest if same else "another", {1: SlotFailures(3, 3, time.monotonic() + 1000)})
    with running_manager(past={"default.j": Past(failures=failures)}) as manager:
        manager.load(config)
        eventually(lambda: manager.info("j")["state"] == ("backoff" if same else "running"))
