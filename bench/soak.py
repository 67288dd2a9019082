"""Run many short processes in one gafferd, and measure the growth of its descriptors and memory.

python bench/soak.py [--cycles 20000]
"""

import argparse
import os
import time
from pathlib import Path

from _measure import Daemon, daemon

WARM_UP = 1000  # cycles that may still increase memory
JOB = {
    "name": "short",
    "cmd": "/bin/echo x",
    "numprocesses": 8,
    "backoff": 0,
    "startsecs": 0,
    "redirect_output": ["out", "err"],
    "redirect_input": True,
}


def memory(node: Daemon) -> float:
    """Return the resident memory in MB."""
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def descriptors(node: Daemon) -> int:
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def stop_after(node: Daemon, restarts: int) -> int:
    """Run the job until it has reached `restarts` restarts in total, then stop it; return the final number."""
    node.call("POST", "/jobs/default/short/state", 1)
    while node.call("GET", "/jobs/default/short")["restarts"] < restarts:
        time.sleep(0.2)
    node.call("POST", "/jobs/default/short/state", 0)
    while node.children():
        time.sleep(0.01)
    time.sleep(1)  # until connections and logs are idle
    return int(node.call("GET", "/jobs/default/short")["restarts"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20000)
    chosen = parser.parse_args()
    with daemon("gafferd") as node:
        node.call("POST", "/jobs/default", {**JOB, "start": False})
        first = stop_after(node, WARM_UP)
        before = memory(node), descriptors(node)
        began = time.perf_counter()
        cycles = stop_after(node, first + chosen.cycles) - first
        took = time.perf_counter() - began
        after = memory(node), descriptors(node)
    print(f"{cycles} cycles in {took:.1f} s, {1000 * took / cycles:.2f} ms each")
    print(f"memory      {before[0]:8.2f} MB before, {after[0]:8.2f} MB after: {after[0] - before[0]:+.2f} MB")
    print(f"descriptors {before[1]:8d}    before, {after[1]:8d}    after: {after[1] - before[1]:+d}")


if __name__ == "__main__":
    main()
