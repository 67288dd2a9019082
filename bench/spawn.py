"""Measure the time from POST to the 200th process of a job of `/bin/sleep 1000`, compared with a bare Popen loop.

python bench/spawn.py [--count 200] [--pairs 5]
"""

import argparse
import subprocess
import time

from _measure import daemon, show, show_ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    chosen = parser.parse_args()
    words = ["/bin/sleep", "1000"]

    with daemon("gafferd") as node:

        def through_a_node() -> float:
            job = {"name": "sleepers", "cmd": " ".join(words), "numprocesses": chosen.count, "graceful_timeout": 5}
            began = time.perf_counter()
            node.call("POST", "/jobs/default", job)
            while len(node.children()) < chosen.count:
                time.sleep(0.0005)
            took = time.perf_counter() - began
            node.call("DELETE", "/jobs/default/sleepers")
            while node.children():
                time.sleep(0.01)
            return took

        def bare(output: int | None = None) -> float:
            began = time.perf_counter()
            children = [subprocess.Popen(words, stdout=output, stderr=output) for _ in range(chosen.count)]
            took = time.perf_counter() - began
            for child in children:
                child.kill()
            for child in children:
                child.wait()
                for pipe in (child.stdout, child.stderr):
                    if pipe is not None:
                        pipe.close()
            return took

        through_a_node(), bare()
        ours, floor, piped = [], [], []
        for _ in range(chosen.pairs):
            ours.append(through_a_node())
            floor.append(bare())
            piped.append(bare(subprocess.PIPE))
    show(f"POST to the {chosen.count}th process", ours)
    show("a Popen loop", floor)
    show("a Popen loop with two pipes each", piped)
    show_ratio("ratio to the Popen loop", ours, floor)
    show_ratio("ratio to the Popen loop with pipes", ours, piped)


if __name__ == "__main__":
    main()
