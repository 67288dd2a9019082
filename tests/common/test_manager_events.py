"""What a manager announces, and under which names."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gaffer import Manager
from gaffer.errors import BadRequest
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from support.managers import Recording, last_exit, running_manager
from support.poll import eventually

row = pytest.mark.row

SLEEP = "/bin/sleep 1000"
STORY = "start spawn ready kill stop_pid exit spawn ready reap exit stop".split()
TWO = ProcessConfig("j", SLEEP, numprocesses=2, startsecs=0)

Action = Callable[[Manager], Any]


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def manager(recording: Recording) -> Iterator[Manager]:
    with running_manager([recording]) as manager:
        yield manager


def both(*kinds: str) -> list[str]:
    """Events of processes and runs come under the manager's name, then under the job's."""
    return [name for kind in kinds for name in (kind, f"proc.j.{kind}")]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        pytest.param(lambda m: m.start_job("j"), both("start"), marks=row("EVT-03", "EVT-21")),
        pytest.param(
            lambda m: m.stop_job("j"),
            both("stop", "stop_pid", "stop_pid", "exit", "exit"),
            marks=row("EVT-04", "EVT-24", "EVT-10", "EVT-11"),
        ),
        pytest.param(
            lambda m: m.reload("j"),
            both("restart", *["stop_pid"] * 2, *["exit"] * 2, *["spawn", "ready"] * 2),
            marks=row("EVT-05"),
        ),
        pytest.param(lambda m: m.scale("j", 1), ["update", *both("spawn", "ready")], marks=row("EVT-06", "EVT-08")),
        pytest.param(lambda m: m.scale("j", -1), ["update", *both("reap", "exit")], marks=row("EVT-09", "EVT-26")),
        pytest.param(lambda m: m.update(TWO.replace(graceful_timeout=1)), ["update"], marks=row("EVT-06")),
        pytest.param(
            lambda m: m.unload("j"),
            [*both("stop", "stop_pid", "stop_pid"), "delete", *both("exit", "exit")],
            marks=row("EVT-07"),
        ),
        pytest.param(
            lambda m: m.stop_process(2),
            both("stop_pid", "exit", "spawn", "ready"),
            marks=row("EVT-11", "EVT-25"),
        ),
        pytest.param(lambda m: m.kill(1, "CONT"), both("kill"), marks=row("EVT-28")),
        pytest.param(
            lambda m: m.killall("j", "KILL"), both("kill", "exit", "exit", *["spawn", "ready"] * 2), marks=row("EVT-10")
        ),
        pytest.param(lambda m: m.commit("j"), both("spawn"), marks=row("EVT-08")),
        pytest.param(lambda m: m.load(ProcessConfig("j", SLEEP, start=False), "shop"), ["create"], marks=row("EVT-02")),
    ],
)
@row("MGR-15")
def test_each_order_and_each_exit_is_announced(
    manager: Manager, recording: Recording, action: Action, expected: list[str]
) -> None:
    manager.load(TWO)
    eventually(lambda: recording.names().count("proc.j.ready") == 2)
    before = len(recording.seen)
    action(manager)
    eventually(lambda: sorted(recording.names()[before:]) == sorted(expected))
    assert recording.names()[before] == expected[0]


@row("EVT-01", "EVT-13", "EVT-22", "EVT-25", "EVT-26")
def test_a_job_that_takes_a_freed_name_is_created_after_the_deletion(manager: Manager, recording: Recording) -> None:
    manager.load(TWO)
    eventually(lambda: len(manager.running) == 2)
    manager.unload("j")
    manager.load(TWO)
    eventually(
        lambda: [name for name in recording.names() if name in ("create", "delete")] == ["create", "delete", "create"]
    )
    eventually(lambda: len(manager.running) == 2)


def test_messages_say_what_they_are_about(manager: Manager, recording: Recording) -> None:
    manager.load(TWO)
    eventually(lambda: len(manager.pids("j")) == 2)
    os_pids = {process.pid: process.os_pid for process in manager.list()}
    manager.stop_process(1)
    manager.scale("j", -1)
    eventually(lambda: len(recording.of("proc.j.exit")) == 2)
    for name, message in recording.seen:
        assert message["event"] == name
        assert (message["name"], message["job"], message["session"]) == ("j", "default.j", "default")
    for kind, pid in (("spawn", 1), ("stop_pid", 1), ("reap", 2)):
        for name in (kind, f"proc.j.{kind}"):
            message = next(m for m in recording.of(name) if m["pid"] == pid)
            assert message["os_pid"] == os_pids[pid]


@row("EVT-02", "EVT-07", "EVT-11", "EVT-28", "EVT-41")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("load", ["load"]),
        ("unload", ["unload"]),
        ("stop_process", ["stop_process"]),
        ("job.shop.j", [f"job.shop.j.{kind}" for kind in STORY]),
        ("job.shop.j.stop_process", ["job.shop.j.stop_process"]),
        ("proc.1", [f"proc.1.{kind}" for kind in "spawn ready kill stop_pid exit".split()]),
        ("proc.2", [f"proc.2.{kind}" for kind in "spawn ready reap exit".split()]),
        ("proc.1.stop_process", ["proc.1.stop_process"]),
        ("job.default", []),
    ],
)
def test_the_names_of_0_5_go_to_those_who_ask_for_them(pattern: str, expected: list[str]) -> None:
    named, everything = Recording(pattern), Recording()
    with running_manager([named, everything]) as manager:
        manager.load(ProcessConfig("shop.j", SLEEP, startsecs=0))
        eventually(lambda: manager.pids() == [1])
        manager.kill(1, "CONT")
        manager.stop_process(1)
        eventually(lambda: manager.pids() == [2])
        manager.scale("shop.j", "=0")
        eventually(lambda: everything.names().count("exit") == 2)
        manager.unload("shop.j")
        eventually(lambda: everything.of("delete"))
        eventually(lambda: named.names() == expected)
        assert {message["event"] for _, message in named.seen} == set(expected)
        assert {message["name"] for _, message in named.seen} <= {"shop.j"}
        assert not {"load", "unload", "stop_process"} & set(everything.names())
        assert not [name for name in everything.names() if name.startswith(("job.", "proc.1", "proc.2"))]


@row("MGR-12", "APP-03", "EMT-14")
def test_an_application_listens_commands_and_publishes() -> None:
    heard: list[tuple[str, Any]] = []

    class App:
        def start(self, loop: Any, manager: Manager) -> None:
            self.manager = manager
            assert loop is manager.loop
            manager.events.subscribe("exit", self.on_exit)
            manager.events.subscribe("mine.done", lambda event, number: heard.append((event, number)))
            loop.call_soon(manager.load, ProcessConfig("j", "true", backoff=100))

        def on_exit(self, event: str, message: dict[str, Any]) -> None:
            self.manager.events.publish("mine.done", last_exit(self.manager, message["name"])["exit_code"])
            self.manager.loop.call_soon(self.manager.stop)

    loop = new_loop()
    manager = Manager(loop)
    assert not manager.started
    manager.start([App()])
    assert manager.started
    manager.run()
    assert heard == [("mine.done", 0)]
    assert not manager.started
    loop.close()


@row("MGR-17")
def test_a_manager_leaves_the_signals_of_its_program_alone() -> None:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in watched]
    loop = new_loop("asyncio")
    manager = Manager(loop)
    manager.start()
    manager.load(ProcessConfig("j", SLEEP))
    during: list[Any] = []

    def look() -> None:
        during.extend(signal.getsignal(number) for number in watched)
        manager.stop()

    loop.call_soon(look)
    manager.run()
    assert during == before
    loop.close()


@row("MGR-27")
@pytest.mark.parametrize("name", ["12", "shop.12", "12.web"])
def test_names_that_look_like_pids_are_refused(manager: Manager, name: str) -> None:
    with pytest.raises(BadRequest, match="could be mistaken for a process id") as caught:
        manager.load(ProcessConfig(name, SLEEP))
    assert caught.value.errno == 400
