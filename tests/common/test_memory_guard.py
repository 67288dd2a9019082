"""The memory of whole process trees, and what exceeds its limit."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gaffer import Manager
from gaffer.process import Process, ProcessConfig
from gaffer.processes.cgroups import Cgroups
from gaffer.supervision.memory_guard import MemoryGuard
from support import turnable
from support.managers import running_manager
from support.needs import needs_cgroup
from support.poll import eventually, eventually_async

MIB = 1024**2
LIMIT = 50 * MIB  # an interpreter takes some 10

SLEEP = "import time; time.sleep(1000)"
GROW = "data = bytearray(b'x') * (60 * 1024 * 1024); import time; time.sleep(1000)"
DESCENDANT = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        exec(os.environ["GROW"])
    os.wait()
os.wait()
"""
IN_GROUP = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        exec(os.environ["GROW"])
    os._exit(0)
os.wait()
time.sleep(1000)
"""
ORPHAN = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        exec(os.environ["GROW"])
    os._exit(0)
os.wait()
time.sleep(1000)
"""
HIDDEN = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-I", "-c", os.environ["GROW"]], {})
    os._exit(0)
os.wait()
time.sleep(1000)
"""


class Report(NamedTuple):
    process: Process
    used: int
    limit: int


def program(code: str, name: str = "j") -> ProcessConfig:
    return ProcessConfig(name, sys.executable, args=["-I", "-c", code], env={"GROW": GROW})


def guard_on(
    loop: asyncio.AbstractEventLoop, cgroups: Cgroups | None = None, interval: float = 0.05
) -> tuple[MemoryGuard[Process], list[Report]]:
    reports: list[Report] = []
    guard: MemoryGuard[Process] = MemoryGuard(
        loop, lambda *report: reports.append(Report(*report)), cgroups=cgroups, interval=interval
    )
    return guard, reports


@contextlib.contextmanager
def guarded(manager: Manager, *codes: str) -> Iterator[tuple[list[Process], list[Report]]]:
    """A job for each program, whose processes are watched, and what the guard reports."""
    names = [f"j{number}" for number in range(len(codes))]
    for name, code in zip(names, codes, strict=True):
        manager.load(program(code, name))
    eventually(lambda: len(manager.running) == len(codes))
    guard, reports = guard_on(manager.loop, manager._executor._reaper.cgroups)
    processes = [process for name in names for process in manager.running.values() if process.name == name]
    for process in processes:
        manager.loop.call_soon_threadsafe(guard.watch, process, lambda: LIMIT)
    yield processes, reports
    manager.loop.call_soon_threadsafe(guard.close)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[str], Process]]:
    """Start a program without a manager."""
    started: list[Process] = []

    def start(code: str) -> Process:
        process = program(code).make_process(asyncio.get_running_loop(), len(started) + 1, "s.j")
        process.spawn()
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()
    await eventually_async(lambda: all(process.closed for process in started))


@pytest.mark.parametrize(
    ("code", "node_id"),
    [(GROW, ""), (DESCENDANT, ""), (IN_GROUP, ""), (ORPHAN, "n1")],
    ids=["leader", "descendant", "group", "orphan"],
)
def test_the_memory_of_a_tree_counts(code: str, node_id: str) -> None:
    with (
        running_manager(subreaper=True, node_id=node_id) as manager,
        guarded(manager, SLEEP, code) as ((_, large), reports),
    ):
        eventually(lambda: reports)
        assert reports[0].process is large
        assert LIMIT < reports[0].used < 120 * MIB
        assert reports[0].limit == LIMIT


@needs_cgroup
def test_the_memory_of_a_control_group_counts() -> None:
    mount = next(
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if "- cgroup2 " in line
    )
    group = Path(mount) / f"gaffer-memory-{os.getpid()}"
    group.mkdir()
    with (
        running_manager(cgroup=group) as manager,
        guarded(manager, SLEEP, HIDDEN) as ((_, large), reports),
    ):
        eventually(lambda: reports)
        assert reports[0].process is large
    eventually(lambda: group.rmdir() is None, retry_on=(OSError,))


async def test_each_process_is_reported_once(start: Callable[[str], Process]) -> None:
    guard, reports = guard_on(asyncio.get_running_loop())
    small, first, second = start(SLEEP), start(GROW), start(GROW)
    guard.watch(small, lambda: LIMIT)
    guard.watch(first, lambda: LIMIT)
    await eventually_async(lambda: reports)
    guard.watch(second, lambda: LIMIT)
    await eventually_async(lambda: len(reports) == 2)
    guard.close()
    assert [report.process for report in reports] == [first, second]


async def test_a_limit_may_change(start: Callable[[str], Process]) -> None:
    guard, reports = guard_on(asyncio.get_running_loop())
    large, small = start(GROW), start(SLEEP)
    limits = {large: 1000 * MIB, small: MIB}
    guard.watch(large, lambda: limits[large])
    guard.watch(small, lambda: limits[small])
    await eventually_async(lambda: reports)
    limits[large] = LIMIT
    await eventually_async(lambda: len(reports) == 2)
    assert [(report.process, report.limit) for report in reports] == [(small, MIB), (large, LIMIT)]
    guard.close()


async def test_a_process_may_be_watched_again_when_it_is_reported(start: Callable[[str], Process]) -> None:
    count = 0

    def again(process: Process, used: int, limit: int) -> None:
        nonlocal count
        count += 1
        if count < 3:
            guard.watch(process, lambda: MIB)

    guard = MemoryGuard(asyncio.get_running_loop(), again, interval=0.01)
    guard.watch(start(SLEEP), lambda: MIB)
    await eventually_async(lambda: count == 3)
    assert not guard._watched


@pytest.mark.parametrize("ending", ["unwatch", "exit", "no limit", "close", "exceeded"])
def test_there_is_no_timer_without_anything_to_watch(ending: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        guard, reports = guard_on(loop, interval=2.0)
        process = program(SLEEP).make_process(loop, 1, "s.j")
        limit = 1000 * MIB

        def timers() -> list[asyncio.TimerHandle]:
            return [timer for timer in turnable.timers() if getattr(timer._callback, "__self__", None) is guard]  # type: ignore[attr-defined]

        process.spawn()
        try:
            guard.watch(process, lambda: limit)
            guard.watch(process, lambda: limit)
            (first,) = timers()
            turnable.turn(2)
            await eventually_async(lambda: timers() not in ([], [first]))
            assert len(timers()) == 1
            assert not reports
            match ending:
                case "unwatch":
                    guard.unwatch(1)
                    guard.unwatch(1)
                    assert not timers()
                case "close":
                    guard.close()
                    assert not timers()
                case "exit":
                    process.kill(9)
                    await eventually_async(lambda: process.exit_status)
                case "no limit":
                    limit = 0
                case "exceeded":
                    limit = MIB
            turnable.turn(10)
            await eventually_async(lambda: not timers())
            assert bool(reports) == (ending == "exceeded")
        finally:
            process.close()
            await eventually_async(lambda: process.closed)

    turnable.run(main())
