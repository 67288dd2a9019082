"""Measure the time from SIGKILL of a process to its replacement in gafferd, other supervisors and a bare Popen loop.

python bench/respawn.py [--rounds 20] [--children 1] [--no-peers]

gafferd and the peers run `--children` processes, of which one is killed; the floor runs only one.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time

from _measure import show
from _peers import GAFFERD, OTHERS, WORDS, Peer, Running, running, wait_for

# The floor: wait for the child to exit, and start it again.
FLOOR = f"""
import os, select, subprocess
while True:
    child = subprocess.Popen({WORDS!r}, process_group=0)
    pidfd = os.pidfd_open(child.pid)
    select.select([pidfd], [], [])
    os.close(pidfd)
    child.wait()
"""


def respawn(started: Running, count: int) -> float:
    """Kill one of the `count` processes of a supervisor; return the seconds until its replacement."""
    old = min(wait_for(started, count))
    before = started.children()
    time.sleep(1.1)  # some supervisors restart at once only after a second of uptime
    began = time.perf_counter()
    os.kill(old, signal.SIGKILL)
    while not started.children() - before:
        if time.perf_counter() - began > 10:
            raise SystemExit(f"{started.process.args!r} did not restart the process")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--children", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()

    floor = Peer("a bare loop", lambda folder, count: [sys.executable, "-c", FLOOR])
    peers = [GAFFERD, floor, *(() if chosen.no_peers else OTHERS[:2])]  # honcho exits with its first process
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with running(GAFFERD, chosen.children) as ours, running(floor, 1) as bare:
        for _ in range(chosen.rounds):
            times["gafferd"].append(respawn(ours, chosen.children))
            times["a bare loop"].append(respawn(bare, 1))
    for peer in peers[2:]:
        with running(peer, chosen.children) as other:
            times[peer.name] = [respawn(other, chosen.children) for _ in range(5)]
    for name, values in times.items():
        show(name, values)
    ratio = statistics.median(times["gafferd"]) / statistics.median(times["a bare loop"])
    print(f"{'ratio of medians to the bare loop':<44} {ratio:9.2f} x")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(str(error)) from None
