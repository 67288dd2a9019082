"""What a job's own settings run next to its processes: hooks, exec probes and actions."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import ProcessError, StartFailed
from gaffer.jobs.names import JobName
from gaffer.process import Process, ProcessConfig
from gaffer.supervision import job_commands
from gaffer.supervision.commands import LIMITS, Commands, Outcome, Purpose, TooManyCommands
from support.commands import STUBBORN, running_commands
from support.poll import eventually_async

JOB = JobName("shop", "web")


def job(**settings: Any) -> ProcessConfig:
    return ProcessConfig("web", "sleep 1000", **settings)


async def before_start(commands: Commands, command: str | None, **settings: Any) -> None:
    config = job(before_start=command, **settings)
    await asyncio.wait_for(job_commands.before_start(commands, config, JOB, slot=3, port=8003), 20)


async def test_before_start_runs_for_its_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with running_commands() as commands:
        await before_start(commands, f"sh -c 'echo $PORT $GAFFER_INSTANCE > {out}'")
        assert out.read_text() == "8003 3\n"
        await before_start(commands, None)
        assert commands.counts == {(Purpose.BEFORE_START, Outcome.SUCCEEDED): 1}


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("sh -c 'echo no disk; exit 3'", {}, "before_start exited with 3: no disk"),
        ("false", {}, "before_start exited with 1"),
        ("/no/such/program", {}, "before_start can't be started: there is no program '/no/such/program'"),
        ("sh -c 'echo waiting; sleep 1000'", {"start_timeout": 1.0}, r"before_start did not exit within .* s: waiting"),
    ],
)
async def test_a_process_is_not_started_unless_before_start_succeeds(
    command: str, settings: dict[str, Any], message: str
) -> None:
    async with running_commands() as commands:
        with pytest.raises(StartFailed, match=f"^{message}$") as caught:
            await before_start(commands, command, **settings)
        assert (caught.value.reason, caught.value.path) == ("before_start", "$.before_start")


async def test_before_start_waits_for_an_earlier_one() -> None:
    async with running_commands() as commands:
        first = asyncio.create_task(before_start(commands, STUBBORN, graceful_timeout=0.2))
        [stubborn] = await eventually_async(lambda: commands.find(Purpose.BEFORE_START, JOB, 3))
        await eventually_async(lambda: stubborn.ring.end)
        second = asyncio.create_task(before_start(commands, "true"))
        first.cancel()
        await second
        assert stubborn.ended.result().term_signal == signal.SIGKILL
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_before_start_runs_once_at_a_time() -> None:
    async with running_commands() as commands:
        first = asyncio.create_task(before_start(commands, "sleep 1000"))
        await eventually_async(lambda: len(commands) == 1)
        waiting = [asyncio.create_task(before_start(commands, "sleep 0.1")) for _ in range(2)]
        first.cancel()
        ended = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError)
        [refused] = [each for each in ended[1:] if each is not None]
        assert isinstance(refused, StartFailed)
        assert refused.message.startswith("before_start of shop.web is not run: ")


def after_exit(commands: Commands, config: ProcessConfig, **exit: Any) -> None:
    exit = {"pid": 7, "exit_code": 3, "term_signal": 0, "reason": "exited", **exit}
    job_commands.after_exit(commands, config, JOB, slot=2, port=8002, **exit)


@pytest.mark.parametrize(
    ("exit", "told"),
    [
        ({"exit_code": 3, "term_signal": 0, "reason": "exited"}, "7 [3] [] exited 2 8002"),
        ({"exit_code": None, "term_signal": 9, "reason": "oom"}, "7 [] [9] oom 2 8002"),
        ({"exit_code": None, "term_signal": None, "reason": "gone"}, "7 [] [] gone 2 8002"),
    ],
)
async def test_after_exit_is_told_of_the_exit(tmp_path: Path, exit: dict[str, Any], told: str) -> None:
    out = tmp_path / "out"
    line = "$GAFFER_PID [$GAFFER_EXIT_CODE] [$GAFFER_TERM_SIGNAL] $GAFFER_REASON $GAFFER_INSTANCE $PORT"
    async with running_commands() as commands:
        after_exit(commands, job(after_exit=f"sh -c 'echo \"{line}\" > {out}'"), **exit)
        assert len(commands) == 1
        await commands.quiesce()
    assert out.read_text() == told + "\n"


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("sh -c 'echo no mail; exit 2'", {}, "shop.web: after_exit exited with 2: no mail"),
        ("/no/such/program", {}, "shop.web: after_exit can't be started: there is no program '/no/such/program'"),
        ("sleep 1000", {"graceful_timeout": 0}, "shop.web: after_exit did not exit within 1 s"),
    ],
)
@pytest.mark.expects_errors("after_exit")
async def test_a_failed_after_exit_is_logged(
    command: str, settings: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_commands() as commands:
        after_exit(commands, job(after_exit=command, **settings))
        await commands.quiesce()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [message]


@pytest.mark.expects_errors("after_exit of shop.web is not run")
async def test_after_exit_of_a_slot_does_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    async with running_commands() as commands:
        config = job(after_exit="sleep 1000")
        after_exit(commands, config)
        after_exit(commands, config)
        assert len(commands) == 1
        assert "after_exit of shop.web is not run: 1 such commands are still running" in caplog.text


async def test_a_job_without_after_exit_runs_none() -> None:
    async with running_commands() as commands:
        after_exit(commands, job())
        assert len(commands) == 0


def process(**settings: Any) -> Process:
    return Process(asyncio.get_running_loop(), job(**settings), pid=7, job=JOB, slot=2, port=8002)


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("sh -c 'echo fine; test $PORT $GAFFER_INSTANCE = 8002 2'", "exited with 2: "),
        ("true", ""),
        ("sh -c 'test $PORT.$GAFFER_INSTANCE = 8002.2'", ""),
        ("sh -c 'echo first; echo not yet; exit 3'", "exited with 3: not yet"),
        ("false", "exited with 1"),
        ("sh -c 'kill -9 $$'", "was killed by SIGKILL"),
        ("sleep 1000", "no answer within 0.3 s"),
        (STUBBORN, "no answer within 0.3 s"),
        ("/no/such/program", "probe can't be started: there is no program '/no/such/program'"),
    ],
)
async def test_exec_probes(command: str, result: str) -> None:
    async with running_commands() as commands:
        timeout = 0.3 if result.startswith("no answer") else 10
        found = await asyncio.wait_for(
            job_commands.probe(commands, process(), command, timeout), 4
        )  # less than the grace period
        assert found.startswith(result) if result.endswith(" ") else found == result
        assert len(commands) == 0


async def test_a_cancelled_probe_is_killed() -> None:
    async with running_commands() as commands:
        probing = asyncio.create_task(job_commands.probe(commands, process(), STUBBORN, 30))
        await eventually_async(lambda: len(commands) == 1)
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(probing, 4)  # less than the grace period
        assert len(commands) == 0


async def test_actions() -> None:
    config = job(action={"greet": "sh -c 'echo hello $USER_NAME'", "wait": "sleep 1000"}, env={"USER_NAME": "you"})
    async with running_commands() as commands:
        result = await job_commands.start_action(commands, config, JOB, "greet").wait()
        assert (result.exit_code, result.output) == (0, "hello you")
        result = await job_commands.start_action(commands, config, JOB, "wait", timeout=0.2).wait()
        assert (result.outcome, result.term_signal) == (Outcome.TIMED_OUT, signal.SIGTERM)


@pytest.mark.parametrize(
    ("known", "hint"),
    [
        ({"migrate": "true"}, "did you mean 'migrate'?"),
        ({"backup": "true", "clean": "true"}, "available actions: backup, clean"),
        ({}, "add action.NAME = COMMAND to the job"),
    ],
)
async def test_an_unknown_action(known: dict[str, str], hint: str) -> None:
    async with running_commands() as commands:
        with pytest.raises(ProcessError, match=r"^shop\.web has no action 'migrat'$") as caught:
            job_commands.start_action(commands, job(action=known), JOB, "migrat")
    assert (caught.value.errno, caught.value.reason, caught.value.hint) == (404, "action_not_found", hint)


async def test_too_many_actions() -> None:
    config = job(action={"wait": "sleep 1000"})
    async with running_commands() as commands:
        for _ in range(LIMITS[Purpose.ACTION]):
            job_commands.start_action(commands, config, JOB, "wait")
        with pytest.raises(TooManyCommands, match=r"^action\.wait of shop.web is not run: 16 such commands"):
            job_commands.start_action(commands, config, JOB, "wait")


async def test_an_action_that_cannot_start() -> None:
    async with running_commands() as commands:
        with pytest.raises(StartFailed, match=r"^action\.x can't be started: there is no program") as caught:
            job_commands.start_action(commands, job(action={"x": "/no/such/program"}), JOB, "x")
    assert caught.value.path == "$.action.x"
