"""Measure a reload of unchanged jobs in gafferd, compared with parsing the same file alone.

python bench/reload.py [--jobs 1000] [--rounds 9] [--format ini|yaml]

The floor is `load_config` in this process. Fails if the reload replaces a process. It also measures the info of a job
while nothing changes, a second later, when gafferd looks for changed files, and after the file was touched, when it
reads the file again.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _measure import Daemon, daemon, pairs, show, show_ratio

from gafferd.config.file import load_config

INI = "[process:shop:job{0}]\ncmd = sleep 100{0}\ngraceful_timeout = 5s\nenv:NUMBER = {0}\n"
YAML = "  shop.job{0}:\n    cmd: sleep 100{0}\n    graceful_timeout: 5s\n    env: {{NUMBER: {0}}}\n"


def text(form: str, jobs: int) -> str:
    """Return a configuration with the given number of jobs."""
    if form == "yaml":
        return "jobs:\n" + "".join(map(YAML.format, range(jobs)))
    return "\n".join(map(INI.format, range(jobs)))


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def reload(node: Daemon) -> None:
    """Reload; fail if anything changes."""
    result = node.call("POST", "/reload")
    if result["changes"] or result["failed"]:
        raise SystemExit(f"the reload changed something: {result}")


def info(node: Daemon) -> None:
    """Get the info of a job 100 times."""
    for number in range(100):
        if node.call("GET", f"/jobs/shop/job{number}")["drift"]:
            raise SystemExit("unexpected drift")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--format", choices=["ini", "yaml"], default="ini")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"gafferd.{chosen.format}"
        path.write_text(text(chosen.format, chosen.jobs))
        with daemon("gafferd", "-c", str(path)) as node:
            while len(before := node.children()) < chosen.jobs:
                time.sleep(0.1)
            ours, floor = pairs(
                lambda: timed(lambda: reload(node)), lambda: timed(lambda: load_config(path)), chosen.rounds
            )
            show("reload of unchanged jobs", ours)
            show("parsing the file alone", floor)
            show_ratio("ratio", ours, floor)
            if node.children() != before:
                raise SystemExit("the reload replaced processes")
            print(f"{'processes replaced':<44} {0:9}")
            show("info of a job", [timed(lambda: info(node)) / 100 for _ in range(chosen.rounds)])
            looks = []
            for _ in range(chosen.rounds):
                time.sleep(1.1)
                os.utime(path)
                looks.append(timed(lambda: node.call("GET", "/jobs/shop/job1")))
            show("info of a job after the file was touched", looks)
            waits = []
            for _ in range(chosen.rounds):
                time.sleep(1.1)
                waits.append(timed(lambda: node.call("GET", "/jobs/shop/job1")))
            show("info of a job a second after the last", waits)


if __name__ == "__main__":
    main()
