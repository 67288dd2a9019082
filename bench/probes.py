"""Measure probes: the CPU time of many, and the time from a port that accepts to the verdict.

python bench/probes.py [--jobs 1000] [--ports 300] [--seconds 10] [--openings 50] [--waiting 200] [--loop auto]

The jobs stand for processes; their ports are those of another process, which accepts and closes connections. The CPU
time of the system calls, which is most of it, includes the loopback: both ends of each connection.
"""

import argparse
import asyncio
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from _measure import show

from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.probing import Question
from gaffer.loop import KINDS, new_loop
from gaffer.supervision.probes.prober import Prober

SERVER = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for _ in range(int(sys.argv[1])):
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    print(listener.getsockname()[1], flush=True)
while True:
    for key, _ in selector.select():
        try:
            key.fileobj.accept()[0].close()
        except BlockingIOError:
            pass
"""
# Listens on the port when told, and prints the time at which it began to.
OPENER = """
import socket, sys, time
for line in sys.stdin:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", int(line)))
        sock.listen()
        print(time.monotonic(), flush=True)
        sys.stdin.readline()
"""


@dataclass
class Process:
    """What a prober has to know of a process."""

    pid: int
    config: JobConfig
    job: JobName
    port: int | None = None
    os_pid: int = 0
    active: bool = True
    captured: tuple[()] = ()


def process(pid: int, **settings: object) -> Process:
    """Return a process with these settings."""
    name = f"job{pid}"
    return Process(pid, JobConfig.from_dict({"name": name, "cmd": "serve", **settings}), parse_job_name(name))


@contextmanager
def ports(count: int) -> Iterator[list[int]]:
    """Listen on `count` ports in a process of its own."""
    command = [sys.executable, "-c", SERVER, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield [int(server.stdout.readline()) for _ in range(count)]
        finally:
            server.terminate()


async def run_command(process: Process, command: str, timeout: float) -> str:
    raise NotImplementedError


def usage() -> float:
    """Return the CPU time of this process in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure_cpu(jobs: int, count: int, seconds: float) -> None:
    """Print the share of a core that a probe a second of each of `jobs` costs."""
    ready = 0

    def on_verdict(process: Process, question: Question, good: bool, error: str) -> None:
        nonlocal ready
        ready += good

    with ports(count) as open_ports:
        prober = Prober(asyncio.get_running_loop(), on_verdict, run_command)
        for pid in range(jobs):
            prober.start(process(pid, live=f"tcp:{open_ports[pid % count]}", live_interval=1))
        await asyncio.sleep(3)
        assert ready == jobs, f"{ready} of {jobs} jobs are live"
        shares = []
        for _ in range(5):
            began, used = time.monotonic(), usage()
            await asyncio.sleep(seconds / 5)
            shares.append((usage() - used) / (time.monotonic() - began))
        prober.close()
    show(f"{jobs} tcp probes a second", shares, "core", 1)


async def measure_latency(openings: int, waiting: int) -> None:
    """Print how long after a port accepts its process is ready, and the CPU time of `waiting` processes before that."""
    loop = asyncio.get_running_loop()
    verdict: asyncio.Queue[float] = asyncio.Queue()

    def on_verdict(process: Process, question: Question, good: bool, error: str) -> None:
        if good:
            verdict.put_nowait(time.monotonic())

    prober = Prober(loop, on_verdict, run_command)
    with socket.socket() as never, socket.socket() as reserved:
        never.bind(("127.0.0.1", 0))
        for pid in range(waiting):
            prober.start(process(pid, ready=f"tcp:{never.getsockname()[1]}"))
        await asyncio.sleep(1)
        began, used = time.monotonic(), usage()
        await asyncio.sleep(3)
        show(f"{waiting} processes waiting for a port", [(usage() - used) / (time.monotonic() - began)], "core", 1)

        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        opener = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPENER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert opener.stdin is not None
        assert opener.stdout is not None
        latencies = []
        for number in range(openings):
            prober.start(process(waiting + number, ready=f"tcp:{port}", ready_interval=5))
            await asyncio.sleep(0.15 + 0.0037 * (number % 7))  # past the first probe, at different times of a look
            opener.stdin.write(b"%d\n" % port)
            at = await verdict.get()
            latencies.append(at - float(await opener.stdout.readline()))
            prober.stop(waiting + number)
            opener.stdin.write(b"\n")
        opener.stdin.close()
        await opener.wait()
    prober.close()
    show("from accepting to ready", latencies)
    print(
        f"worst of {len(latencies)}: {max(latencies) * 1000:.1f} ms, median {statistics.median(latencies) * 1000:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--ports", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--openings", type=int, default=50)
    parser.add_argument("--waiting", type=int, default=200)
    parser.add_argument("--loop", choices=KINDS, default="auto")
    chosen = parser.parse_args()

    loop = new_loop(chosen.loop)
    try:
        loop.run_until_complete(measure_cpu(chosen.jobs, chosen.ports, chosen.seconds))
        loop.run_until_complete(measure_latency(chosen.openings, chosen.waiting))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
