"""Measure a registry with many nodes: memory, the cost of heartbeats, lookups under that load, and a restart."""

import multiprocessing
import os
import signal
import socket
import subprocess
import time
from bisect import bisect_left
from pathlib import Path

from _measure import BIN, installed_environment
from _registry import Address, connect, get, http_answered, run_fleet

FLEETS = 4  # client processes
LOOKUPS = 200  # per second, while nodes send PINGs


class Fleets:
    """The client processes and their counters."""

    def __init__(self, address: Address, nodes: int, jobs: int, per_second: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        share = nodes // FLEETS
        for number in range(FLEETS):
            mine, theirs = context.Pipe()
            arguments = (address, number * share, share, jobs, per_second / FLEETS, theirs)
            process = context.Process(target=run_fleet, args=arguments, daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)
        self.accepted: list[float] = []
        self.refused: list[float] = []

    def ask(self) -> tuple[int, int]:
        """Return the number of announced nodes and of sent PINGs; collect the times of connections."""
        there = pings = 0
        for pipe in self._pipes:
            pipe.send("?")
        for pipe in self._pipes:
            found, sent, accepted, refused = pipe.recv()
            there += found
            pings += sent
            self.accepted += accepted
            self.refused += refused
        return there, pings

    def wait_for(self, count: float, timeout: float) -> None:
        """Wait until `count` nodes are announced."""
        deadline = time.monotonic() + timeout
        while (there := self.ask()[0]) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {there} of {count:.0f} nodes announced after {timeout:g} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the processes."""
        for pipe in self._pipes:
            pipe.send("stop")
        for process in self._processes:
            process.join(30)


def measure_scale(nodes: int, jobs: int, minute: float) -> None:
    """Announce `nodes` nodes, observe them for a while, restart lookupd; print the results."""
    nodes -= nodes % FLEETS
    with socket.create_server(("127.0.0.1", 0)) as free:
        address: Address = free.getsockname()
    lookupd = start_lookupd(address)
    fleets = Fleets(address, nodes, jobs, per_second=500)
    try:
        began = time.monotonic()
        fleets.wait_for(nodes, 300)
        print(f"{nodes} nodes of {jobs} jobs announced in {time.monotonic() - began:.0f} s")
        _report("memory of gaffer_lookupd", f"{memory(lookupd.pid) / 1e6:.0f} MB")
        time.sleep(15)  # until all have sent a PING and received the reconnect window
        _heartbeats(lookupd.pid, fleets, minute)
        _lookups(address, lookupd.pid, nodes, jobs, minute)
        _report("memory of gaffer_lookupd", f"{memory(lookupd.pid) / 1e6:.0f} MB")
        lookupd = _restart(lookupd, address, fleets, nodes)
    finally:
        fleets.stop()
        stop(lookupd)


def _heartbeats(pid: int, fleets: Fleets, seconds: float) -> None:
    (_, before), cpu, began = fleets.ask(), cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    took, used = time.monotonic() - began, cpu_seconds(pid) - cpu
    pings = fleets.ask()[1] - before
    _report("heartbeats, CPU", f"{used / took:.2f} cores at {pings / took:.0f} PINGs per second")


def _lookups(address: Address, pid: int, nodes: int, jobs: int, seconds: float) -> None:
    """Send queries at a fixed rate; measure each from the time when it was due."""
    sock = connect(address)
    took: list[float] = []
    cpu, began = cpu_seconds(pid), time.perf_counter()
    for number in range(int(seconds * LOOKUPS)):
        due = began + number / LOOKUPS
        time.sleep(max(0.0, due - time.perf_counter()))
        sock.sendall(get(f"/findJob?name=app{number % (nodes // 10)}.job{number % jobs}"))
        buffer = bytearray(sock.recv(65536))
        while not http_answered(buffer):
            buffer += sock.recv(65536)
        took.append(time.perf_counter() - due)
    sock.close()
    used = (cpu_seconds(pid) - cpu) / (time.perf_counter() - began)
    took.sort()
    p50, p99 = took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000
    _report(
        f"findJob at {LOOKUPS}/s with heartbeats", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {took[-1] * 1e3:.1f} ms"
    )
    _report("heartbeats and findJob, CPU", f"{used:.2f} cores")


def _restart(lookupd: "subprocess.Popen[str]", address: Address, fleets: Fleets, nodes: int) -> "subprocess.Popen[str]":
    stop(lookupd)
    fleets.ask()
    lookupd = start_lookupd(address)
    began = time.time()
    fleets.accepted.clear()
    fleets.refused.clear()
    fleets.wait_for(0.99 * nodes, 120)
    _report("restart: 99 % of nodes reconnected", f"{time.time() - began:.1f} s")
    fleets.wait_for(nodes, 120)
    cpu = cpu_seconds(lookupd.pid)
    _report("restart: all nodes reconnected", f"{time.time() - began:.1f} s, {cpu:.1f} s of CPU")
    accepted = sorted(when for when in fleets.accepted if when >= began)
    _report("restart: peak connections per second", str(max(_in_a_second(accepted, first) for first in accepted)))
    _report("restart: refused connections", str(sum(when >= began for when in fleets.refused)))
    return lookupd


def _in_a_second(times: list[float], first: float) -> int:
    return bisect_left(times, first + 1) - bisect_left(times, first)


def _report(what: str, value: str) -> None:
    print(f"{what:<44} {value}")


def start_lookupd(address: Address) -> "subprocess.Popen[str]":
    """Start gaffer_lookupd; return once it is listening."""
    bind = f"{address[0]}:{address[1]}"
    words = [str(BIN / "gaffer_lookupd"), "--bind", bind, "--backlog=1024", "--log-level=error"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=installed_environment())
    assert process.stderr is not None
    if not process.stderr.readline().startswith("listening on"):
        raise SystemExit("gaffer_lookupd did not start")
    return process


def stop(process: "subprocess.Popen[str]") -> None:
    """Stop a daemon."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process in seconds (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
