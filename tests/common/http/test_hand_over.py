"""A manager that leaves its processes to another one."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gaffer import Manager
from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.records import ProcessRecord
from support.http_node import HttpNode, open_exchange, running_node, script, sleeper
from support.poll import eventually_async
from support.websocket import Closed, connected

CHANNEL = "/channel/000/session/websocket"


class Records:
    """A recorder: what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, record: ProcessRecord, descriptors: Mapping[str, int]) -> None:
        self.told.append("started")

    def keep(self, pid: int, name: str, fd: int) -> None:
        """Of no interest."""

    def drop(self, pid: int, name: str) -> None:
        self.told.append(f"drop {name}")

    def died(self, pid: int, status: int) -> None:
        self.told.append("died")

    def spawned(self, record: ProcessRecord) -> None:
        self.told.append("spawned")

    def ended(self, pid: int) -> None:
        self.told.append("ended")

    def exited(self, job: str, exits: Iterable[ExitRecord], restarts: int) -> None:
        self.told.append("exited")

    def ran(self, job: str, at: float) -> None:
        self.told.append("ran")


class Steps:
    """An application that notes the steps, and whether the manager hands over; `on_quiesce` is called in between."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        self._manager = manager

    async def quiesce(self) -> None:
        assert self._manager.handing_over
        assert not self._manager.active
        await self.on_quiesce()
        self.seen.append("quiesce")

    async def on_quiesce(self) -> None:
        """Replaced by tests."""

    async def leave(self) -> None:
        self.seen.append("leave")

    def stop(self) -> None:
        self.seen.append("stop")


@asynccontextmanager
async def handed_over(*apps: Any, **of_manager: Any) -> AsyncIterator[HttpNode]:
    """A node; the processes that it has at the end are killed and reaped, as a successor would."""
    pids: set[int] = set()
    async with running_node(apps=apps, of_manager=of_manager) as node:
        node.manager.on_spawn(lambda process: pids.add(process.os_pid))
        yield node
    for pid in pids:
        with suppress(ChildProcessError, ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            reap(pid)


def reap(pid: int) -> int:
    """Returns the exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def hand_over(node: HttpNode) -> float:
    """Returns the seconds that it took."""
    began, done = time.monotonic(), asyncio.Event()
    node.manager.hand_over(lambda _: done.set())
    node.manager.hand_over()
    node.manager.stop(now=True)
    await asyncio.wait_for(done.wait(), 20)
    return time.monotonic() - began


