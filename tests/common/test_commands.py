"""Commands next to the processes of a job: what they get from it, how they end, and that nothing of them is left."""

import asyncio
import grp
import os
import pwd
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import StartFailed
from gaffer.jobs.names import JobName
from gaffer.process import ProcessConfig
from gaffer.processes import procfs
from gaffer.streams.rings import Losses
from gaffer.supervision.commands import LIMITS, Command, CommandResult, Commands, Outcome, Purpose, TooManyCommands
from support.commands import STUBBORN, running_commands
from support.needs import needs_root
from support.poll import eventually_async

JOB = JobName("shop", "web")


def job(**settings: Any) -> ProcessConfig:
    return ProcessConfig("web", "sleep 1000", **settings)


def start(commands: Commands, config: ProcessConfig, command: str, **options: Any) -> Command:
    options = {"timeout": 30.0, **options}
    return commands.start(options.pop("purpose", Purpose.ACTION), config, JOB, command, **options)


async def run(commands: Commands, config: ProcessConfig, command: str, **options: Any) -> CommandResult:
    return await asyncio.wait_for(start(commands, config, command, **options).wait(), 20)


def alive(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


async def printed(command: Command, count: int = 1) -> list[str]:
    """The first lines of output, once there are `count`."""

    def lines() -> list[str] | None:
        found = command.ring.read(0).data.decode().splitlines(keepends=True)
        whole = [line.rstrip("\n") for line in found if line.endswith("\n")]
        return whole if len(whole) >= count else None

    return await eventually_async(lines)


async def test_a_command_has_the_surroundings_of_its_job(tmp_path: Path) -> None:
    config = job(cwd=str(tmp_path), env={"OWN": "1", "OVER": "job"}, port="8000+")
    show = (
        """sh -c 'echo "$OWN $OVER $PORT $GAFFER_INSTANCE ${HOME:+home} ${SECRET-}"; pwd; ps -o pgid= -p $$; echo $$'"""
    )
    os.environ["SECRET"] = "x"
    try:
        async with running_commands() as commands:
            result = await run(commands, config, show, slot=2, port=8001, env={"OVER": "given"})
            inherited = await run(commands, config.replace(os_env=True), show)
    finally:
        del os.environ["SECRET"]
    variables, cwd, group, pid = result.output.splitlines()
    assert variables.split(" ") == ["1", "given", "8001", "2", "home", ""]
    assert (cwd, group.strip()) == (str(tmp_path), pid)
    assert inherited.output.splitlines()[0].split(" ") == ["1", "job", "", "", "home", "x"]


async def test_words_and_variables_are_those_of_cmd() -> None:
    async with running_commands() as commands:
        result = await run(commands, job(env={"A": "a b; exit 9"}), "printf '<%s>' $A \"${A}\" '$A' $PORT", port=80)
    assert (result.exit_code, result.output) == (0, "<a b; exit 9><a b; exit 9><$A><80>")


async def test_what_only_concerns_the_processes_of_a_job_is_left_out() -> None:
    on_demand = job(shell=True, args=["more"], start="on-connection", socket=["tcp:127.0.0.1:0"], ready="exec:false")
    piped = job(kill_group=False, redirect_input=True, redirect_output=["a"], custom_streams=["b"])
    async with running_commands() as commands:
        for config in (on_demand, piped, job(detach=True)):
            result = await run(commands, config, "sh -c 'cat; echo $# $1; ls /proc/self/fd | wc -w'")
            assert result.output.split() == ["0", "4"]
        result = await run(commands, on_demand, "echo a; echo b")
        assert result.output == "a; echo b"


@needs_root
async def test_a_command_runs_as_the_user_of_its_job() -> None:
    async with running_commands() as commands:
        result = await run(commands, job(uid="nobody"), "sh -c 'id -un; id -gn; echo $USER'")
    group = pwd.getpwnam("nobody").pw_gid
    assert result.output.splitlines() == ["nobody", grp.getgrgid(group).gr_name, "nobody"]


async def test_how_it_ended() -> None:
    async with running_commands() as commands:
        good = await run(commands, job(), "true")
        bad = await run(commands, job(), "sh -c 'echo out; echo err >&2; exit 3'")
        killed = await run(commands, job(), "sh -c 'kill -9 $$'")
        assert commands.counts == {
            (Purpose.ACTION, Outcome.SUCCEEDED): 1,
            (Purpose.ACTION, Outcome.FAILED): 2,
        }
    assert (good.exit_code, good.term_signal, good.outcome, str(good)) == (0, 0, Outcome.SUCCEEDED, "exited with 0")
    assert (bad.exit_code, bad.outcome, str(bad)) == (3, Outcome.FAILED, "exited with 3: out\nerr")
    assert (killed.exit_code, killed.term_signal, killed.outcome) == (None, 9, Outcome.FAILED)
    assert str(killed) == "was killed by SIGKILL"
    assert 0 < good.uptime < 20


@pytest.mark.parametrize(
    ("command", "settings", "reason", "path"),
    [
        ("/no/such/program", {}, "program_not_found", "$.action.x"),
        ("/etc/passwd", {}, "not_executable", "$.action.x"),
        ("true", {"cwd": "/no/such/folder"}, "bad_cwd", "$.cwd"),
        ("true", {"uid": "nobody-of-that-name"}, "unknown_user", "$.uid"),
    ],
)
async def test_one_that_cannot_start(command: str, settings: dict[str, Any], reason: str, path: str) -> None:
    async with running_commands() as commands:
        with pytest.raises(StartFailed, match=r"^action\.x can't be started: ") as caught:
            start(commands, job(**settings), command, name="action.x")
        assert (caught.value.reason, caught.value.path) == (reason, path)
        assert commands.counts == {(Purpose.ACTION, Outcome.NOT_STARTED): 1}
        assert len(commands) == 0


async def test_one_that_takes_too_long_is_stopped() -> None:
    async with running_commands() as commands:
        result = await run(commands, job(), "sh -c 'echo begun; exec sleep 1000'", timeout=1)
        assert commands.counts == {(Purpose.ACTION, Outcome.TIMED_OUT): 1}
    assert (result.outcome, result.term_signal) == (Outcome.TIMED_OUT, signal.SIGTERM)
    assert str(result).startswith("did not exit within ")
    assert result.output == "begun"


async def test_one_that_exits_well_when_its_time_is_up_did_not_succeed() -> None:
    async with running_commands() as commands:
        waits = start(commands, job(), "sh -c 'trap \"exit 0\" TERM; echo ready; while :; do sleep 0.01; done'")
        await printed(waits)
        waits.time_out_after(0)
        result = await waits.wait()
    assert (result.exit_code, result.outcome) == (0, Outcome.TIMED_OUT)


@pytest.mark.parametrize(("graceful_timeout", "grace"), [(0.2, 60.0), (60.0, 0.2), (60.0, 0.0), (0.0, 60.0)], ids=str)
async def test_one_that_ignores_sigterm_is_killed(graceful_timeout: float, grace: float) -> None:
    async with running_commands() as commands:
        command = start(commands, job(graceful_timeout=graceful_timeout), STUBBORN, grace=grace)
        await printed(command)
        command.time_out_after(0)
        result = await asyncio.wait_for(command.wait(), 20)
    assert (result.outcome, result.term_signal) == (Outcome.TIMED_OUT, signal.SIGKILL)


@pytest.mark.parametrize("kill_group", [True, False])
async def test_what_it_leaves_in_its_group_is_ended(kill_group: bool) -> None:
    config = job(graceful_timeout=0.2, kill_group=kill_group)
    async with running_commands() as commands:
        result = await run(commands, config, "sh -c 'trap \"\" TERM; sleep 1000 & echo $!; exit 4'")
    assert result.exit_code == 4
    assert not alive(int(result.output))


async def test_a_daemon_that_it_leaves_is_ended() -> None:
    daemon = "{ setsid sh -c 'echo $$; exec sleep 1000' & } | head -n 1"
    async with running_commands(subreaper=True, node_id="node:1:proof") as commands:
        result = await run(commands, job(), f"sh -c {shlex.quote(daemon)}")
    assert result.exit_code == 0
    assert not alive(int(result.output))


async def test_a_lot_of_output_holds_nothing_up() -> None:
    losses = Losses()
    async with running_commands(losses=losses) as commands:
        command = start(commands, job(), "sh -c 'head -c 10000000 /dev/zero | tr \"\\0\" x; seq 100; echo end'")
        result = await command.wait()
    assert result.output.splitlines() == [*map(str, range(82, 101)), "end"]
    assert command.ring.end == 10_000_000 + len("".join(f"{n}\n" for n in range(1, 101))) + len("end\n")
    assert command.ring.end - command.ring.start <= 1024 * 1024
    assert command.ring.read(0).gap == command.ring.start == losses.count


async def test_a_long_line_is_cut_to_its_end() -> None:
    async with running_commands() as commands:
        result = await run(commands, job(), "sh -c 'head -c 100000 /dev/zero | tr \"\\0\" x; echo; echo end'")
    assert len(result.output) < 4096
    assert result.output.endswith("xx\nend")


async def test_one_whose_waiter_is_cancelled_is_ended() -> None:
    async with running_commands() as commands:
        command = start(commands, job(graceful_timeout=0.2), f"sh -c {shlex.quote(f'echo $$; {STUBBORN}')}")
        pid = int((await printed(command, 2))[0])
        waiting = asyncio.create_task(command.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert command.ended.result().outcome is Outcome.CANCELLED
        assert len(commands) == 0
        assert not alive(pid)


@pytest.mark.parametrize("purpose", Purpose)
async def test_a_slot_has_only_so_many_at_a_time(purpose: Purpose) -> None:
    async with running_commands() as commands:
        for _ in range(LIMITS[purpose]):
            last = start(commands, job(), "sleep 1000", purpose=purpose, slot=1)
        with pytest.raises(TooManyCommands, match=f"^{purpose} of shop.web is not run") as caught:
            start(commands, job(), "sleep 1000", purpose=purpose, slot=1)
        assert caught.value.errno == 429
        assert commands.counts == {(purpose, Outcome.REFUSED): 1}
        start(commands, job(), "sleep 1000", purpose=purpose, slot=2)
        last.kill()
        await last.wait()
        start(commands, job(), "sleep 1000", purpose=purpose, slot=1)


async def test_only_the_actions_of_a_job_end_with_it() -> None:
    async with running_commands() as commands:
        action = start(commands, job(), "sleep 1000")
        others = [start(commands, job(), "sleep 1000", purpose=each) for each in Purpose if each is not Purpose.ACTION]
        others.append(commands.start(Purpose.ACTION, job(), JobName("shop", "db"), "sleep 1000", timeout=30))
        commands.end_actions(JOB)
        assert (await action.wait()).term_signal == signal.SIGTERM
        assert not any(each.ended.done() for each in others)


async def test_all_but_after_exit_are_ended_at_first() -> None:
    async with running_commands() as commands:
        action = start(commands, job(), "sleep 1000")
        hook = start(commands, job(), "sleep 1000", purpose=Purpose.AFTER_EXIT)
        commands.end()
        assert (await action.wait()).term_signal == signal.SIGTERM
        assert not hook.ended.done()
        commands.end(now=True)
        assert (await hook.wait()).term_signal == signal.SIGKILL


async def test_quiesce_waits_for_after_exit_and_ends_the_rest() -> None:
    async with running_commands() as commands:
        action = start(commands, job(graceful_timeout=0.2), STUBBORN)
        await printed(action)
        hook = start(commands, job(), "sh -c 'sleep 0.5; echo done'", purpose=Purpose.AFTER_EXIT)
        await commands.quiesce()
        assert action.ended.result().term_signal == signal.SIGKILL
        assert hook.ended.result().output == "done"
        assert len(commands) == 0


async def test_the_end_of_what_it_left_does_not_change_its_outcome() -> None:
    async with running_commands() as commands:
        command = start(commands, job(), "sh -c 'trap \"\" TERM; sleep 1000 & echo $$'")
        leader = int((await printed(command))[0])
        await eventually_async(lambda: not alive(leader))
        assert not command.ended.done()
        command.kill()
        assert (await command.wait()).outcome is Outcome.SUCCEEDED
