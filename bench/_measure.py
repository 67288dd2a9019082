"""Helpers for the benchmarks: interleaved pairs of runs, their ratio, result lines, and temporary daemons."""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

BIN = Path(sys.executable).parent


def pairs(ours: Callable[[], float], floor: Callable[[], float], count: int) -> tuple[list[float], list[float]]:
    """Run `ours` and `floor` in turn, `count` times each, after one warm-up; return the results of each."""
    ours(), floor()
    results = [(ours(), floor()) for _ in range(count)]
    return [a for a, _ in results], [b for _, b in results]


def show(what: str, values: list[float], unit: str = "ms", scale: float = 1000) -> None:
    """Print the median and the range of `values`."""
    low, middle, high = min(values) * scale, statistics.median(values) * scale, max(values) * scale
    print(f"{what:<44} {middle:9.2f} {unit:<3} ({low:.2f} to {high:.2f}, {len(values)} runs)")


def show_ratio(what: str, ours: list[float], floor: list[float]) -> None:
    """Print the median and the range of the ratios of the pairs."""
    show(what, [a / b for a, b in zip(ours, floor, strict=True)], "x", 1)


def installed_environment() -> dict[str, str]:
    """Return our environment, with caching of compiled Python code enabled as for installed packages."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Daemon:
    """A running daemon and its URL."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; return the decoded response."""
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return msgspec.json.decode(response.read())

    def children(self) -> set[int]:
        """Return the OS pids of its children."""
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@contextlib.contextmanager
def daemon(command: str, *arguments: str) -> Iterator[Daemon]:
    """Run an installed daemon on a free port with a temporary state directory."""
    with tempfile.TemporaryDirectory() as state:
        words = [str(BIN / command), "--bind", "127.0.0.1:0", *arguments]
        env = {**installed_environment(), "GAFFER_STATE_DIR": state}
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env)
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("listening on http://"):
                    yield Daemon(process, line.split()[-1])
                    break
            else:
                raise SystemExit(f"{command} did not start")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
