"""`examples/demo.py`, as `make demo` runs it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from gaffer_client import Lookup, Server
from gaffer_client.errors import Unreachable
from support.daemons import clean_env
from support.poll import eventually

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
URL = r"http://127\.0\.0\.\d+:\d+"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def temp() -> Iterator[Path]:
    """The folder for the demo's temporary files, which has to be empty in the end; short, for sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        path = Path(folder)
        yield path
        assert list(path.iterdir()) == []
        assert list(processes_of(path)) == []


def processes_of(temp: Path) -> Iterator[psutil.Process]:
    """The processes with this folder in their environment or command line: the demo, its daemons, their jobs."""
    for process in psutil.process_iter():
        try:
            if str(temp) in " ".join([*process.environ().values(), *process.cmdline()]):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def start_once(temp: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--once", *arguments],
        env=clean_env({"TMPDIR": str(temp)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Terminal:
    """The demo with a terminal of its own, and what it has written there."""

    def __init__(self, temp: Path) -> None:
        self._screen, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(DEMO)],
            env=clean_env({"TMPDIR": str(temp), "TERM": "xterm"}),
            preexec_fn=partial(os.login_tty, theirs),
        )
        os.close(theirs)
        self.text = ""

    def expect(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait until something new on the screen matches; what stands before it counts as seen."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"no {pattern!r} came; the last was:\n{self.text[-3000:]}"
            if select.select([self._screen], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._screen, 65536).decode(errors="replace")
                except OSError:  # the other end of the terminal is closed
                    raise AssertionError(f"it ended before {pattern!r} came:\n{self.text[-3000:]}") from None
        self.text = self.text[match.start() :]
        return match

    def close(self) -> None:
        """End the demo, if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            self.wait()
        os.close(self._screen)

    def type(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def wait(self, timeout: float = 30) -> int:
        """Its exit status; what it still writes is read meanwhile."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; the last was:\n{self.text[-3000:]}"
            if select.select([self._screen], [], [], 0.02)[0]:
                try:
                    self.text += os.read(self._screen, 65536).decode(errors="replace")
                except OSError:  # the other end of the terminal is closed
                    continue
        return self.process.returncode


@pytest.fixture
def open_terminal() -> Iterator[Callable[[Path], Terminal]]:
    with ExitStack() as terminals:
        yield lambda temp: terminals.enter_context(closing(Terminal(temp)))


def test_once(temp: Path) -> None:
    demo = start_once(temp)
    out, progress = demo.communicate(timeout=60)
    assert demo.returncode == 0, out + progress
    lines = (
        rf"lookupd {URL}\n(node \S+ {URL}\n){{3}}page 200 {URL}/\ncrash_ms \d+\nrestart_ms \d+\n"
        r"suspect_ms \d+\nexpired_ms \d+\nok\n"
    )
    assert re.fullmatch(lines, out)
    figures = dict(line.split() for line in out.splitlines() if "_ms" in line)
    assert int(figures["suspect_ms"]) < 1000
    assert int(figures["expired_ms"]) < 5000


def test_once_tells_why_it_failed(tmp_path: Path) -> None:
    temp = tmp_path / ("x" * 100)  # too long for the path of a UNIX socket
    temp.mkdir()
    demo = start_once(temp, "--nodes=1")
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert re.fullmatch(rf"lookupd {URL}\nfailed: gafferd exited with status 1: .*too long.*\n", out)
    assert list(temp.iterdir()) == []
    assert list(processes_of(temp)) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=str)
def test_once_that_is_told_to_stop_leaves_nothing(temp: Path, signum: signal.Signals) -> None:
    demo = start_once(temp)
    assert demo.stdout is not None
    assert demo.stdout.readline().startswith("lookupd")
    demo.send_signal(signum)
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert out.endswith("failed: stopped by a signal\n")


def test_the_table_follows_the_lookup_until_ctrl_c(temp: Path, open_terminal: Callable[[Path], Terminal]) -> None:
    terminal = open_terminal(temp)
    lookup_url, node_url = terminal.expect(rf"GAFFER_LOOKUPD=({URL})\s+export GAFFER_ENDPOINT=({URL})").groups()
    gafferd = int(terminal.expect(r"kill -9 (\d+) ")[1])
    node = [int(pid) for pid in terminal.expect(r"kill -9 (\d+) (\d+) ").groups()]
    terminal.expect(r"NODE +JOB +PROCESSES +ENDPOINT +STATE +AGE")
    terminal.expect(r"node1 +demo\.web +\d+ \d+ +127\.0\.0\.11:\d+ \+1 +alive")
    terminal.expect(r"node3 +demo\.web +\d+ +127\.0\.0\.13:\d+ +alive")

    with Server(node_url) as server:
        server.get_job("demo.clock").scale("=3")
    terminal.expect(r"node1 +demo\.clock +\d+ \d+ \d+ ")
    os.kill(gafferd, signal.SIGKILL)
    with Server(node_url) as server:
        eventually(lambda: server.health()["pid"] != gafferd, retry_on=(Unreachable,))
        assert len(server.get_job("demo.clock").info()["processes"]) == 3
    for pid in node:
        os.kill(pid, signal.SIGKILL)
    terminal.expect(r"node3 +demo\.web +.* suspect")
    with Lookup(lookup_url) as lookup:
        eventually(lambda: len(lookup.nodes()["nodes"]) == 2)

    terminal.type(b"\x03")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.text
