"""Measure an idle node: context switches and CPU ticks of all its threads, and its resident memory.

python bench/idle.py [--count 200] [--seconds 30]
"""

import argparse
import time
from pathlib import Path

from _measure import Daemon, daemon


def switches(node: Daemon) -> int:
    """Return the total context switches of all threads, voluntary and involuntary (proc_pid_status(5))."""
    total = 0
    for status in Path(f"/proc/{node.process.pid}/task").glob("*/status"):
        total += sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches" in line)
    return total


def ticks(node: Daemon) -> int:
    """Return the total user and system time in clock ticks (proc_pid_stat(5))."""
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def resident(node: Daemon) -> float:
    """Return the resident memory in MiB."""
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    chosen = parser.parse_args()

    with daemon("gafferd") as node:
        empty = resident(node)
        node.call("POST", "/jobs/default", {"name": "s", "cmd": "/bin/sleep 1000", "numprocesses": chosen.count})
        while len(node.children()) < chosen.count:
            time.sleep(0.05)
        time.sleep(3)  # until startup work has finished
        before = switches(node), ticks(node)
        time.sleep(chosen.seconds)
        print(f"{chosen.count} children, {chosen.seconds:g} s: {switches(node) - before[0]} context switches, ", end="")
        print(f"{ticks(node) - before[1]} ticks; {empty:.1f} MiB before, {resident(node):.1f} MiB with children")


if __name__ == "__main__":
    main()
