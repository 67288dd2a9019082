"""The names of 0.4: groups, and processes for jobs; and the queries over processes."""

from collections.abc import Iterator

import pytest

from gaffer import Manager
from gaffer.errors import BadRequest, ProcessNotFound
from gaffer.process import Process, ProcessConfig
from support.managers import Recording, running_manager
from support.poll import eventually

row = pytest.mark.row

SLEEP = "/bin/sleep 1000"


@pytest.fixture
def manager() -> Iterator[Manager]:
    with running_manager() as manager:
        yield manager


def states(manager: Manager) -> dict[str, str]:
    return {name: manager.info(name)["state"] for name in manager.jobs()}


@row("MGR-26", "MGR-25")
def test_groups(manager: Manager) -> None:
    for name in ("shop:web", "shop:db", "blog:web"):
        manager.add_process(name, SLEEP, start=False, startsecs=0)
    assert manager.get_groups() == ["shop", "blog"]
    assert manager.get_group("shop") == ["web", "db"]
    assert manager.get_group("blog") == ["web"]
    with pytest.raises(BadRequest, match="can't be in the session 'blog'"):
        manager.load(ProcessConfig("shop.more", SLEEP), "blog")
    manager.start_group("shop")
    eventually(lambda: states(manager) == {"shop.web": "running", "shop.db": "running", "blog.web": "stopped"})
    manager.restart_group("shop")
    eventually(lambda: sorted(manager.pids()) == [3, 4])
    manager.start_group("blog")
    manager.stop_group("shop")
    eventually(lambda: states(manager) == {"shop.web": "stopped", "shop.db": "stopped", "blog.web": "running"})
    manager.remove_group("shop")
    assert manager.jobs() == ["blog.web"]
    for call in (
        manager.get_group,
        manager.start_group,
        manager.stop_group,
        manager.restart_group,
        manager.remove_group,
    ):
        with pytest.raises(ProcessNotFound):
            call("shop")


@row("MGR-45")
def test_all_jobs_start_and_stop(manager: Manager) -> None:
    for name in ("a", "s.b"):
        manager.load(ProcessConfig(name, SLEEP, start=False, startsecs=0))
    manager.start_processes()
    eventually(lambda: set(states(manager).values()) == {"running"})
    manager.stop_processes()
    eventually(lambda: set(states(manager).values()) == {"stopped"})
    assert manager.pids() == []


@row("MGR-46")
def test_jobs_under_their_old_names(manager: Manager) -> None:
    manager.add_process("shop:web", SLEEP, numprocesses=2, env={"A": "1"})
    assert manager.get("shop.web").numprocesses == 2
    with pytest.raises(KeyError):
        manager.add_process("shop:web", SLEEP)
    eventually(lambda: len(manager.pids("shop.web")) == 2)
    assert manager.get_process_info("shop.web")["cmd"] == SLEEP
    status = manager.get_process_status("shop.web")
    assert status == {"active": True, "running": 2, "max_processes": 2, "numprocesses": 2}
    assert manager.ttin("shop.web") == 3
    assert manager.ttin("shop.web", 2) == 5
    assert manager.ttou("shop.web", 4) == 1
    eventually(lambda: manager.pids("shop.web") == [1])
    manager.restart_process("shop.web")
    eventually(lambda: len(manager.pids("shop.web")) == 2 and 1 not in manager.pids())
    manager.update_process("shop.web", "sleep 1001")
    eventually(lambda: [process.cmd for process in manager.list("shop.web")] == ["sleep 1001"])
    manager.stop_job("shop.web")
    eventually(lambda: manager.pids() == [])
    manager.start_process("shop.web")
    eventually(lambda: manager.pids())
    manager.remove_process("shop.web")
    assert manager.jobs() == []


@row("MGR-46")
def test_processes_under_their_old_names(manager: Manager) -> None:
    manager.add_process("a", SLEEP)
    manager.add_process("b", SLEEP)
    eventually(lambda: len(manager.running_processes()) == 2)
    first, second = manager.running_processes()
    assert (first.pid, second.pid) == (1, 2)
    assert [stats["os_pid"] for stats in manager.processes_stats()] == [first.os_pid, second.os_pid]
    assert manager.get_process_stats(first.pid)["os_pid"] == first.os_pid
    assert manager.get_process_stats("b")["stats"][0]["os_pid"] == second.os_pid
    manager.send_signal(first.pid, "KILL")
    eventually(lambda: manager.pids("a") == [3])
    manager.send_signal("b", 9)
    eventually(lambda: manager.pids("b") == [4])


@row("MGR-52", "MGR-53", "MGR-54", "MGR-55", "MGR-56")
def test_queries_over_processes(manager: Manager) -> None:
    manager.load(ProcessConfig("a", SLEEP, numprocesses=2))
    manager.load(ProcessConfig("s.b", SLEEP))
    eventually(lambda: len(manager.list()) == 3)
    process = manager.get_process(1)
    assert (process.pid, process.name) == (1, "a")
    assert process is manager.running[1]
    committed = manager.commit("a")
    eventually(lambda: committed in manager.pids())
    assert committed not in manager.pids("a")
    assert manager.list("s.b") == [manager.running[3]]
    assert (manager.pids(), manager.pids("a")) == ([1, 2, 3, committed], [1, 2])
    walked: list[tuple[Manager, Process]] = []
    manager.walk(lambda *args: walked.append(args))
    assert walked == [(manager, each) for each in manager.list()]
    manager.walk(lambda _, each: manager.stop_process(each.pid), "s.b")
    eventually(lambda: manager.pids("s.b") not in ([], [3]))
    first, second = manager.get_process_id(), manager.get_process_id()
    assert max(manager.running) < first < second
    manager.scale("s.b", 1)
    eventually(lambda: len(manager.pids("s.b")) == 2)
    assert max(manager.pids("s.b")) > second
    with pytest.raises(ProcessNotFound):
        manager.list("nope")
    with pytest.raises(ProcessNotFound):
        manager.walk(print, "nope")


@row("MGR-44")
def test_managing_a_job_starts_at_once_what_waits_for_its_next_start() -> None:
    recording = Recording("exit")
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", "true", numprocesses=2, backoff=100, backoff_max=100))
        eventually(lambda: [i["state"] for i in manager.info("j")["instances"]] == ["backoff", "backoff"])
        manager.manage("j")
        eventually(lambda: len(recording.seen) == 4)
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")
        manager.manage("j")
        assert manager.info("j")["state"] == "stopped"
        with pytest.raises(ProcessNotFound):
            manager.manage("nope")
