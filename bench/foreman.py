"""Measure how fast `gaffer start` shows the output of a program, in turn with other Procfile managers.

python bench/foreman.py [--rounds 5] [--megabytes 20] [--other PROGRAM]...

A program writes lines of 100 bytes; the manager's output goes to a pipe whose reader counts them. PROGRAM is a path of
`honcho` or `foreman`, run as `PROGRAM start`. The rate is that of the lines that were shown, in MB of the program.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from _measure import BIN, installed_environment, show, show_ratio

_PRODUCER = """
import sys
line = b"x" * 99 + b"\\n"
with open(1, "wb", buffering=4096, closefd=False) as out:
    out.write(b"begin\\n")
    for _ in range({lines}):
        out.write(line)
    out.write(b"end\\n")
import time; time.sleep(1000)
"""


def shown(words: list[str], megabytes: int) -> float:
    """Return the MB/s that a manager shows from the first to the last line of the program."""
    lines = megabytes * 10_000
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "producer.py").write_text(_PRODUCER.format(lines=lines))
        Path(folder, "Procfile").write_text(f"web: {sys.executable} producer.py\n")
        env = {**installed_environment(), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, env=env, start_new_session=True)
        assert process.stdout is not None
        began = seen = 0.0
        rest = b""
        while data := os.read(process.stdout.fileno(), 1 << 20):
            seen += data.count(b"xxxxxxxxx\n") + data.count(b"xxxxxxxxx\x1b[0m\n")
            rest = rest[-100:] + data
            if not began and b"begin\n" in rest:
                began = time.perf_counter()
            if b"end\n" in rest:
                break
        took = time.perf_counter() - began
        process.terminate()
        while os.read(process.stdout.fileno(), 1 << 20):  # its last words
            pass
        process.stdout.close()
        process.wait(60)
        if seen < lines * 0.999:
            print(f"  {Path(words[0]).name} left out {100 - 100 * seen / lines:.1f} % of the lines")
        return seen * 100 / took / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--other", action="append", default=[])
    chosen = parser.parse_args()
    ours = partial(shown, [str(BIN / "gaffer"), "start"], chosen.megabytes)
    if not chosen.other:
        show("gaffer start", [ours() for _ in range(chosen.rounds)], "MB/s", 1)
    for other in chosen.other:
        pairs = [(ours(), shown([other, "start"], chosen.megabytes)) for _ in range(chosen.rounds)]
        show("gaffer start", [mine for mine, _ in pairs], "MB/s", 1)
        show(f"{Path(other).name} start", [theirs for _, theirs in pairs], "MB/s", 1)
        show_ratio("ratio", [mine for mine, _ in pairs], [theirs for _, theirs in pairs])


if __name__ == "__main__":
    main()
