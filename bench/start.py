"""Measure the time from the start of a daemon until it listens, compared with importing its modules alone.

python bench/start.py [--rounds 9]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial

from _measure import BIN, installed_environment, pairs, show, show_ratio

IMPORTS = {
    "gafferd": "import gafferd.main, gafferd.server",
    "gaffer_lookupd": "import gaffer_lookupd.main",
    "libraries": "import asyncio, logging, tornado.web, tornado.httpserver, tornado.websocket, uvloop, msgspec, psutil",
}


def listening(command: str) -> float:
    """Return the seconds from exec until the daemon prints that it listens."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**installed_environment(), "HOME": folder, "GAFFER_STATE_DIR": f"{folder}/state"}
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(BIN / command), "--bind", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env=env
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        took = time.perf_counter() - began
        process.terminate()
        process.communicate(timeout=60)
        if not line.startswith("listening on "):
            raise SystemExit(f"{command} did not start: {line}")
        return took


def importing(code: str) -> float:
    """Return the seconds that an interpreter takes for its own start and the imports."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import os; {code}; os._exit(0)"], check=True, env=installed_environment())
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    for command in ("gafferd", "gaffer_lookupd"):
        for floor in (command, "libraries"):
            ours, imports = pairs(partial(listening, command), partial(importing, IMPORTS[floor]), chosen.rounds)
            show(f"{command} listens", ours)
            show(f"imports of {floor}", imports)
            show_ratio("ratio", ours, imports)


if __name__ == "__main__":
    main()
