"""Compare gafferd with and without a keeper, in interleaved pairs; measure its return after SIGKILL.

python bench/survival.py [--count 200] [--pairs 7] [--kills 20]

The costs of a keeper: POST to the last of `--count` processes, death of one to its replacement, exec of gafferd to its
last process, and memory. Then the time from SIGKILL of gafferd to the answer of the next one to a request for the
processes, and to /ping, with `--count` and with 1,000 processes.
"""

import argparse
import contextlib
import os
import select
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from _measure import BIN, Daemon, installed_environment, show, show_ratio

WITH, WITHOUT = "--keeper", "--no-keeper"
SETTLE = 3.0  # seconds until the work of the start is done
PAUSE = 2.0  # seconds between two kills, after which the keeper starts gafferd without a longer delay
CMD = "/bin/sleep 1000"


def children(pid: int) -> set[int]:
    """Return the OS pids of the children of a process."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


class Node(Daemon):
    """A running gafferd with or without a keeper."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, option: str) -> None:
        super().__init__(process, url)
        self._kept = option == WITH

    @property
    def pid(self) -> int:
        """The OS pid of gafferd: with a keeper it is its first child, and the adopted are the others."""
        if not self._kept:
            return self.process.pid
        return next(pid for pid in children(self.process.pid) if Path(f"/proc/{pid}/comm").read_text() != "sleep\n")

    def processes(self) -> set[int]:
        """Return the OS pids of the processes of jobs that this gafferd started."""
        return children(self.pid)

    def memory(self) -> dict[str, float]:
        """Return Rss and Pss of gafferd and its keeper together, in MiB."""
        total = {"Rss": 0.0, "Pss": 0.0}
        for pid in {self.process.pid, self.pid}:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
            total = {name: value + sizes[name] for name, value in total.items()}
        return total

    def wait_for(self, count: int) -> set[int]:
        """Wait until there are so many processes."""
        deadline = time.monotonic() + 60
        while len(found := self.processes()) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"gafferd runs only {len(found)} of {count} processes")
            time.sleep(0.0005)
        return found


@contextlib.contextmanager
def running(option: str, config: str = "") -> Iterator[Node]:
    """Run gafferd with `option` and this configuration file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gafferd.ini"
        file.write_text(config)
        words = [str(BIN / "gafferd"), option, "--bind=127.0.0.1:0", f"--state-dir={folder}/state", str(file)]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=installed_environment())
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("listening on http://"):
                    yield Node(process, line.split()[-1], option)
                    break
            else:
                raise SystemExit("gafferd did not start")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def spawn(node: Node, count: int) -> float:
    """Return the seconds from POST to the last process."""
    job = {"name": "s", "cmd": CMD, "numprocesses": count, "graceful_timeout": 5}
    began = time.perf_counter()
    node.call("POST", "/jobs/default", job)
    node.wait_for(count)
    took = time.perf_counter() - began
    node.call("DELETE", "/jobs/default/s")
    while node.processes():
        time.sleep(0.01)
    return took


def respawn(node: Node) -> float:
    """Return the seconds from the death of a process to its replacement."""
    before = node.wait_for(1)
    time.sleep(1.1)  # a process that has run for over a second is replaced at once
    began = time.perf_counter()
    os.kill(min(before), signal.SIGKILL)
    while not node.processes() - before:
        if time.perf_counter() - began > 10:
            raise SystemExit("the process was not replaced")
    return time.perf_counter() - began


def cold_start(option: str, count: int) -> float:
    """Return the seconds from exec of gafferd to the last process of its configuration file."""
    began = time.perf_counter()
    with running(option, f"[process:s]\ncmd = {CMD}\nnumprocesses = {count}\n") as node:
        node.wait_for(count)
        return time.perf_counter() - began


def memory(option: str, count: int) -> dict[str, float]:
    """Return the memory of an idle node with so many processes, in MiB."""
    with running(option, f"[process:s]\ncmd = {CMD}\nnumprocesses = {count}\n" if count else "") as node:
        node.wait_for(count)
        time.sleep(SETTLE)
        return node.memory()


def costs(count: int, pairs: int) -> None:
    """Print what a keeper costs."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(what: str, option: str, value: float) -> None:
        found.setdefault(what, {}).setdefault(option, []).append(value)

    options = (WITH, WITHOUT)
    with running(WITH) as kept, running(WITHOUT) as plain:
        nodes = {WITH: kept, WITHOUT: plain}
        for turn in range(pairs + 1):
            for option in options if turn % 2 else options[::-1]:
                took = spawn(nodes[option], count)
                if turn:  # the first fills caches
                    note(f"POST to the last of {count} processes", option, took)
    single = f"[process:s]\ncmd = {CMD}\n"
    with running(WITH, single) as kept, running(WITHOUT, single) as plain:
        nodes = {WITH: kept, WITHOUT: plain}
        for turn in range(3 * pairs):
            for option in options if turn % 2 else options[::-1]:
                note("death of a process to its replacement", option, respawn(nodes[option]))
    for turn in range(pairs):
        for option in options if turn % 2 else options[::-1]:
            note(f"exec of gafferd to the last of {count} processes", option, cold_start(option, count))
    for what, values in found.items():
        print(what)
        for option in options:
            show(f"  {option}", values[option])
        show_ratio("  ratio", values[WITH], values[WITHOUT])
        show("  more", [a - b for a, b in zip(values[WITH], values[WITHOUT], strict=True)])
    for size in (0, count):
        sizes = [(memory(WITH, size), memory(WITHOUT, size)) for _ in range(3)]
        for kind in ("Rss", "Pss"):
            more = [kept[kind] - plain[kind] for kept, plain in sizes]
            low, high = min(more), max(more)
            print(
                f"{kind} with {size} processes: {sizes[0][0][kind]:.1f} MiB with, {sizes[0][1][kind]:.1f} MiB without; "
                f"{statistics.median(more):.1f} MiB more ({low:.1f} to {high:.1f})"
            )


def processor_time(pid: int) -> float:
    """Return the seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill(node: Node, path: str) -> tuple[float, float]:
    """Kill gafferd; return the seconds until the response of the next one, and what that has computed until then."""
    pid = node.pid
    pidfd = os.pidfd_open(pid)
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
    with urllib.request.urlopen(node.url + path, timeout=60) as response:
        response.read()
    return time.perf_counter() - began, processor_time(node.pid)


def returns(count: int, kills: int) -> None:
    """Print how long the API is away after a SIGKILL."""
    with running(WITH, f"[process:s]\ncmd = {CMD}\nnumprocesses = {count}\n") as node:
        before = node.wait_for(count)
        time.sleep(SETTLE)
        for path in ("/ping", "/jobs/default/s"):
            found = []
            for _ in range(kills):
                found.append(kill(node, path))
                time.sleep(PAUSE)
            show(f"SIGKILL to {path} with {count} processes", [took for took, _ in found])
            show("  processor time of that", [computed for _, computed in found])
        left = {each["os_pid"] for each in node.call("GET", "/jobs/default/s")["instances"]}
        print(f"{len(before & left)} of {count} processes are the same after {2 * kills} kills")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--kills", type=int, default=20)
    chosen = parser.parse_args()
    returns(chosen.count, chosen.kills)
    returns(1000, chosen.kills)
    costs(chosen.count, chosen.pairs)


if __name__ == "__main__":
    main()
