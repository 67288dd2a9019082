"""The commands of the documentation's pages on streams, as they are printed but for the port, against the examples."""

import errno
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.daemons import Daemon, clean_env, gafferd
from support.needs import needs_curl
from support.poll import eventually

row = pytest.mark.row
pytestmark = needs_curl

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Daemon]:
    """A gafferd with the example configuration: process 1 is the dummy, process 2 the echo."""
    text = (EXAMPLES / "gaffer.ini").read_text().replace(":5000", ":0").replace("= ./", f"= {EXAMPLES}/")
    config = tmp_path / "gaffer.ini"
    config.write_text(text)
    # A Python that is told not to buffer writes the end of a line by itself.
    with gafferd("-c", str(config), env={"PYTHONUNBUFFERED": ""}) as node:

        def runs(name: str, pid: int) -> bool:
            return f'"pids":[{pid}]' in curl(node, f"localhost:5000/processes/{name}/_pids")

        for name, pid in (("dummy", 1), ("echo", 2)):
            eventually(partial(runs, name, pid))
        yield node


class Curl:
    """A command line at a terminal."""

    def __init__(self, node: Daemon, command: str) -> None:
        self._output, theirs = os.openpty()
        os.set_blocking(self._output, False)
        command = command.replace(":5000", f":{node.port}")
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            env=clean_env({"NO_PROXY": "*"}),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        self._bytes = b""

    def read_until(self, enough: Callable[[str], object]) -> str:
        """What it printed, as soon as that is enough."""
        eventually(
            lambda: self._read() or enough(self.text), message=f"curl {self._process.args!r} did not print enough"
        )
        return self.text

    def wait(self) -> str:
        """What it printed until it ended by itself, which it did without an error."""
        eventually(self._read, message=f"curl {self._process.args!r} did not end")
        assert self._process.wait(10) == 0
        return self.text

    def _read(self) -> bool:
        """Take what is there; whether that was the last."""
        try:
            self._bytes += os.read(self._output, 65536)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EIO:  # how the end of a terminal reads
                return True
            raise
        return False

    @property
    def text(self) -> str:
        return self._bytes.decode().replace("\r\n", "\n")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)

    def close(self) -> None:
        if self._process.poll() is None:
            self.interrupt()
        os.close(self._output)


@pytest.fixture
def run(node: Daemon) -> Iterator[Callable[[str], Curl]]:
    started: list[Curl] = []

    def start(command: str) -> Curl:
        started.append(Curl(node, command))
        return started[-1]

    yield start
    for command in started:
        command.close()


@row("STR-01", "STR-02", "STR-04", "STR-05", "STR-06", "R-70")
def test_output_streams(run: Callable[[str], Curl]) -> None:
    continuous = run("curl localhost:5000/streams/1/stderr?feed=continuous")
    events = run("curl localhost:5000/streams/1/stderr?feed=eventsource")
    stderr = run("curl localhost:5000/streams/1/stderr?feed=longpoll")
    stdout = run("curl localhost:5000/streams/1/stdout?feed=longpoll")
    assert re.fullmatch(r"STDERR \d+\n", stderr.wait())
    assert re.fullmatch(r"hello, dummy .*\n", stdout.wait())
    numbers = re.findall(r"^STDERR (\d+)\n", continuous.read_until(lambda text: text.count("\n") >= 2), re.MULTILINE)
    assert int(numbers[1]) == int(numbers[0]) + 1
    text = events.read_until(lambda text: text.count("\n\n") >= 2)
    event = r"event: stderr\nid: [0-9a-f]+:\d+\ndata: STDERR \d+\ndata: \n\n"
    assert re.match(event * 2, text)


@row("STR-10", "STR-13", "STR-14", "R-71", "HTTP-33", "AMB-05")
def test_writing_to_stdin_and_then_reading_the_answer(run: Callable[[str], Curl]) -> None:
    for _ in range(2):
        assert run(r"curl -XPOST -d $'ECHO\n' localhost:5000/streams/2/stdin").wait() == '{"ok":true}'
        assert run("curl localhost:5000/streams/2/stdout?feed=longpoll").wait() == "ECHO\n"


def curl(node: Daemon, url: str) -> str:
    command = Curl(node, f"curl {url}")
    try:
        return command.wait()
    finally:
        command.close()
