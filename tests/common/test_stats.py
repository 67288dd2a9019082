"""Stats: what is measured, and watching it as the documentation's overview does."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gaffer import Manager
from gaffer.errors import ProcessNotFound
from gaffer.jobs.names import JobName
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.processes.stats import format_ctime, get_process_stats, stats_of
from gaffer.supervision.serializers import job_stats
from support.managers import running_manager
from support.poll import eventually

row = pytest.mark.row

SLEEP = "/bin/sleep 1000"
KEYS = {"mem_info1", "mem_info2", "cpu", "mem", "ctime", "username", "nice", "cmdline", "children", "pid", "os_pid"}
SPIN = f"{sys.executable} -c 'while True: pass'"


class Watcher:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, message: dict[str, Any]) -> None:
        self.calls.append((event, message))

    @property
    def pids(self) -> list[int]:
        return [message["pid"] for _, message in self.calls]

    def wait(self, more: int = 1) -> dict[str, Any]:
        """The newest message, once that many more have come."""
        count = len(self.calls) + more
        eventually(lambda: len(self.calls) >= count)
        return self.calls[-1][1]


def turns_of_the_loop(manager: Manager) -> int:
    """How often the thread of the manager's loop has gone to sleep."""
    (thread,) = (t for t in threading.enumerate() if t.name == "manager")
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[0])


@pytest.fixture
def manager() -> Iterator[Manager]:
    with running_manager() as manager:
        yield manager


def load(manager: Manager, name: str = "j", command: str = SLEEP, **settings: Any) -> None:
    manager.load(ProcessConfig(name, command, **settings))
    count = settings.get("numprocesses", 1)
    eventually(lambda: len(manager.pids(name)) == count)


@row("STAT-04", "STAT-10")
def test_the_stats_of_this_process() -> None:
    stats = get_process_stats()
    assert stats.keys() == KEYS - {"pid", "os_pid"}
    assert re.fullmatch(r"\d+[KMG]", stats["mem_info1"])
    assert re.fullmatch(r"\d+[KMG]", stats["mem_info2"])
    assert 0 < stats["mem"] < 100
    assert stats["cpu"] > 0
    assert re.fullmatch(r"\d+:\d\d\.\d\d", stats["ctime"])
    assert stats["nice"] == os.nice(0)
    assert stats["username"] == psutil.Process().username()
    assert stats["cmdline"].split() == " ".join(psutil.Process().cmdline()).split()


@row("STAT-10")
def test_the_cpu_share_over_an_interval() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            eventually(lambda: get_process_stats(child.pid)["ctime"] != "0:00.00")
            busy = get_process_stats(child.pid, interval=0.2)
            os.kill(child.pid, signal.SIGSTOP)
            stopped = get_process_stats(psutil.Process(child.pid), interval=0.2)
        finally:
            child.kill()
    assert busy["cpu"] > 1
    assert stopped["cpu"] < busy["cpu"]


@row("STAT-11")
def test_a_process_that_is_gone_has_stats_without_values() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        zombie = get_process_stats(child.pid)
    for stats in (zombie, get_process_stats(child.pid)):
        assert stats.pop("children") == []
        assert set(stats.values()) == {"N/A"}


@row("STAT-09")
@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.00"), (0.444, "0:00.44"), (59.999, "1:00.00"), (754, "12:34.00")]
)
def test_cpu_time_for_people(seconds: float, text: str) -> None:
    assert format_ctime(seconds) == text


@row("STAT-05")
def test_children_have_the_same_stats(manager: Manager) -> None:
    load(manager, command="sh -c 'sleep 1001 & sh -c \"sleep 1002 & wait\" & wait'")
    process = manager.running[1]
    children = eventually(lambda: len(found := process.stats["children"]) == 3 and found)
    assert {"sleep 1001", "sleep 1002"} < {child["cmdline"] for child in children}
    for child in children:
        assert child.keys() == KEYS - {"pid"}
        assert psutil.Process(child["os_pid"]).cmdline()[0] == child["cmdline"].split()[0]


@row("STAT-01", "STAT-02", "STAT-03", "STAT-04", "MGR-57")
def test_watching_a_job(manager: Manager) -> None:
    watcher = Watcher()
    load(manager, numprocesses=2)
    started = time.monotonic()
    manager.monitor("j", watcher)
    watcher.wait(10)
    assert time.monotonic() - started > 0.3  # five rounds have four pauses
    assert {event for event, _ in watcher.calls} == {"STATS"}
    assert set(watcher.pids) == {1, 2}
    message = watcher.calls[0][1]
    assert message.keys() == KEYS
    assert message["os_pid"] == manager.running[message["pid"]].os_pid
    assert message["cmdline"] == SLEEP


@row("MGR-57")
def test_processes_that_start_later_are_watched_too(manager: Manager) -> None:
    watcher = Watcher()
    manager.load(ProcessConfig("shop.j", SLEEP, start=False))
    manager.monitor(watcher, "shop.j")
    manager.start_job("shop.j")
    eventually(lambda: 1 in watcher.pids)
    manager.stop_process(1)
    eventually(lambda: 2 in watcher.pids)
    committed = manager.commit("shop.j")
    eventually(lambda: committed in watcher.pids)


@row("MGR-57", "MGR-58", "STAT-06")
@pytest.mark.parametrize("name_first", [True, False])
@pytest.mark.parametrize("target", ["j", 1, "1", "default.j"])
def test_the_arguments_may_change_places(manager: Manager, name_first: bool, target: str | int) -> None:
    watcher = Watcher()
    load(manager)
    arguments: Any = (target, watcher) if name_first else (watcher, target)
    manager.monitor(*arguments)
    watcher.wait()
    manager.unmonitor(*arguments)
    settled(watcher)


