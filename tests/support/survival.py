"""A gafferd below its keeper that tests kill, and judges of what became of its processes and their output.

The processes write numbered lines, `PID NUMBER`, and `PID end` when they are told to end.
"""

import base64
import http.client
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import psutil
import requests

from support.console import Terminal
from support.daemons import Daemon, command_path, gafferd
from support.poll import eventually

TIMEOUT = 30.0
FAILED_START = "exited with status 2: starting it again"

# Arguments: seconds between two lines, bytes by which each is longer than its numbers.
WRITER = """
import os, signal, sys, time
pause, fill, pid, ends = float(sys.argv[1]), b" " * int(sys.argv[2]), os.getpid(), []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
number = 0
def write(line):
    while line:
        line = line[os.write(1, line):]
while not ends:
    write(b"%d %d%s\\n" % (pid, number, fill))
    number += 1
    time.sleep(pause)
write(b"%d end\\n" % pid)
"""


def writers(name: str, count: int, *, pause: float = 0.01, fill: int = 0, **settings: Any) -> dict[str, Any]:
    """The description of a job whose processes write a numbered line each `pause` seconds."""
    return {
        "name": name,
        "cmd": sys.executable,
        "args": ["-I", "-S", "-c", WRITER, str(pause), str(fill)],
        "numprocesses": count,
        "redirect_output": ["stdout", "stderr"],
        "log_max_bytes": "100M",
        **settings,
    }


class Instance(NamedTuple):
    """A process as the API shows it."""

    pid: int
    os_pid: int
    slot: int


class Node:
    """A gafferd below its keeper; `keeper` is what the user started."""

    def __init__(self, keeper: Daemon, state: Path) -> None:
        self.keeper = keeper
        self.state = state

    @property
    def url(self) -> str:
        """Where it listens, since its last start."""
        return [url for url in self.keeper.urls if url.startswith("http:")][-1]

    @property
    def pid(self) -> int:
        """The pid of gafferd."""
        return int((self.state / "lock").read_text().split()[0])

    @property
    def logged(self) -> str:
        """What gafferd and the keeper wrote."""
        return self.keeper.stderr

    def get(self, path: str) -> Any:
        """One request, which waits while no gafferd answers."""
        response = requests.get(self.url + path, timeout=TIMEOUT)
        response.raise_for_status()
        return response.json()

    def load(self, job: Mapping[str, Any]) -> None:
        """Load a job into the session `default`."""
        requests.post(f"{self.url}/jobs/default", json=job, timeout=TIMEOUT).raise_for_status()

    def unload(self, name: str) -> None:
        """Unload a job; its processes are gone when it returns."""
        os_pids = {each.os_pid for each in self.instances(name)}
        requests.delete(f"{self.url}/jobs/default/{name}", timeout=TIMEOUT).raise_for_status()

        def gone() -> bool:
            left = {pid: psutil.Process(pid).status() for pid in os_pids if psutil.pid_exists(pid)}
            assert not left, f"{left} of {name} are left, {self.get('/health')}"
            return True

        eventually(gone, timeout=TIMEOUT, retry_on=(psutil.NoSuchProcess,))

    def info(self, name: str) -> Any:
        return self.get(f"/jobs/default/{name}")

    def instances(self, name: str) -> list[Instance]:
        """The processes of a job, by slot."""
        found = [(each["pid"], each["os_pid"], each["slot"]) for each in self.info(name)["instances"]]
        return sorted((Instance(*each) for each in found if each[1]), key=lambda each: each.slot)

    def running(self, name: str, count: int) -> list[Instance]:
        """The processes of a job once there are so many."""
        return eventually(lambda: len(found := self.instances(name)) == count and found, timeout=TIMEOUT + count / 5)

    def exits(self, name: str) -> list[dict[str, Any]]:
        """The exits of a job, oldest first."""
        found: list[dict[str, Any]] = self.get(f"/jobs/default/{name}/exits")["exits"]
        return found[::-1]

    def kill(self) -> float:
        """SIGKILL of gafferd; return the seconds until the next one answered."""
        begin = time.monotonic()
        kill_and_wait(self.pid)
        assert ping(self.url)
        return time.monotonic() - begin

    def upgrade(self) -> None:
        """Have gafferd replaced; return once the next one answers."""
        before = self.pid
        requests.post(f"{self.url}/upgrade?force=true", timeout=TIMEOUT).raise_for_status()
        eventually(lambda: self.get("/health")["pid"] != before, timeout=TIMEOUT, retry_on=(OSError,))

    def stop(self) -> None:
        """End a node whose first keeper was killed, by that which it has now."""

        def parent() -> psutil.Process | None:
            found = psutil.Process(self.pid).parent()
            return found if found is not None and found.pid == self.get("/health")["keeper"]["pid"] else None

        keeper = eventually(parent, timeout=TIMEOUT, retry_on=(OSError, psutil.NoSuchProcess))
        pid = self.pid
        keeper.terminate()
        eventually(lambda: not psutil.pid_exists(pid) and not psutil.pid_exists(keeper.pid), timeout=TIMEOUT)

    def log(self, name: str, slot: int, kind: str = "out") -> bytes:
        """The whole log of a slot, over its rotated files."""
        path = self.state / "logs" / f"default.{name}.{slot}.{kind}.log"
        older = sorted(path.parent.glob(f"{path.name}.*"), key=lambda each: -int(each.suffix[1:]))
        return b"".join(each.read_bytes() for each in (*older, path))

    def ended_log(self, name: str, slot: int) -> bytes:
        """The whole log of a slot whose writer is ending, once its last line is there; the last log if it never is."""
        with suppress(AssertionError):
            eventually(lambda: self.log(name, slot).endswith(b" end\n"))
        return self.log(name, slot)


