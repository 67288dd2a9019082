"""The manager with real processes: what embedders rely on."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gaffer import Manager
from gaffer.errors import (
    BadValue,
    ConfigError,
    ManagerStopping,
    NodeDraining,
    ProcessConflict,
    ProcessError,
    ProcessNotFound,
)
from gaffer.loop import Loop, new_loop
from gaffer.process import ProcessConfig
from support.managers import Recording, last_exit, running_manager
from support.poll import eventually

row = pytest.mark.row

SLEEP = "/bin/sleep 1000"


def alive(os_pid: int) -> bool:
    try:
        state = Path(f"/proc/{os_pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it may be reaped between open and read
        return False
    return state != "Z"


def os_pids(manager: Manager, name: str) -> list[int]:
    return [process.os_pid for process in manager.list(name)]


def script(path: Path, text: str) -> str:
    path.write_text(text)
    return f"{sys.executable} -u {path}"


@row("MGR-01", "MGR-02", "MGR-06", "MGR-08", "MGR-11", "MGR-30", "SUP-05")
def test_the_documented_example_works_in_its_order() -> None:
    loop = Loop.default_loop()
    manager = Manager(loop=loop)
    recording = Recording()
    manager.start(apps=[recording])
    assert manager.active
    manager.load(ProcessConfig("sleeper", SLEEP, numprocesses=2))
    ended: list[Manager] = []
    manager.stop(ended.append)
    assert not manager.active
    manager.run()
    assert ended == [manager]
    assert not manager.started
    assert manager.running == {}
    assert recording.names().count("spawn") == recording.names().count("exit") == 2
    loop.close()


@row("MGR-06")
def test_running_before_the_start_is_an_error() -> None:
    loop = new_loop()
    with pytest.raises(RuntimeError):
        Manager(loop).run()
    loop.close()


@row("MGR-07")
def test_stopping_before_the_start_and_twice_does_nothing() -> None:
    loop = new_loop()
    manager = Manager(loop)
    manager.stop()
    manager.start()
    calls: list[Manager] = []
    manager.stop(calls.append)
    manager.stop(calls.append)
    manager.run()
    assert calls == [manager]
    loop.close()


@row("MGR-02", "MGR-03", "MGR-04", "MGR-05", "APP-01", "APP-02", "APP-04")
def test_applications_start_in_order_and_stop_in_reverse_after_the_last_exit() -> None:
    log: list[str] = []

    class App:
        name = "third"

        def __init__(self, name: str = "third") -> None:
            self.name = name

        def start(self, loop: Any, manager: Manager) -> None:
            log.append(f"start {self.name}")
            manager.events.subscribe("exit", lambda *_: log.append(f"exit seen by {self.name}"))

        def stop(self) -> None:
            log.append(f"stop {self.name}")

    class Bare:
        def start(self, loop: Any, manager: Manager) -> None:
            log.append("start bare")

    loop = new_loop()
    manager = Manager(loop, apps=[App("first")])
    manager.load(ProcessConfig("j", SLEEP))
    manager.start(apps=[App("second"), App], applications=[Bare()])
    manager.loop.call_later(0.05, manager.stop)
    manager.run()
    assert log == [
        "start first",
        "start second",
        "start third",
        "start bare",
        "exit seen by first",
        "exit seen by second",
        "exit seen by third",
        "stop third",
        "stop second",
        "stop first",
    ]
    loop.close()


def test_an_application_that_can_not_start_stops_the_others_and_raises() -> None:
    stopped = []

    class Good:
        def start(self, loop: Any, manager: Manager) -> None: ...

        def stop(self) -> None:
            stopped.append("good")

    class Bad:
        def start(self, loop: Any, manager: Manager) -> None:
            raise OSError("no port")

    loop = new_loop()
    manager = Manager(loop)
    with pytest.raises(OSError, match="no port"):
        manager.start([Good(), Bad()])
    assert stopped == ["good"]
    assert not manager.started
    loop.close()


def test_two_managers_share_a_loop_which_ends_with_the_last() -> None:
    loop = new_loop()
    first, second = Manager(loop), Manager(loop)
    first.start()
    second.start()
    order: list[str] = []
    first.stop(lambda _: (order.append("first"), loop.call_later(0.05, second.stop)))
    loop.call_later(0.1, lambda: None)
    first.run()
    assert order == ["first"]
    assert not second.started
    loop.close()


@row("SUP-01", "MGR-13", "MGR-16")
def test_a_killed_process_is_replaced() -> None:
    recording = Recording()
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", SLEEP, numprocesses=2, startsecs=0))
        eventually(lambda: len(manager.pids("j")) == 2)
        manager.kill(1, "KILL")
        eventually(lambda: manager.pids("j") == [2, 3])
        manager.load(ProcessConfig("other", SLEEP))
        eventually(lambda: manager.pids("other"))
        assert [(pid, process.pid, process.name) for pid, process in manager.running.items()] == [
            (2, 2, "j"),
            (3, 3, "j"),
            (4, 4, "other"),
        ]
        assert manager.info("j")["restarts"] == 1
        assert last_exit(manager, "j")["term_signal"] == signal.SIGKILL


@row("MGR-20", "MGR-21", "MGR-22", "MGR-23", "MGR-24", "MGR-34", "MGR-55")
def test_sessions_and_names() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("a", SLEEP, start=False))
        manager.load(ProcessConfig("a", SLEEP, start=False), sessionid="shop")
        manager.load(ProcessConfig("shop.b", SLEEP, start=False))
        assert manager.sessions == ["default", "shop"]
        assert manager.jobs() == ["default.a", "shop.a", "shop.b"]
        assert manager.jobs("shop") == ["shop.a", "shop.b"]
        for name in ("shop.b", "shop/b", "shop:b"):
            assert manager.get(name).name == "b"
        assert manager.get("a") == manager.get("default.a")
        walked: list[str] = []
        manager.jobs_walk(lambda m, name: (walked.append(name), m.unload(name)), "shop")
        assert walked == ["shop.a", "shop.b"]
        assert manager.sessions == ["default"]
        with pytest.raises(ProcessNotFound):
            manager.jobs("shop")
        with pytest.raises(ProcessNotFound):
            manager.get("shop.a")


@row("MGR-30", "MGR-31", "SUP-07")
def test_loading_twice_is_a_conflict_and_an_unknown_name_is_not_found() -> None:
    with running_manager() as manager:
        config = ProcessConfig("a", SLEEP, start=False)
        manager.load(config)
        with pytest.raises(ProcessConflict) as conflict:
            manager.load(config)
        assert conflict.value.errno == 409
        assert conflict.value.reason == "process_conflict"
        manager.unload(config)
        for call in (manager.unload, manager.get, manager.info, manager.start_job, manager.stop_job, manager.reload):
            with pytest.raises(ProcessNotFound):
                call("a")
        for pid_call in (manager.get_process, manager.stop_process):
            with pytest.raises(ProcessNotFound):
                pid_call(99)


def test_several_jobs_are_loaded_all_or_none() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("b", SLEEP, start=False), "s")
        with pytest.raises(ProcessConflict):
            manager.load_all([ProcessConfig("a", SLEEP), ProcessConfig("b", SLEEP)], "s")
        assert manager.jobs() == ["s.b"]


@row("TPL-17", "MGR-30")
def test_what_is_loaded_without_a_start_waits_for_it() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("a", SLEEP, start=False))
        manager.load(ProcessConfig("b", SLEEP), start=False)
        manager.load(ProcessConfig("c", SLEEP, start=False), start=True)
        manager.load(ProcessConfig("last", SLEEP))
        eventually(lambda: manager.pids("last") == [1])
        assert [manager.info(name)["state"] for name in "abc"] == ["stopped"] * 3
        manager.start_job("a")
        eventually(lambda: manager.pids("a") == [2])


@row("MGR-30", "TPL-04")
def test_the_environment_given_at_load_goes_over_the_one_of_the_config(tmp_path: Path) -> None:
    with running_manager() as manager:
        config = ProcessConfig("j", f"sh -c 'echo $A $B > {tmp_path}/out; sleep 100'", env={"A": "1", "B": "1"})
        manager.load(config, env={"B": "2"})
        eventually(lambda: (tmp_path / "out").read_text() == "1 2\n", retry_on=(FileNotFoundError,))


@row("MGR-36", "SUP-03")
def test_stop_and_start_of_a_job() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP, numprocesses=2))
        eventually(lambda: len(manager.pids("j")) == 2)
        before = os_pids(manager, "j")
        manager.stop_job("j")
        eventually(lambda: not any(map(alive, before)) and manager.info("j")["state"] == "stopped")
        assert manager.info("j")["active"] is False
        manager.start_job("j")
        eventually(lambda: len(manager.pids("j")) == 2)


@row("MGR-37")
def test_scaling_by_and_to() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP))
        asked: list[tuple[int | str, int]] = [(2, 3), ("+1", 4), ("-2", 2), ("=5", 5), (-10, 0), ("3", 3)]
        assert [manager.scale("j", n) for n, _ in asked] == [result for _, result in asked]
        eventually(lambda: len(manager.pids("j")) == 3)
        for wrong in ("", "+", "=x", "*2", "=-1", None, 1.5, True):
            with pytest.raises(ValueError) as caught:
                manager.scale("j", wrong)  # type: ignore[arg-type]
            assert isinstance(caught.value, BadValue)
            assert caught.value.reason == "bad_operation"
        assert manager.info("j")["max_processes"] == 3


def test_a_job_does_not_scale_into_the_ports_of_another() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("web", SLEEP, port="8000+", start=False), "shop")
        manager.load(ProcessConfig("api", SLEEP, port="8003+", numprocesses=0, start=False), "shop")
        manager.load(ProcessConfig("old", SLEEP, port="8005+", numprocesses=2, start=False), "other")
        assert manager.scale("shop.web", "=3") == 3
        for grow in (
            lambda: manager.scale("shop.web", 1),
            lambda: manager.update(ProcessConfig("web", SLEEP, port="8000+", numprocesses=9), "shop"),
        ):
            with pytest.raises(ProcessError, match=r"port 8003, which belongs to shop\.api") as refused:
                grow()
            assert (refused.value.errno, refused.value.hint) == (
                409,
                "set port = 8007+ or auto, or at most 3 processes",
            )
        assert manager.info("shop.web")["max_processes"] == 3
        with pytest.raises(ProcessError, match="port 8005, which belongs to another application"):
            manager.scale("shop.api", "=3")
        manager.load(ProcessConfig("env", SLEEP, env={"PORT": "8001"}, port="7999+", start=False))
        assert manager.scale("env", "=4") == 4
        assert manager.scale("other.old", "=1") == 1


@pytest.mark.parametrize(
    ("port", "given", "told"),
    [("8000+", "9000", 9000), ("auto", "9000", 9000), (None, "9000", 9000), ("8000", "http", None)],
)
def test_a_port_in_env_is_the_one_that_is_announced(port: str | None, given: str, told: int | None) -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("web", SLEEP, port=port, env={"PORT": given}))
        eventually(lambda: manager.info("web")["running"] == 1)
        (instance,) = manager.info("web")["instances"]
        assert [endpoint["port"] for endpoint in instance["endpoints"]] == ([told] if told else [])


def test_a_job_with_one_fixed_port_does_not_scale_beyond_one() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig.from_dict({"name": "j", "cmd": SLEEP, "port": 8000, "start": False}))
        with pytest.raises(ConfigError, match="can't share port 8000"):
            manager.scale("j", 1)


@row("MGR-38")
def test_a_commit_runs_once_beside_the_counted_processes(tmp_path: Path) -> None:
    recording = Recording("exit")
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", f"sh -c 'echo $X >> {tmp_path}/out; test -z \"$X\" && sleep 1000; exit 3'"))
        eventually(lambda: manager.pids("j") == [1])
        pid = manager.commit("j", env={"X": "once"})
        eventually(lambda: recording.of("exit"))
        (message,) = recording.of("exit")
        assert (message["pid"], message["once"], message["exit_code"]) == (pid, True, 3)
        assert manager.pids("j") == [1]
        assert "once" in (tmp_path / "out").read_text()
        eventually(lambda: list(manager.running) == [1])


@row("MGR-38", "MGR-50")
def test_a_commit_lasts_until_it_is_stopped_and_has_a_graceful_timeout_of_its_own() -> None:
    recording = Recording("exit")
    with running_manager([recording]) as manager:
        config = ProcessConfig(
            "j", "sh -c 'trap \"\" TERM; echo ready; sleep 1000'", numprocesses=0, redirect_output=["o"]
        )
        manager.load(config)
        pid = manager.commit("j", graceful_timeout=0.1)
        process = eventually(lambda: manager.running.get(pid))
        eventually(lambda: process.ring("o").end)
        manager.scale("j", 1)
        manager.scale("j", -1)
        info = manager.info("j")
        assert (info["running"], info["running_out"], info["processes"], info["max_processes"]) == (1, 1, [pid], 0)
        assert manager.list("j") == []
        manager.stop_process(pid)
        info = manager.info("j")
        assert (info["running"], info["running_out"]) == (0, 0)
        message = eventually(lambda: [each for each in recording.of("exit") if each["pid"] == pid])[0]
        assert message["term_signal"] == signal.SIGKILL
        eventually(lambda: not manager.running)


@row("MGR-41", "MGR-42")
def test_signals_by_number_and_name_reach_the_processes(tmp_path: Path) -> None:
    command = script(
        tmp_path / "s.py",
        "import os, signal, sys, time\n"
        f"out = open('{tmp_path}/out', 'a', buffering=1)\n"
        "who = os.environ.get('WHO') or os.environ['GAFFER_INSTANCE']\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print(who, file=out))\n"
        "print('ready', file=out)\n"
        "while True: time.sleep(10)\n",
    )
    lines: Any = lambda: (tmp_path / "out").read_text().split()  # noqa: E731
    with running_manager() as manager:
        manager.load(ProcessConfig("j", command, numprocesses=2))
        manager.commit("j", env={"WHO": "committed"})
        eventually(lambda: lines().count("ready") == 3, retry_on=(FileNotFoundError,))
        manager.kill(1, "usr1")
        eventually(lambda: "1" in lines())
        manager.killall("j", signal.SIGUSR1)
        eventually(lambda: sorted(lines()) == ["1", "1", "2", "committed", "ready", "ready", "ready"])
        for wrong in ("NOPE", 0xFFFF, "", None):
            with pytest.raises(ValueError):
                manager.kill(1, wrong)  # type: ignore[arg-type]


@row("MGR-43", "IO-02", "IO-10", "IO-01", "IO-15", "TPL-13")
def test_output_and_input() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("cat", "cat", redirect_output=["mine"], redirect_input=True))
        process = eventually(lambda: manager.running.get(1))
        seen: list[tuple[str, dict[str, Any]]] = []
        manager.loop.call_soon_threadsafe(process.monitor_io, "mine", lambda label, msg: seen.append((label, msg)))
        manager.send(1, ["one\n", b"two\n"])
        eventually(lambda: b"".join(msg["data"] for _, msg in seen) == b"one\ntwo\n")
        label, message = seen[0]
        assert label == message["event"] == "mine"
        assert (message["name"], message["pid"]) == ("cat", 1)
        with pytest.raises(ProcessError) as caught:
            manager.send(1, "x", stream="nope")
        assert (caught.value.errno, caught.value.reason) == (404, "stream_not_found")


@row("TPL-12")
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a"], {"a": b"out\n"}),
        (["a", "b"], {"a": b"out\n", "b": b"err\n"}),
        (["a", "a"], {"a": b"out\nerr\n"}),
        ([], {}),
    ],
)
def test_which_output_goes_where(labels: list[str], expected: dict[str, bytes]) -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", "sh -c 'echo out; echo err >&2; sleep 1000'", redirect_output=labels))
        process = eventually(lambda: manager.running.get(1))
        eventually(lambda: {label: ring.read(0).data for label, ring in process.rings.items()} == expected)


def test_what_a_process_wrote_last_is_kept_with_its_exit() -> None:
    with running_manager(capture_all=True) as manager:
        manager.load(ProcessConfig("j", "sh -c 'echo starting; echo no such table >&2; exit 4'", backoff=100))
        exit_ = eventually(lambda: manager.info("j")["last_exit"])
        assert exit_["exit_code"] == 4
        assert exit_["reason"] == "exited"
        assert exit_["output"] == "starting\nno such table"
        eventually(lambda: manager.info("j")["state"] == "backoff")


@row("MGR-40", "EVT-11", "EVT-25")
def test_a_stopped_process_is_replaced() -> None:
    recording = Recording()
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", SLEEP, numprocesses=2))
        eventually(lambda: len(manager.pids("j")) == 2)
        manager.stop_process(1)
        eventually(lambda: manager.pids("j") == [2, 3])
        assert recording.of("proc.j.stop_pid")[0]["pid"] == 1


@row("MGR-10", "MGR-39", "APP-02", "APP-04")
def test_a_restart_is_for_the_applications_and_then_for_every_process(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    done = threading.Event()

    class App:
        def start(self, loop: Any, manager: Manager) -> None:
            self.manager = manager

        def restart(self) -> None:
            log.append(("restarted", self.manager.pids()))

    class Bare:
        """Has neither `restart` nor `stop`."""

        def start(self, loop: Any, manager: Manager) -> None:
            log.append("started")

    def restarted(manager: Manager) -> None:
        log.append(("done", [pid for pid in (1, 2, 3) if pid in manager.running]))
        done.set()

    with running_manager([Bare(), App()]) as manager:
        manager.load(ProcessConfig("a", SLEEP, numprocesses=2))
        manager.load(ProcessConfig("b", SLEEP))
        eventually(lambda: len(manager.pids()) == 3)
        manager.restart(restarted)
        assert done.wait(10)
        assert log == ["started", ("restarted", [1, 2, 3]), ("done", [])]
        eventually(lambda: len(manager.pids()) == 3 and min(manager.pids()) > 3)
        manager.stopall("a")
        eventually(lambda: len(manager.pids("a")) == 2 and min(manager.pids("a")) > 6)
    assert [record for record in caplog.records if record.name.startswith("gaffer")] == []


@row("MGR-32")
def test_a_reload_takes_a_scaled_job_back_to_its_configured_number() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP))
        manager.scale("j", 1)
        eventually(lambda: manager.pids("j") == [1, 2])
        manager.reload("j")
        assert manager.info("j")["max_processes"] == 1
        eventually(lambda: manager.pids("j") == [3])


def test_a_new_job_of_the_same_name_waits_for_the_old_processes(tmp_path: Path) -> None:
    slow = script(
        tmp_path / "slow.py",
        "import signal, time\n"
        "stopping = False\n"
        "def stop(*_):\n    global stopping\n    stopping = True\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready')\n"
        f"import pathlib\nwhile not (stopping and pathlib.Path('{tmp_path}/go').exists()): time.sleep(0.01)\n",
    )
    with running_manager() as manager:
        manager.load(ProcessConfig("j", slow, redirect_output=["out"]))
        process = eventually(lambda: manager.running.get(1))
        eventually(lambda: process.ring("out").end)
        manager.unload("j")
        manager.load(ProcessConfig("j", SLEEP, startsecs=0))
        assert manager.info("j")["state"] == "waiting"
        assert manager.pids("j") == []
        (tmp_path / "go").touch()
        eventually(lambda: manager.info("j")["state"] == "running")
        assert not alive(process.os_pid)


@row("MGR-07")
def test_orders_are_refused_once_the_manager_stops() -> None:
    loop = new_loop()
    manager = Manager(loop)
    manager.start()
    manager.load(ProcessConfig("j", SLEEP))
    manager.stop()
    for call in (
        lambda: manager.load(ProcessConfig("k", SLEEP)),
        lambda: manager.scale("j", 1),
        lambda: manager.start_job("j"),
        lambda: manager.unload("j"),
    ):
        with pytest.raises(ManagerStopping):
            call()
    manager.run()
    loop.close()


def test_a_stop_in_a_hurry_does_not_wait_for_a_stubborn_process() -> None:
    loop = new_loop()
    manager = Manager(loop)
    manager.start()
    manager.load(ProcessConfig("j", "sh -c 'trap \"\" TERM; echo ready; sleep 1000'", redirect_output=["o"]))

    def stop_when_ready() -> None:
        process = manager.running.get(1)
        if process is None or not process.ring("o").end:
            loop.call_later(0.01, stop_when_ready)
        else:
            manager.stop()
            loop.call_later(0.1, lambda: manager.stop(now=True))

    loop.call_soon(stop_when_ready)
    started = time.monotonic()
    manager.run()
    assert time.monotonic() - started < 10
    loop.close()


@row("SUP-03")
def test_a_process_that_ignores_term_is_killed_after_its_graceful_timeout() -> None:
    recording = Recording("exit")
    with running_manager([recording]) as manager:
        config = ProcessConfig(
            "j", "sh -c 'trap \"\" TERM; echo r; sleep 1000'", redirect_output=["o"], graceful_timeout=0.2
        )
        manager.load(config)
        process = eventually(lambda: manager.running.get(1))
        eventually(lambda: process.ring("o").end)
        manager.stop_job("j")
        message = eventually(lambda: recording.of("exit"))[0]
        assert message["term_signal"] == signal.SIGKILL
        eventually(lambda: not alive(process.os_pid))


@row("MGR-50")
def test_info() -> None:
    with running_manager(endpoint_host="10.0.0.7") as manager:
        config = ProcessConfig("web", SLEEP, numprocesses=2, port="auto", endpoints="http:$PORT", startsecs=0)
        manager.load(config, "shop")
        eventually(lambda: len(manager.pids("shop.web")) == 2)
        info = manager.info("shop.web")
        assert info["name"] == "shop.web"
        assert (info["active"], info["running"], info["running_out"], info["max_processes"]) == (True, 2, 0, 2)
        assert info["processes"] == [1, 2]
        assert info["config"]["cmd"] == SLEEP
        assert (info["state"], info["reason"], info["restarts"], info["last_exit"]) == ("running", None, 0, None)
        first, second = info["instances"]
        assert (first["slot"], second["slot"]) == (1, 2)
        assert first["os_pid"] == manager.running[1].os_pid
        assert 0 < first["uptime"] < 60
        assert first["started_at"] is not None
        assert abs(first["started_at"] - time.time()) < 60
        (endpoint,) = first["endpoints"]
        assert (endpoint["name"], endpoint["address"]) == ("http", "10.0.0.7")
        assert endpoint["port"] != second["endpoints"][0]["port"]
        announced = manager.announced()["shop.web"]
        assert announced[1].endpoints == first["endpoints"]
        assert announced[1].state == "ready"


def test_a_chosen_port_stays_with_its_slot(tmp_path: Path) -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", f"sh -c 'echo $PORT >> {tmp_path}/ports; sleep 1000'", port="auto"))
        eventually(lambda: manager.pids("j") == [1])
        manager.stop_process(1)
        eventually(lambda: len((tmp_path / "ports").read_text().split()) == 2, retry_on=(FileNotFoundError,))
        ports = (tmp_path / "ports").read_text().split()
        assert ports[0] == ports[1]
        assert manager.info("j")["instances"][0]["endpoints"][0]["port"] == int(ports[0])


@pytest.mark.parametrize(
    ("env", "expected"), [({}, "8000 1\n8001 2\n"), ({"PORT": "99"}, "99 1\n99 2\n")], ids=["counted", "given"]
)
def test_ports_are_passed_to_the_slots(tmp_path: Path, env: dict[str, str], expected: str) -> None:
    command = f"sh -c 'echo $PORT $GAFFER_INSTANCE >> {tmp_path}/ports; sleep 1000'"
    with running_manager() as manager:
        manager.load(ProcessConfig("j", command, port="8000+", numprocesses=2, env=env))
        eventually(
            lambda: sorted((tmp_path / "ports").read_text().splitlines()) == expected.splitlines(),
            retry_on=(FileNotFoundError,),
        )


@row("MGR-51")
def test_stats() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP, numprocesses=2))
        manager.load(ProcessConfig("none", SLEEP, start=False))
        eventually(lambda: len(manager.pids("j")) == 2)
        stats = manager.stats("j")
        assert stats["name"] == "default.j"
        assert {stat["pid"] for stat in stats["stats"]} == {1, 2}
        for key in ("mem", "max_mem", "min_mem", "cpu", "max_cpu", "min_cpu"):
            assert isinstance(stats[key], int | float)
        empty = manager.stats("none")
        assert (empty["stats"], empty["mem"], empty["max_cpu"]) == ([], "N/A", "N/A")


@row("EVT-01", "EVT-13", "EVT-20", "EVT-22", "EVT-23", "EVT-27", "EVT-40", "EVT-41")
def test_events_have_their_documented_shapes_and_order() -> None:
    everything, aliases, of_pid = Recording(), Recording("job.shop.j"), Recording("proc.1")
    with running_manager([everything, aliases, of_pid]) as manager:
        manager.load(ProcessConfig("j", "sh -c 'exit 3'", backoff=100))
        manager.load(ProcessConfig("shop.j", "true", backoff=100))
        eventually(lambda: everything.of("proc.j.exit") and everything.of("proc.shop.j.exit"))
        names = [name for name, message in everything.seen if message.get("job") == "default.j"]
        assert names == ["create", "start", "proc.j.start", "spawn", "proc.j.spawn", "exit", "proc.j.exit"]
        (spawned,) = everything.of("proc.j.spawn")
        assert (spawned["event"], spawned["name"], spawned["detach"], spawned["pid"]) == ("proc.j.spawn", "j", False, 1)
        (ended,) = everything.of("proc.j.exit")
        assert (ended["exit_code"], ended["exit_status"], ended["term_signal"]) == (3, 3, 0)
        assert ended["os_pid"] == spawned["os_pid"]
        assert everything.of("proc.shop.j.exit")[0]["name"] == "shop.j"
        assert aliases.of("job.shop.j.exit")[0]["name"] == "shop.j"
        assert of_pid.names() == ["proc.1.spawn", "proc.1.exit"]


def test_a_scaled_job_gets_no_config_that_is_for_fewer_processes() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP))
        manager.scale("j", 2)
        with pytest.raises(ConfigError, match="3 processes can't share port 8000"):
            manager.update(ProcessConfig("j", SLEEP, port="8000"))
        assert manager.info("j")["config"]["port"] is None
        manager.scale("j", "=1")
        manager.update(ProcessConfig("j", SLEEP, port="8000"))
        assert manager.info("j")["config"]["port"] == "8000"


def test_changes_are_told_on_the_loop() -> None:
    seen: list[dict[str, Any]] = []
    with running_manager() as manager:
        manager.on_change(lambda: seen.append(manager.announced()))
        manager.load(ProcessConfig("j", SLEEP))
        eventually(lambda: seen and seen[-1].get("default.j"))
        manager.unload("j")
        eventually(lambda: seen[-1] == {})


def test_a_process_is_announced_from_its_spawn_to_its_exit() -> None:
    seen: list[dict[int, str]] = []

    def note(*_: Any) -> None:
        states = {pid: found.state for pid, found in manager.announced().get("default.j", {}).items()}
        if states not in seen[-1:]:
            seen.append(states)

    with running_manager() as manager:
        manager.on_spawn(note)
        manager.on_change(note)
        manager.load(ProcessConfig("j", SLEEP, drain_timeout=0.1, startsecs=0.1))
        eventually(lambda: {1: "ready"} in seen)
        manager.stop_job("j")
        eventually(lambda: seen[-1] == {})
    assert seen[seen.index({1: "starting"}) :] == [{1: "starting"}, {1: "ready"}, {1: "draining"}, {}]


class Herald:
    """An application that is told when the manager drains; `told` holds each time how many processes ran then."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def start(self, loop: Any, manager: Manager) -> None:
        self.manager = manager

    async def drain(self) -> None:
        await asyncio.sleep(0.1)
        self.told.append(("drain", len(self.manager.running)))

    def resume(self) -> None:
        self.told.append(("resume", len(self.manager.running)))


