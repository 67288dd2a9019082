"""Measure changes of jobs that are stored before they are answered, beside the same without storing them.

python bench/durable.py [--calls 1000] [--clients 16] [--jobs 16] [--others 0] [--rounds 5]

The clients run in another process, each with a connection, and scale jobs that are stopped. `--others` are jobs that
only make the file larger. The floor is a loop that writes and syncs a file of 1 kB in the same directory.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import Daemon, daemon, pairs, show, show_ratio

CLIENTS = """
import http.client, json, sys, threading, time
host, clients, calls, jobs = sys.argv[1], *map(int, sys.argv[2:])
barrier = threading.Barrier(clients + 1)
def run(number):
    connection = http.client.HTTPConnection(host)
    connection.request("GET", "/ping")
    connection.getresponse().read()
    barrier.wait()
    for call in range(number, calls, clients):
        body = json.dumps({"scale": "=%d" % (call % 7)})
        connection.request("POST", "/jobs/bench/j%d/numprocesses" % (call % jobs), body)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
for thread in threads: thread.start()
barrier.wait()
began = time.perf_counter()
for thread in threads: thread.join()
print(time.perf_counter() - began)
"""


def scale(node: Daemon, clients: int, calls: int, jobs: int) -> float:
    """Return the seconds that all calls took."""
    command = [sys.executable, "-c", CLIENTS, node.url.removeprefix("http://"), str(clients), str(calls), str(jobs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def sync(count: int) -> float:
    """Return the seconds of one write with fsync, from `count` of them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file")
        began = time.perf_counter()
        for _ in range(count):
            with path.open("wb") as file:
                file.write(b"x" * 1000)
                file.flush()
                os.fsync(file.fileno())
        return (time.perf_counter() - began) / count


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("calls", 1000), ("clients", 16), ("jobs", 16), ("others", 0), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        forgetful = Path(directory, "gafferd.ini")
        forgetful.write_text("[gaffer]\nkeep_jobs = false\n")
        nodes = [stack.enter_context(daemon("gafferd", *given)) for given in ((), (str(forgetful),))]
        for node in nodes:
            names = [*(f"j{n}" for n in range(options.jobs)), *(f"other{n}" for n in range(options.others))]
            node.call("POST", "/jobs/bench", {"jobs": [{"name": n, "cmd": "true", "start": False} for n in names]})
        stored, answered = (
            lambda node=node: scale(node, options.clients, options.calls, options.jobs) for node in nodes
        )
        ours, floor = pairs(stored, answered, options.rounds)
        show(f"{options.calls} calls, stored", ours)
        show(f"{options.calls} calls, not stored", floor)
        show_ratio("throughput of stored changes, of the others", floor, ours)
        show("one fsync of 1 kB", [sync(100) for _ in range(options.rounds)])


if __name__ == "__main__":
    main()