def is_zombie(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


async def start(node: HttpNode, job: dict[str, Any], number: int) -> list[int]:
    """Returns the OS pids."""
    assert (await node.call("POST", "/jobs/default", job)).status == 200
    found = await eventually_async(lambda: len(node.manager.running) == number and [*node.manager.running.values()])
    return [process.os_pid for process in found]


async def test_processes_stay_and_nothing_is_recorded_of_their_end() -> None:
    steps, records = Steps(), Records()
    async with handed_over(steps, recorder=records) as node:
        await start(node, sleeper(numprocesses=2), 2)
        assert (await node.call("POST", "/jobs/default/sleeper/commit")).status == 200
        await eventually_async(lambda: len(node.manager.running) == 3 and records.told.count("spawned") == 3)
        pids = [process.os_pid for process in node.manager.running.values()]
        await hand_over(node)
        assert steps.seen == ["quiesce", "leave", "stop"]
        assert not node.manager.started
        assert not any(map(is_zombie, pids))
        assert set(records.told) == {"started", "spawned"}


async def test_an_exit_meanwhile_is_left_to_the_successor_with_its_status() -> None:
    steps, records = Steps(), Records()
    async with handed_over(steps, recorder=records) as node:
        (pid,) = await start(node, sleeper(), 1)

        async def kill() -> None:
            os.kill(pid, signal.SIGUSR1)
            await eventually_async(lambda: is_zombie(pid))

        steps.on_quiesce = kill  # type: ignore[method-assign]
        await hand_over(node)
        assert reap(pid) == -signal.SIGUSR1
        assert set(records.told) == {"started", "spawned"}


async def test_orders_are_refused_with_a_hint_and_reads_are_answered() -> None:
    steps = Steps()
    async with handed_over(steps) as node:
        (pid,) = await start(node, sleeper(), 1)
        open_before = await open_exchange(node.address, "GET", "/ping", headers={"Connection": "keep-alive"})
        assert await open_before.read_some() == b"OK"
        answers: list[Any] = []

        async def ask() -> None:
            for method, path in (("DELETE", "/jobs/default/sleeper"), ("GET", "/jobs")):
                open_before.writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                answers.append(int((await open_before.reader.readline()).split()[1]))
                size = 0
                while (line := await open_before.reader.readline()) != b"\r\n":
                    size = int(line.split()[1]) if line.lower().startswith(b"content-length") else size
                answers.append(json.loads(await open_before.reader.readexactly(size)))

        steps.on_quiesce = ask  # type: ignore[method-assign]
        await hand_over(node)
        refused, error, read, jobs = answers
        assert (refused, error["error"], error["hint"]) == (503, "upgrading", "try again in a second")
        assert (read, jobs) == (200, {"jobs": ["default.sleeper"]})
        assert not is_zombie(pid)
        open_before.close()


async def test_clients_are_asked_to_come_again() -> None:
    async with handed_over() as node:
        job = script("job", "print('one', flush=True); import time; time.sleep(1000)", redirect_output=["out"])
        await start(node, job, 1)
        (pid,) = node.manager.running
        stream = await node.follow(f"/streams/{pid}/out?feed=eventsource&tail=10")
        await stream.read_until(b"one")
        async with (
            connected(node.address, f"/wstreams/{pid}?tail=10") as raw,
            connected(node.address, CHANNEL) as channel,
        ):
            assert await raw.receive_until(b"\n") == b"one\n"
            assert await channel.receive() == "o"
            await hand_over(node)
            with pytest.raises(Closed) as closed:
                await raw.receive()
            assert (closed.value.code, closed.value.reason) == (1012, "service restart")
            assert await channel.receive() == 'c[1012,"service restart"]'
        assert b"id:" in await stream.read_all()


async def test_auxiliary_commands_are_killed() -> None:
    async with handed_over() as node:
        action = {"action.long": "sh -c 'trap \"\" TERM; sleep 1000 & echo $! $$; wait'"}
        (pid,) = await start(node, sleeper(**action), 1)
        command = node.manager.start_action("default.sleeper", "long")
        written = await eventually_async(lambda: command.ring.end > 3 and command.ring.read(0).data)
        await hand_over(node)
        pids = [*map(int, written.split())]
        await eventually_async(lambda: not any(Path(f"/proc/{each}").exists() for each in pids))
        assert not is_zombie(pid)


@pytest.mark.expects_errors("leave of .* failed")
async def test_what_hangs_does_not_hold_it() -> None:
    class Hangs(Steps):
        async def leave(self) -> None:
            await asyncio.Event().wait()

    steps, last = Hangs(), Steps()
    async with handed_over(steps, last) as node:
        (pid,) = await start(node, sleeper(), 1)
        assert await hand_over(node) < 10
        assert steps.seen == ["quiesce", "stop"]
        assert last.seen == ["quiesce", "leave", "stop"]
        assert not is_zombie(pid)


async def test_what_was_read_is_in_the_log(tmp_path: Path) -> None:
    async with handed_over(log_dir=tmp_path) as node:
        job = script("job", "print('one', flush=True); print('half', end='', flush=True); input()", redirect_input=True)
        await start(node, {**job, "redirect_output": ["out"]}, 1)
        (process,) = node.manager.running.values()
        await eventually_async(lambda: process.ring("out").end == len("one\nhalf"))
        await hand_over(node)
        assert (tmp_path / "default.job.1.out.log").read_text() == "one\nhalf"


async def test_a_manager_without_processes_or_a_start() -> None:
    Manager(asyncio.get_running_loop()).hand_over()
    async with handed_over() as node:
        await hand_over(node)
        assert not node.manager.started
