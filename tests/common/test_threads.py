"""What the documentation calls thread-safe, from other threads than the loop's: before run(), during and after."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from gaffer import Manager
from gaffer.errors import ManagerStopping, ProcessError, ProcessNotFound
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.supervision.channels import EventChannel
from support.managers import running_manager
from support.poll import eventually

row = pytest.mark.row

SLEEP = "/bin/sleep 1000"

Call = Callable[[], Any]


def in_threads(*calls: Call) -> list[Any]:
    """Make each call in a thread of its own, all at once; the results in order. Raises what one of them raised."""
    at_once = threading.Barrier(len(calls))

    def work(call: Call) -> Any:
        at_once.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(work, calls, timeout=20))


def refused(call: Call) -> bool:
    """Whether the stopping manager refuses the call."""
    try:
        call()
    except ManagerStopping:
        return True
    return False


@pytest.fixture
def waiting() -> Iterator[Manager]:
    """A started manager that does not run yet."""
    manager = Manager(new_loop())
    manager.start()
    yield manager
    manager.stop(now=True)
    if manager.started and not manager.loop.is_running():
        manager.run()
    eventually(lambda: not manager.loop.is_running())
    manager.loop.close()


@row("MGR-07", "MGR-08")
def test_a_stop_before_the_run_ends_it(waiting: Manager) -> None:
    ended: list[Any] = []
    waiting.load(ProcessConfig("j", SLEEP))
    in_threads(*[lambda: waiting.stop(lambda m: ended.append((m, threading.current_thread())))] * 4)
    assert waiting.started
    waiting.run()
    assert ended == [(waiting, threading.current_thread())]
    assert not waiting.started


@row("MGR-10", "MGR-16", "MGR-14", "EMT-13")
def test_orders_before_the_run_wait_for_it(waiting: Manager) -> None:
    heard: list[Any] = []
    restarted = threading.Event()
    in_threads(*[partial(waiting.load, ProcessConfig(f"j{n}", SLEEP)) for n in range(4)])
    in_threads(
        lambda: waiting.scale("j0", 2),
        lambda: waiting.unload("j1"),
        lambda: waiting.commit("j2"),
        lambda: waiting.stop_job("j3"),
        lambda: waiting.restart(lambda _: restarted.set()),
        lambda: waiting.events.subscribe("mine", lambda event, n: heard.append(n)),
        waiting.wakeup,
    )
    in_threads(lambda: waiting.events.publish("mine", 1), lambda: waiting.events.publish("mine", 2))
    assert waiting.running == {}
    assert heard == []
    thread = threading.Thread(target=waiting.run, daemon=True)
    thread.start()
    eventually(lambda: len(waiting.pids("j0")) == 3 and len(waiting.pids()) >= 4)
    assert sorted(waiting.jobs()) == ["default.j0", "default.j2", "default.j3"]
    assert waiting.pids("j3") == []
    eventually(lambda: sorted(heard) == [1, 2])
    assert restarted.wait(10)
    in_threads(lambda: waiting.stop(now=True))
    thread.join(20)
    assert not thread.is_alive()


@row("MGR-14")
def test_a_wakeup_makes_a_sleeping_loop_turn() -> None:
    with running_manager(loop="asyncio") as manager:
        turned = threading.Event()
        # What is queued from another thread in this way is not noticed before the loop turns for another reason.
        manager.loop.call_soon(turned.set)
        in_threads(manager.wakeup)
        assert turned.wait(10)


@row("MGR-10")
def test_of_several_restarts_at_once_one_is_done() -> None:
    done: list[Manager] = []
    restarts: list[str] = []

    class App:
        def start(self, loop: Any, manager: Manager) -> None: ...

        def restart(self) -> None:
            restarts.append("app")

    with running_manager([App()]) as manager:
        manager.load(ProcessConfig("j", SLEEP, numprocesses=3))
        eventually(lambda: manager.pids() == [1, 2, 3])
        all_asked = threading.Event()
        manager.loop.call_soon_threadsafe(all_asked.wait)
        in_threads(*[lambda: manager.restart(done.append)] * 5)
        all_asked.set()
        eventually(lambda: done and len(manager.pids()) == 3)
        assert done == [manager]
        assert restarts == ["app"]
        assert manager.pids() == [4, 5, 6]


@row("IO-12")
def test_writers_do_not_mix_their_lines() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("cat", "cat", redirect_input=True, redirect_output=["out"]))
        process = eventually(lambda: manager.running.get(1))

        def write(letter: str) -> None:
            for _ in range(20):
                process.writelines([letter * 50, letter * 50, "\n"])

        in_threads(*[partial(write, letter) for letter in "abcd"])
        lines = eventually(lambda: len(found := process.ring("out").read(0).data.split()) == 80 and found)
        assert {line.decode() for line in lines} == {letter * 100 for letter in "abcd"}


@row("MGR-59", "MGR-57", "MGR-58", "EMT-13")
def test_subscriptions_come_and_go_from_threads() -> None:
    heard: list[str] = []
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP))
        eventually(lambda: manager.pids())

        def subscribe() -> None:
            for _ in range(20):
                listener = lambda event, message: heard.append(event)  # noqa: E731
                channel = manager.subscribe("EVENTS:kill")
                assert isinstance(channel, EventChannel)
                channel.bind_all(listener)
                manager.monitor(listener, "j")
                manager.kill(1, "CONT")
                manager.unmonitor(listener, "j")
                manager.unsubscribe("EVENTS:kill", channel)

        in_threads(*[subscribe] * 4)
        done = threading.Event()
        manager.events.subscribe_once("kill", lambda *_: done.set())
        manager.monitor("j", lambda *_: heard.append("last"))
        eventually(lambda: "last" in heard)
        manager.kill(1, "CONT")
        assert done.wait(10)
        assert heard[-1] in ("STATS", "last")


@row("MGR-07")
def test_orders_race_with_the_stop() -> None:
    ended: list[Manager] = []
    with running_manager() as manager:
        manager.load(ProcessConfig("j", SLEEP))
        eventually(lambda: manager.pids())

        def order(number: int) -> None:
            for index in range(200):
                name = f"t{number}-{index}"
                if refused(lambda: manager.load(ProcessConfig(name, SLEEP))):  # noqa: B023
                    return
                if index == 5:
                    manager.stop(ended.append)

        in_threads(*[partial(order, n) for n in range(4)])
        eventually(lambda: ended)
        assert len(ended) == 1
        assert manager.running == {}


@row("MGR-07", "MGR-10", "MGR-14", "EMT-13")
def test_after_the_stop_orders_are_refused_and_questions_answered() -> None:
    late: list[Any] = []
    with running_manager() as manager:
        manager.load(ProcessConfig("j", "cat", redirect_input=True))
        process = eventually(lambda: manager.running.get(1))
        manager.monitor("j", lambda *_: None)
        channel = manager.subscribe("EVENTS")
    assert not manager.started
    manager.stop(late.append)
    in_threads(lambda: manager.stop(late.append), manager.wakeup, lambda: manager.events.publish("mine", 1))
    assert late == []
    orders: list[Call] = [
        manager.restart,
        lambda: manager.load(ProcessConfig("k", SLEEP)),
        lambda: manager.scale("j", 1),
        lambda: manager.monitor("j", print),
    ]
    assert all(in_threads(*[partial(refused, order) for order in orders]))
    assert in_threads(manager.jobs, manager.pids, lambda: manager.stats("j")["stats"]) == [["default.j"], [], []]
    manager.unmonitor("j", print)
    manager.unsubscribe("EVENTS", channel)
    with pytest.raises(ProcessError):
        process.write("too late")
    with pytest.raises(ProcessNotFound):
        manager.send(1, "too late")