def settled(watcher: Watcher) -> None:
    """Nothing more comes: two rounds' time passes without a call."""
    eventually(lambda: quiet(watcher))


def quiet(watcher: Watcher) -> bool:
    count = len(watcher.calls)
    time.sleep(0.25)  # what does not happen can only be waited for
    return len(watcher.calls) == count


def test_what_is_not_there_can_not_be_watched(manager: Manager) -> None:
    for target in ("nope", 99):
        with pytest.raises(ProcessNotFound):
            manager.monitor(Watcher(), target)
        manager.unmonitor(Watcher(), target)
    with pytest.raises(ValueError, match="a listener and a job name or pid"):
        manager.monitor("j", "k")


@row("STAT-08")
def test_watching_one_process_by_itself(manager: Manager) -> None:
    watcher, other = Watcher(), Watcher()
    load(manager, numprocesses=2)
    manager.running[1].monitor(watcher)
    manager.running[2].monitor(other)
    watcher.wait(2)
    other.wait()
    assert set(watcher.pids) == {1}
    manager.running[1].unmonitor(watcher)
    settled(watcher)
    other.wait()


@row("STAT-11")
def test_watching_ends_silently_with_the_process(manager: Manager) -> None:
    watcher, of_job = Watcher(), Watcher()
    load(manager, backoff=100)
    manager.running[1].monitor(watcher)
    manager.monitor(of_job, "j")
    watcher.wait()
    manager.kill(1, "KILL")
    settled(watcher)
    assert "N/A" not in [message["cmdline"] for _, message in watcher.calls]
    manager.unload("j")
    manager.load(ProcessConfig("j", SLEEP))
    eventually(lambda: manager.pids("j"))
    settled(of_job)


@row("STAT-07")
def test_nothing_runs_while_nobody_watches(manager: Manager) -> None:
    load(manager, numprocesses=3)
    watcher = Watcher()
    manager.monitor("j", watcher)
    manager.monitor("1", watcher)
    watcher.wait(8)
    manager.unmonitor("j", watcher)
    manager.unmonitor("1", watcher)
    settled(watcher)
    before = turns_of_the_loop(manager)
    time.sleep(0.5)
    assert turns_of_the_loop(manager) - before <= 1
    manager.monitor("j", watcher)
    watcher.wait(2)


@row("STAT-03")
@pytest.mark.expects_errors("a listener of the stats of default.j failed")
def test_a_listener_that_raises_disturbs_no_other(manager: Manager) -> None:
    def broken(event: str, message: dict[str, Any]) -> None:
        raise RuntimeError("broken on purpose")

    watcher = Watcher()
    load(manager)
    manager.monitor("j", broken)
    manager.monitor("j", watcher)
    watcher.wait(3)


@row("STAT-01")
def test_the_cpu_share_is_of_the_time_since_the_round_before(manager: Manager) -> None:
    watcher = Watcher()
    load(manager, command=SPIN)
    manager.monitor("j", watcher)
    eventually(lambda: watcher.wait()["cpu"] > 20)
    manager.kill(1, "STOP")
    eventually(lambda: watcher.wait()["cpu"] == 0)  # since the start it would sink, never to nothing


@row("MGR-51", "STAT-02")
def test_many_processes_are_measured_without_holding_up_the_loop(manager: Manager) -> None:
    watcher = Watcher()
    load(manager, numprocesses=200)
    started = time.monotonic()
    assert len(manager.stats("j")["stats"]) == 200
    assert time.monotonic() - started < 2  # a look at all processes for each of them takes longer than that
    turns: list[float] = []

    def turn() -> None:
        turns.append(time.monotonic())
        manager.loop.call_later(0, turn)

    manager.monitor("j", watcher)
    manager.loop.call_soon_threadsafe(turn)
    eventually(lambda: len(watcher.calls) >= 600)
    pauses = sorted(after - before for before, after in itertools.pairwise(turns))
    assert pauses[-len(pauses) // 100] < 0.1


@row("STAT-05")
def test_the_stats_of_several_processes_in_the_order_given(manager: Manager) -> None:
    load(manager, numprocesses=2)
    first, second = manager.list("j")
    assert [stat["os_pid"] for stat in stats_of([second, first])] == [second.os_pid, first.os_pid]


@row("MGR-57")
def test_watching_may_begin_before_the_manager_runs() -> None:
    watcher = Watcher()
    manager = Manager(new_loop())
    manager.load(ProcessConfig("j", SLEEP))
    manager.monitor("j", watcher)
    manager.start()
    thread = threading.Thread(target=manager.run)
    thread.start()
    watcher.wait(2)
    manager.stop(now=True)
    thread.join(20)
    manager.loop.close()


@row("MGR-51")
@pytest.mark.parametrize(
    ("mem", "expected"),
    [
        ([], ("N/A", "N/A", "N/A")),
        (["N/A"], ("N/A", "N/A", "N/A")),
        ([0.5], (0.5, 0.5, 0.5)),
        ([0.25, "N/A", 1.5, 0.5], (2.25, 1.5, 0.25)),
    ],
)
def test_the_stats_of_a_job_are_sums_and_extremes_of_those_of_its_processes(mem: list[Any], expected: Any) -> None:
    found = [{"pid": pid, "mem": share, "cpu": share} for pid, share in enumerate(mem, 1)]
    stats = job_stats(JobName("shop", "web"), found)
    assert (stats["name"], stats["stats"]) == ("shop.web", found)
    for key in ("mem", "cpu"):
        assert (stats[key], stats[f"max_{key}"], stats[f"min_{key}"]) == expected