def kill_and_wait(pid: int, signum: int = signal.SIGKILL) -> None:
    """Kill a process that is not our child; return when it is dead."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signum)
        assert select.select([pidfd], [], [], TIMEOUT)[0]
    finally:
        os.close(pidfd)


def ping(url: str) -> bool:
    """Whether a node answers; waits while its sockets are open and nobody does."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@contextmanager
def kept_node(
    tmp_path: Path, *args: str, env: Mapping[str, str] | None = None, enter: Sequence[str] = ()
) -> Iterator[Node]:
    """A node with a keeper. Nothing of it is left at the end, whatever the test did to it."""
    state = tmp_path / "state"
    try:
        with gafferd("--keeper", *args, state_dir=state, env=env, enter=enter) as keeper:
            node = Node(keeper, state)
            try:
                node.get("/health")  # its loop runs, so the keeper knows that it is ready
                yield node
            except BaseException:
                kill_daemons(state)
                print(keeper.stderr)  # into the report of the test
                raise
    finally:
        kill_daemons(state)


def kill_daemons(state: Path) -> None:
    """Kill the gafferd and the keeper of a state directory, at once, so that none starts the other."""
    every = psutil.process_iter(["cmdline"])
    found = [each for each in every if any(str(state) in word for word in each.info["cmdline"] or ())]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signum)


def serve_below_tostop(state: Path) -> None:
    """Run a gafferd on a terminal that stops background writers, until it serves; then end it."""
    command = [command_path("gafferd"), "--bind", "127.0.0.1:0", "--state-dir", str(state)]
    home = state.parent
    terminal = Terminal("sh", "-c", 'stty tostop; exec "$0" "$@"', *command, cwd=home, HOME=str(home))
    try:
        terminal.shows("gafferd.sock")
        terminal.process.terminate()
        assert terminal.wait() == 0
    finally:
        kill_daemons(state)
        terminal.close()


@contextmanager
def without_gafferd(node: Node, config: Path) -> Iterator[None]:
    """Kill gafferd; the next one can't start until the block ends, because its configuration file is broken."""
    starts, valid = node.logged.count(FAILED_START), config.read_text()
    config.write_text("[gaffer]\nnonsense = 1\n")
    kill_and_wait(node.pid)
    eventually(lambda: node.logged.count(FAILED_START) > starts, timeout=TIMEOUT)
    yield
    config.write_text(valid)
    node.keeper.signal(signal.SIGHUP)  # wait no longer


class Lines(NamedTuple):
    """What a log or a feed has of numbered lines."""

    written: int
    lost: int
    twice: int
    torn: int
    ended: int  # processes whose last line it has

    def __add__(self, other: tuple[Any, ...]) -> "Lines":
        return Lines(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def flaws(self) -> tuple[int, int, int]:
        """Lines lost, lines twice, lines torn."""
        return self.lost, self.twice, self.torn


NO_LINES = Lines(0, 0, 0, 0, 0)


def count_lines(data: bytes) -> Lines:
    """Count the numbered lines of processes, of which each writes without gaps."""
    following: dict[bytes, int] = {}
    lost = twice = torn = ended = 0
    lines = data.split(b"\n")
    for line in lines[:-1]:
        words = line.split()
        if len(words) != 2 or not (words[1].isdigit() or words[1] == b"end"):
            torn += 1
        elif words[1] == b"end":
            ended += 1
        else:
            expected, number = following.get(words[0], 0), int(words[1])
            lost += max(0, number - expected)
            twice += number < expected
            following[words[0]] = max(expected, number + 1)
    return Lines(sum(following.values()), lost, twice, torn, ended)


class Feed:
    """Follows the output of a process from its beginning, and resumes where it was when the connection ends.

    `data` is what came, `gaps` what the node said is missing, `connections` how often it connected.
    """

    def __init__(self, node: Node, pid: int) -> None:
        self.data = bytearray()
        self.gaps: list[Any] = []
        self.connections = 0
        self.connected = threading.Event()
        self.over = threading.Event()
        self._address = urlsplit(node.url).netloc
        self._path = f"/streams/{pid}/stdout?feed=eventsource&encoding=base64&after=0"
        self._last = ""
        self._ending = False
        self._connection = http.client.HTTPConnection(self._address)
        self._thread = threading.Thread(target=self._run, name=f"feed of {pid}")
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._ending = True
        while self._thread.is_alive():
            with suppress(OSError, AttributeError):  # it is not connected
                self._connection.sock.shutdown(socket.SHUT_RDWR)
            self._thread.join(0.1)

    def _run(self) -> None:
        while not self.over.is_set() and not self._ending:
            connection = self._connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)
            try:
                connection.request("GET", self._path, headers={"Last-Event-ID": self._last} if self._last else {})
                with connection.getresponse() as response:
                    if response.status != 200:  # the process has ended
                        self.over.set()
                        break
                    self.connections += 1
                    self.connected.set()
                    self._follow(response)
            except (OSError, http.client.HTTPException):
                pass  # gafferd died
            finally:
                self.connected.clear()
                connection.close()

    def _follow(self, response: http.client.HTTPResponse) -> None:
        event, data, position = "", "", ""
        while raw := response.readline():
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                data += value
            elif name == "id":
                position = value
            elif not name and event:
                if event == "gap":
                    self.gaps.append(msgspec.json.decode(data))
                else:
                    self.data += base64.b64decode(data)
                self._last = position or self._last
                event, data, position = "", "", ""


@contextmanager
def feeds(node: Node, instances: Sequence[Instance]) -> Iterator[list[Feed]]:
    """Follow the outputs of several processes until they end."""
    found = [Feed(node, each.pid) for each in instances]
    try:
        yield found
    finally:
        for feed in found:
            feed.close()