def test_a_drained_manager_has_no_processes_until_it_resumes() -> None:
    herald = Herald()
    with running_manager([herald]) as manager:
        ended = Recording("exit")
        ended.start(manager.loop, manager)
        manager.load(ProcessConfig("first", SLEEP))
        manager.load(ProcessConfig("second", SLEEP))
        eventually(lambda: len(manager.running) == 2)
        manager.drain()
        manager.drain()
        assert manager.draining
        manager.load(ProcessConfig("third", SLEEP))
        with pytest.raises(NodeDraining):
            manager.commit("first")
        eventually(lambda: not manager.running)
        assert herald.told == [("drain", 2)]
        assert {message["name"] for message in ended.of("exit")} == {"first", "second"}
        info = manager.info("third")
        assert (info["active"], info["state"], info["reason"]) == (True, "waiting", "the node is drained")
        manager.resume()
        manager.resume()
        eventually(lambda: len(manager.running) == 3)
        assert not manager.draining
        assert herald.told == [("drain", 2), ("resume", 0)]
        manager.commit("first")


def test_a_manager_may_stop_while_it_drains() -> None:
    with running_manager([Herald()]) as manager:
        manager.load(ProcessConfig("j", SLEEP, drain_timeout=60))
        eventually(lambda: manager.running)
        manager.drain()
        eventually(lambda: manager.info("j")["running"] == 0)
        manager.stop(now=True)
        with pytest.raises(ManagerStopping):
            manager.resume()


