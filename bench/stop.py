"""Measure the time from the request to stop a job to the exit of its last process, compared with killpg and wait.

python bench/stop.py [--count 200] [--pairs 5]

The job has 200 processes. First stops are measured on a new daemon each, later stops on one daemon.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

from _measure import Daemon, daemon, pairs, show, show_ratio

WORDS = ("/bin/sleep", "1000")


def stop_through(node: Daemon, count: int) -> float:
    """Start `count` processes and stop them; return the seconds that the stop took."""
    node.call("POST", "/jobs/default/s/state", 1)
    while len(node.children()) < count:
        time.sleep(0.01)
    time.sleep(0.2)
    began = time.perf_counter()
    node.call("POST", "/jobs/default/s/state", 0)
    while node.children():
        time.sleep(0.0005)
    return time.perf_counter() - began


@contextlib.contextmanager
def node_with_a_job(count: int) -> Iterator[Daemon]:
    """Run a new daemon with the job, not started yet."""
    with daemon("gafferd") as node:
        description = {"name": "s", "cmd": " ".join(WORDS), "numprocesses": count, "start": False}
        node.call("POST", "/jobs/default", description)
        yield node


def killpg_and_wait(count: int) -> float:
    """Return the floor: the seconds that the same stop takes without a supervisor."""
    children = [subprocess.Popen(WORDS, process_group=0) for _ in range(count)]
    time.sleep(0.2)
    began = time.perf_counter()
    for child in children:
        os.killpg(child.pid, signal.SIGTERM)
    for child in children:
        child.wait()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    chosen = parser.parse_args()

    def first() -> float:
        with node_with_a_job(chosen.count) as node:
            return stop_through(node, chosen.count)

    def floor() -> float:
        return killpg_and_wait(chosen.count)

    firsts, floors = pairs(first, floor, chosen.pairs)
    show(f"first stop of {chosen.count} processes", firsts)
    show("killpg and wait", floors)
    show_ratio("ratio to killpg and wait", firsts, floors)
    with node_with_a_job(chosen.count) as node:
        laters, floors = pairs(lambda: stop_through(node, chosen.count), floor, chosen.pairs)
    show(f"later stops of {chosen.count} processes", laters)
    show("killpg and wait", floors)
    show_ratio("ratio to killpg and wait", laters, floors)


if __name__ == "__main__":
    main()
