"""Actions of jobs from Python."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from gaffer import Manager
from gaffer.errors import BadValue, NodeDraining, ProcessError, ProcessNotFound
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.supervision.commands import CommandResult, Outcome
from support.managers import Recording, running_manager
from support.poll import eventually

ACTION = {"greet": "sh -c 'echo hello; exit 3'", "wait": "sleep 1000"}


@pytest.fixture
def events() -> Recording:
    return Recording("action_ended")


@pytest.fixture
def manager(events: Recording) -> Iterator[Manager]:
    with running_manager([events]) as manager:
        manager.load(ProcessConfig("web", "sleep 1000", action=ACTION), "shop", start=False)
        yield manager


def begin(manager: Manager, action: str, job: str = "shop.web") -> "Future[CommandResult]":
    """Start an action, of which a thread can wait for the end."""

    async def run() -> CommandResult:
        result: CommandResult = await manager.run_action(job, action)
        return result

    return asyncio.run_coroutine_threadsafe(run(), manager.loop)


def test_an_action_is_run_from_any_thread(manager: Manager, events: Recording) -> None:
    result = manager.run_action("shop.web", "greet")
    assert (result.outcome, result.exit_code, result.output) == (Outcome.FAILED, 3, "hello")
    [message] = eventually(lambda: events.of("action_ended"))
    assert (message["job"], message["action"], message["outcome"]) == ("shop.web", "greet", "failed")


def test_on_the_loop_it_is_awaited() -> None:
    async def main() -> Outcome:
        manager = Manager(asyncio.get_running_loop())
        manager.start()
        manager.load(ProcessConfig("web", "sleep 1000", action=ACTION), start=False)
        result: CommandResult = await manager.run_action("web", "greet")
        stopped = asyncio.Event()
        manager.stop(lambda _: stopped.set())
        await stopped.wait()
        return result.outcome

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) is Outcome.FAILED


def test_one_that_is_cancelled_is_ended(manager: Manager) -> None:
    running = begin(manager, "wait")
    eventually(lambda: len(manager.commands) == 1)
    running.cancel()
    eventually(lambda: len(manager.commands) == 0)


def test_what_is_refused(manager: Manager) -> None:
    with pytest.raises(ProcessError, match="no action"):
        manager.run_action("shop.web", "nope")
    with pytest.raises(ProcessNotFound):
        manager.run_action("shop.nope", "greet")
    for timeout in (0, -1, 24 * 3600 + 1, float("nan")):
        with pytest.raises(BadValue, match=r"^timeout: "):
            manager.run_action("shop.web", "greet", timeout)
    manager.drain()
    with pytest.raises(NodeDraining):
        manager.run_action("shop.web", "greet")


def test_a_manager_that_was_not_started_runs_none() -> None:
    manager = Manager(new_loop())
    with pytest.raises(RuntimeError, match="start the manager"):
        manager.run_action("shop.web", "greet")
    manager.loop.close()


@contextlib.contextmanager
def stoppable_manager() -> Iterator[tuple[Manager, threading.Thread]]:
    """A running manager that the test stops, and the thread that ends with it."""
    manager = Manager(new_loop())
    manager.start()
    thread = threading.Thread(target=manager.run)
    thread.start()
    try:
        yield manager, thread
    except BaseException:
        manager.stop(now=True)
        raise
    finally:
        thread.join(4)  # less than the grace period
        assert not thread.is_alive()
        manager.loop.close()
    assert len(manager.commands) == 0


@pytest.mark.parametrize("now", [False, True])
def test_a_stop_ends_actions_that_run(now: bool) -> None:
    with stoppable_manager() as (manager, _):
        manager.load(ProcessConfig("web", "sleep 1000", action=ACTION), "shop", start=False)
        running = begin(manager, "wait")
        eventually(lambda: len(manager.commands) == 1)
        manager.stop(now=now)
    result = running.result()
    assert (result.outcome, result.term_signal) == (Outcome.CANCELLED, 9 if now else 15)


def test_actions_do_not_outlast_the_processes_of_their_job(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = f"sh -c 'trap \"\" TERM; touch {ready}; while :; do sleep 0.1; done'"
    with stoppable_manager() as (manager, thread):
        manager.load(ProcessConfig("web", stubborn, action=ACTION), "shop")
        eventually(ready.exists)
        running = begin(manager, "wait")
        eventually(lambda: len(manager.commands) == 1)
        manager.stop()
        assert running.result(10).outcome is Outcome.CANCELLED
        assert thread.is_alive()
        manager.stop(now=True)


def test_a_stop_in_a_hurry_hurries_the_commands_too(tmp_path: Path) -> None:
    ready, asked = tmp_path / "ready", tmp_path / "asked"
    stubborn = f"sh -c 'trap \"touch {asked}\" TERM; touch {ready}; while :; do sleep 0.1; done'"
    with stoppable_manager() as (manager, _):
        manager.load(ProcessConfig("web", "sleep 1000", action={"stay": stubborn}), start=False)
        running = begin(manager, "stay", "web")
        eventually(ready.exists)
        manager.stop()
        eventually(asked.exists)
        manager.stop(now=True)
    assert running.result().term_signal == 9


def test_an_unloaded_job_leaves_no_action(manager: Manager, events: Recording) -> None:
    running = begin(manager, "wait")
    eventually(lambda: len(manager.commands) == 1)
    manager.unload("shop.web")
    eventually(lambda: len(manager.commands) == 0)
    assert running.result(10).outcome is Outcome.CANCELLED
    [message] = eventually(lambda: events.of("action_ended"))
    assert (message["job"], message["outcome"]) == ("shop.web", "cancelled")
