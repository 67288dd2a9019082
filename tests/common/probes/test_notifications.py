"""Probes that wait for sd_notify(3): real processes send real messages."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager

import pytest

from gaffer.jobs.probing import Question
from support.holder import Holder
from support.leaks import open_descriptors
from support.needs import needs_linux
from support.poll import eventually_async
from support.probed import Probed, Verdicts, probed, probing

pytestmark = needs_linux

NOT_YET = "READY=1 has not arrived yet"

# Sends each line of its input, with `;` for line feeds, until that ends.
SENDER = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for line in sys.stdin:
    sock.sendto(line.strip().replace(";", chr(10)).encode(), chr(0) + os.environ["NOTIFY_SOCKET"][1:])
"""
# In a group of its own.
IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SENDER!r}], process_group=0)"
# Sends each line decoded from hexadecimal digits, then RELOADING=1.
ODD = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for line in sys.stdin:
    for message in (bytes.fromhex(line), b"RELOADING=1"):
        sock.sendto(message, chr(0) + os.environ["NOTIFY_SOCKET"][1:])
"""
# The sender loses its parent, and stays in the group of the leader.
IN_AN_ORPHAN = f"""
import signal, subprocess, sys
subprocess.run(["sh", "-c", 'exec 3<&0; "$0" -c "$1" <&3 &', sys.executable, {SENDER!r}])
signal.pause()
"""


@contextmanager
def sender(verdicts: Verdicts, process: Probed, program: str = SENDER) -> Iterator[Probed]:
    """Run `program` as the process."""
    environment = {**os.environ, "NOTIFY_SOCKET": verdicts.prober.notify_address()}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, process_group=0) as child:
        process.child = child
        try:
            yield process
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)


def send(process: Probed, *messages: str) -> None:
    assert process.child is not None
    assert process.child.stdin is not None
    for message in messages:
        process.child.stdin.write(message.encode() + b"\n")
    process.child.stdin.flush()


@pytest.mark.parametrize("program", [SENDER, IN_A_CHILD, IN_AN_ORPHAN], ids=["leader", "child", "orphan"])
async def test_the_process_says_when_it_is_ready(program: str) -> None:
    async with probing() as verdicts:
        with sender(verdicts, probed(ready="notify"), program) as process:
            verdicts.prober.start(process)
            await verdicts.last(NOT_YET)
            send(process, "MAINPID=1;READY=1;STATUS=serving")
            await verdicts.last("good")
            send(process, "RELOADING=1")
            await verdicts.last("reloading")
            send(process, "READY=1")
            await verdicts.last("good")
            send(process, "STATUS=more", "STOPPING=1")
            await verdicts.last("stopping")
        assert verdicts.of() == [NOT_YET, "good", "reloading", "good", "stopping"]


async def test_a_message_to_a_killed_manager_reaches_the_next_one() -> None:
    holder = Holder()
    try:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(probing(holder=holder))
            process = stack.enter_context(sender(first, probed(ready="notify")))
            address = first.prober.notify_address()
            first.prober.close()
            send(process, "READY=1")
            second = await stack.enter_async_context(probing(holder=holder))
            assert second.prober.notify_address() == address
            second.prober.start(process)
            await second.last("good")
    finally:
        holder.close()


async def test_why_it_is_not_ready() -> None:
    async with probing() as verdicts:
        with sender(verdicts, probed(ready="notify")) as process:
            verdicts.prober.start(process)
            send(process, "STATUS=loading 10 %", "STATUS=loading 20 %", "STATUS=")
            await verdicts.last("loading 20 %")
            send(process, "READY=1", "STATUS=busy", "UNKNOWN=1")
            await verdicts.last("good")
        assert verdicts.of() == [NOT_YET, "loading 20 %", "good"], "at most one reason a second"


async def test_messages_before_the_probe_count() -> None:
    async with probing() as verdicts:
        with sender(verdicts, probed(ready="notify", live="notify")) as process:
            send(process, "READY=1", "WATCHDOG=1")  # the first begins the live probe
            await asyncio.sleep(0.3)
            verdicts.prober.start(process)
            await verdicts.last("good")


async def test_messages_of_other_processes_are_ignored() -> None:
    async with probing() as verdicts:
        with ExitStack() as stack:
            first, second = (stack.enter_context(sender(verdicts, probed(pid, ready="notify"))) for pid in (1, 2))
            ours = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            ours.connect(f"\0{verdicts.prober.notify_address()[1:]}")
            for process in (first, second):
                verdicts.prober.start(process)
            ours.send(b"READY=1")
            send(second, "READY=1")
            await verdicts.last("good", pid=2)
            assert verdicts.of(pid=1) == [NOT_YET]
            verdicts.prober.stop(1)
            send(first, "READY=1")
            send(second, "RELOADING=1")
            await verdicts.last("reloading", pid=2)
            assert verdicts.of(pid=1) == [NOT_YET]


async def test_a_barrier_is_lifted_and_no_descriptor_is_kept() -> None:
    async with probing() as verdicts:
        verdicts.prober.start(probed(ready="notify"))
        address = f"\0{verdicts.prober.notify_address()[1:]}"
        before = open_descriptors()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.connect(address)
            read, *rest = (each for _ in range(50) for each in os.pipe())
            socket.send_fds(ours, [b"BARRIER=1"], rest)
            for descriptor in rest:
                os.close(descriptor)
            os.set_blocking(read, False)
            await eventually_async(lambda: os.read(read, 1) == b"", retry_on=(BlockingIOError,))
            os.close(read)
        assert open_descriptors() == before


@pytest.mark.parametrize("message", [b"", b"READY=1\n" + b"x" * 5000, b"\xff\0\n\n=\n", b"READY"])
async def test_odd_messages_are_ignored(message: bytes) -> None:
    async with probing() as verdicts:
        with sender(verdicts, probed(ready="notify"), ODD) as process:
            verdicts.prober.start(process)
            send(process, message.hex())
            await verdicts.last("reloading")
            assert "good" not in verdicts.of()


async def test_one_socket_serves_all() -> None:
    async with probing() as verdicts:
        before = len(open_descriptors())
        address = verdicts.prober.notify_address()
        assert address.startswith("@")
        assert verdicts.prober.notify_address() == address
        assert len(open_descriptors()) == before + 1


async def test_a_watchdog() -> None:
    async with probing() as verdicts:
        with sender(verdicts, probed(live="notify", live_interval=0.2, live_failures=2)) as process:
            verdicts.prober.start(process)
            await verdicts.last("good", Question.LIVE)
            await verdicts.last("no WATCHDOG=1 within 0.2 s", Question.LIVE)
            send(process, "WATCHDOG=1")
            await verdicts.last("good", Question.LIVE)


async def test_the_messages_of_a_process_that_ended_are_ignored() -> None:
    async with probing() as verdicts:
        with sender(verdicts, probed(ready="notify")) as process:
            verdicts.prober.start(process)
            await verdicts.last(NOT_YET)
            send(process, "READY=1")
            assert process.child is not None
            process.child.communicate(timeout=10)
            await asyncio.sleep(0.1)
            assert verdicts.of() == [NOT_YET]
