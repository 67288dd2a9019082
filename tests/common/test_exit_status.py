"""What is known of a process that has exited: what it used, and its last lines."""

import asyncio
import os
import resource
import signal
import sys
from typing import Any

import pytest

from gaffer.jobs.names import JobName
from gaffer.process import ExitStatus, Process, ProcessConfig
from gaffer.processes.rusage import usage_of_zombie
from support.needs import needs_linux
from support.poll import eventually_async

JOB = JobName("shop", "web")

# Burns the CPU for 0.2 s in a child that it reaps, and uses more memory than given.
BUSY = """
import os, sys, time
if os.fork() == 0:
    while time.process_time() < 0.2:
        pass
    os._exit(0)
os.wait()
memory = bytearray(int(sys.argv[1]))
for at in range(0, len(memory), 4096):
    memory[at] = 1
os.kill(os.getpid(), int(sys.argv[2]))
os._exit(3)
"""


async def ended(config: ProcessConfig, **settings: Any) -> tuple[Process, ExitStatus]:
    process = Process(asyncio.get_running_loop(), config, pid=1, job=JOB, **settings)
    process.spawn()
    await eventually_async(lambda: process.closed)
    assert process.exit_status is not None
    return process, process.exit_status


@needs_linux
@pytest.mark.parametrize("signum", [0, signal.SIGKILL])
async def test_what_a_process_and_its_children_used(signum: int) -> None:
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    more = ours + 50 * 1024**2
    args = ["-I", "-S", "-c", BUSY, str(more), str(signum)]
    _, status = await ended(ProcessConfig("web", sys.executable, args=args))
    assert (status.exit_code, status.term_signal) == ((None, signum) if signum else (3, 0))
    assert status.usage is not None
    assert 0.2 <= status.usage.user_time + status.usage.system_time < 30
    assert status.usage.max_rss is not None
    assert more <= status.usage.max_rss < 2 * more


@needs_linux
async def test_less_memory_than_ours_is_unknown() -> None:
    _, status = await ended(ProcessConfig("web", "true"))
    assert status.usage is not None
    assert status.usage.max_rss is None


def test_of_a_running_process_nothing_is_known() -> None:
    assert usage_of_zombie(os.getppid()) is None


def shell(line: str, **settings: Any) -> ProcessConfig:
    return ProcessConfig("web", line, shell=True, **settings)


LINES = "for i in 1 2 3; do echo out $i; done; for i in 1 2; do echo err $i >&2; done; printf 'err 3' >&2"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (20, "out 1\nout 2\nout 3\nerr 1\nerr 2\nerr 3"),
        (4, "out 3\nerr 1\nerr 2\nerr 3"),
        (3, "err 1\nerr 2\nerr 3"),
        (1, "err 3"),
    ],
)
async def test_the_last_lines_end_with_those_of_stderr(count: int, expected: str) -> None:
    process, _ = await ended(shell(LINES), capture_all=True)
    assert process.last_lines(count) == expected
    labelled, _ = await ended(shell(LINES, redirect_output=["o", "e"]))
    assert labelled.last_lines(count) == expected


@pytest.mark.parametrize(
    ("line", "settings", "expected"),
    [
        ("echo a; echo b >&2; echo c", {"redirect_output": ["all", "all"]}, "a\nb\nc"),
        ("echo a; echo b >&2", {"redirect_output": ["o"]}, "a"),
        ("echo a; echo b >&2", {}, None),
        ("true", {"redirect_output": ["o", "e"]}, None),
        ("printf '\\n\\nlast\\n\\n'", {"redirect_output": ["o"]}, "\n\nlast\n"),
        ("printf 'a\\377b\\n'", {"redirect_output": ["o"]}, "a\N{REPLACEMENT CHARACTER}b"),
    ],
    ids=["merged", "one", "not captured", "silent", "empty lines", "not UTF-8"],
)
async def test_the_last_lines_of_what_is_captured(line: str, settings: dict[str, Any], expected: str | None) -> None:
    process, _ = await ended(shell(line, **settings))
    assert process.last_lines() == expected


async def test_the_last_lines_are_bounded() -> None:
    process, _ = await ended(shell("yes x | head -c 200000; yes err | head -c 50 >&2"), capture_all=True)
    assert process.last_lines(10**6, 100) == "x\n" * 25 + "\n".join(["err"] * 12 + ["er"])
    assert len(process.last_lines(10**6) or "") <= 64 * 1024
    assert len((process.last_lines() or "").split("\n")) == 20


async def test_all_that_is_read_of_the_outputs() -> None:
    for settings, capture_all, expected in (
        ({}, False, []),
        ({}, True, [b"out\n", b"err\n"]),
        ({"redirect_output": ["o"]}, False, [b"out\n"]),
        ({"redirect_output": ["o"]}, True, [b"out\n", b"err\n"]),
        ({"redirect_output": ["o", "o"]}, True, [b"out\nerr\n"]),
        ({"ready": "log:x"}, False, [b"out\n", b"err\n"]),
    ):
        config = shell("echo out; echo err >&2", **settings)
        process, _ = await ended(config, capture_all=capture_all)
        assert [ring.read(0).data for ring in process.captured] == expected
