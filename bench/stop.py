"""Time from the order to stop a job to the end of the last of its 200 processes, beside killpg and wait.

python bench/stop.py [--count 200] [--pairs 5]
"""

import argparse
import os
import signal
import subprocess
import time

from _measure import daemon, pairs, show, show_ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    chosen = parser.parse_args()
    words = ["/bin/sleep", "1000"]

    with daemon("gafferd") as node:
        node.call("POST", "/jobs/default", {"name": "s", "cmd": " ".join(words), "numprocesses": chosen.count})

        def through_a_node() -> float:
            node.call("POST", "/jobs/default/s/state", 1)
            while len(node.children()) < chosen.count:
                time.sleep(0.01)
            time.sleep(0.2)
            began = time.perf_counter()
            node.call("POST", "/jobs/default/s/state", 0)
            while node.children():
                time.sleep(0.0005)
            return time.perf_counter() - began

        def bare() -> float:
            children = [subprocess.Popen(words, process_group=0) for _ in range(chosen.count)]
            time.sleep(0.2)
            began = time.perf_counter()
            for child in children:
                os.killpg(child.pid, signal.SIGTERM)
            for child in children:
                child.wait()
            return time.perf_counter() - began

        ours, floor = pairs(through_a_node, bare, chosen.pairs)
    show(f"the end of {chosen.count} processes", ours)
    show("killpg and wait", floor)
    show_ratio("ratio to killpg and wait", ours, floor)


if __name__ == "__main__":
    main()