@row("MGR-07", "MGR-30", "MGR-37", "MGR-41")
def test_many_threads_may_give_orders_at_once() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("shared", "sleep 1000"))
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for index in range(5):
                    name = f"t{number}-{index}"
                    manager.load(ProcessConfig(name, "sleep 1000"))
                    manager.scale("shared", "+1")
                    manager.info("shared")
                    manager.scale("shared", "-1")
                    manager.unload(name)
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not failures
        eventually(lambda: len(manager.running) == 1)
        assert manager.jobs() == ["default.shared"]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_both_loops(loop: str) -> None:
    with running_manager(loop=loop) as manager:
        manager.load(ProcessConfig("j", "cat", redirect_input=True, redirect_output=["o"]))
        process = eventually(lambda: manager.running.get(1))
        manager.send(1, "hello")
        eventually(lambda: process.ring("o").read(0).data == b"hello")


@row("PROC-03")
def test_the_info_of_a_process() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("shop.j", "sleep $N", env={"N": "1000"}, redirect_output=["o"]))
        eventually(lambda: manager.pids("shop.j"))
        info = manager.get_process(1).info
        assert info["pid"] == 1
        assert info["os_pid"] == os.getpid() or info["os_pid"] > 1
        assert info["args"] == ["1000"]
        assert info["commited"] is info["committed"] is False
        assert info["redirect_output"] == ["o"]
        assert info["active"] is True
