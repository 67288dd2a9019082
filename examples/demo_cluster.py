"""The cluster of demo.py: start daemons, query them over HTTP, and stop them with all their processes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gaffer.schemas.lookup import JobSource
from gaffer_client import Lookup, Server
from gaffer_client.errors import GafferClientError
from gaffer_client.naming import display_name

T = TypeVar("T")

BIN = Path(sys.executable).parent
APPLICATION = Path(__file__).resolve().parent / "procfile"
SESSION = "demo"
WEB = f"{SESSION}.web"

TTL, INTERVAL = 3, 1  # seconds
POLL = 0.01

# Set when the demo is to stop.
stopping = threading.Event()


class DemoError(Exception):
    """The demo failed."""


class Stopped(Exception):
    """The demo was stopped by a signal."""


class Daemon:
    """An installed daemon, started in its own process group so that Ctrl-C reaches only the demo."""

    def __init__(self, home: Path, name: str, *options: str) -> None:
        self.name = name
        self._home = home
        self._options = options
        self._listened = False
        self._log = home / f"{name}.log"
        home.mkdir(exist_ok=True)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / name, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(home),
                process_group=0,
            )

    def url(self) -> str:
        """Wait until the daemon is listening; return its URL."""
        url = wait_for(self._announced, 15, f"{self.name} is not listening")
        self._listened = True
        return url

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop the daemon and all its processes.

        If a gafferd was killed, its processes are ended by a successor on the same state directory.
        """
        self._terminate()
        if self.name == "gafferd" and self._listened and self.process.returncode != 0:
            successor = Daemon(self._home, self.name, *self._options)
            successor.url()
            successor._terminate()

    def _terminate(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def _announced(self) -> str | None:
        for line in self._log.read_text(errors="replace").splitlines():
            if line.startswith("listening on http"):
                return line.removeprefix("listening on ")
        if self.process.poll() is not None:
            raise DemoError(f"{self.name} exited with status {self.process.returncode}: {self._last_log_lines()}")
        return None

    def _last_log_lines(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-8:])


class Node:
    """A gafferd, and its number of processes of each type."""

    def __init__(self, index: int, home: Path, lookup_url: str) -> None:
        self.address = f"127.0.0.{11 + index}"
        self.processes = {"web": 2 if index == 0 else 1, "worker": (index + 1) % 3, "clock": 1 if index == 0 else 0}
        config = home.with_suffix(".ini")
        config.touch()
        self.daemon = Daemon(
            home,
            "gafferd",
            f"--config={config}",
            f"--bind={self.address}:0",
            f"--state-dir={home}/state",
            f"--lookupd-address={lookup_url}",
            f"--allowed-origin={lookup_url}",
            f"--node-name={home.name}",
        )
        self.url = ""
        self.name = ""

    def gafferd(self) -> int:
        """Return the process id of gafferd; `daemon` is its keeper."""
        with Server(self.url) as server:
            return server.health()["pid"]

    def kill(self) -> None:
        """Kill gafferd and its keeper, as if the host had failed."""
        gafferd = self.gafferd()
        self.daemon.process.send_signal(signal.SIGSTOP)  # it must not start another gafferd
        os.kill(gafferd, signal.SIGKILL)
        self.daemon.kill()


class Cluster:
    """All daemons, and the directory of their files."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.home = Path(tempfile.mkdtemp(prefix="gaffer-demo-"))
        self.daemons: list[Daemon] = []
        self.nodes: list[Node] = []

    def start_lookupd(self) -> None:
        # All nodes are new, so there is no need to wait for nodes that reconnect.
        options = ("--bind=127.0.0.1:0", f"--ttl={TTL}", f"--interval={INTERVAL}", "--warmup=0")
        lookupd = Daemon(self.home / "lookupd", "gaffer_lookupd", *options)
        self.daemons.append(lookupd)
        self.lookup_url = lookupd.url()
        self.lookup = Lookup([self.lookup_url])

    def start_nodes(self) -> None:
        """Start all nodes at once, and wait until the registry lists them."""
        for index in range(self.size):
            node = Node(index, self.home / f"node{index + 1}", self.lookup_url)
            self.nodes.append(node)
            self.daemons.append(node.daemon)
        for node in self.nodes:
            node.url = node.daemon.url()
        names = wait_for(self._names, 15, "the registry does not list all nodes")
        for node in self.nodes:
            node.name = names[node.url]

    def _names(self) -> dict[str, str] | None:
        names = {node["origin"]: display_name(node) for node in self.lookup.nodes()["nodes"]}
        return names if all(node.url in names for node in self.nodes) else None

    def load(self) -> None:
        """Load the application on all nodes, unevenly, and wait until the registry lists all its processes."""
        loads = [(node, self._start_load(node)) for node in self.nodes]
        for node, load in loads:
            output, _ = load.communicate(timeout=30)
            if load.returncode != 0:
                raise DemoError(f"gaffer load on {node.name} exited with status {load.returncode}: {output.strip()}")
        wait_for(self._complete, 15, "the registry does not list all processes")

    def _start_load(self, node: Node) -> "subprocess.Popen[str]":
        concurrency = ",".join(f"{name}={number}" for name, number in node.processes.items())
        command: list[str | Path] = [
            BIN / "gaffer",
            "load",
            "--endpoint",
            node.url,
            "--directory",
            APPLICATION,
            "--port",
            "auto",
        ]
        command += ["--env", f"HOST={node.address}", "--concurrency", concurrency, SESSION]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(self.home)
        )

    def _complete(self) -> bool:
        wanted = {node.url: node.processes["web"] for node in self.nodes}
        return {url: len(source["pids"]) for url, source in self.web().items()} == wanted

    def status(self, node: Node) -> str | None:
        """Return the status of a node in the registry, or None if it is not listed."""
        statuses = {info["origin"]: info.get("status", "alive") for info in self.lookup.nodes()["nodes"]}
        return statuses.get(node.url)

    def web(self) -> dict[str, JobSource]:
        """Return the sources of demo.web by the URL of their node."""
        return {source["node_info"]["origin"]: source for source in self.lookup.find_job(WEB)["sources"]}

    def stop(self) -> list[str]:
        """Stop all daemons; return a message for each that could not be stopped cleanly."""
        problems = []
        with ThreadPoolExecutor(max(1, len(self.daemons))) as pool:
            for daemon, stopped in [(daemon, pool.submit(daemon.stop)) for daemon in self.daemons[1:]]:
                try:
                    stopped.result()
                except (DemoError, OSError) as error:
                    problems.append(f"cannot stop {daemon.name} and its processes: {error}")
        for lookupd in self.daemons[:1]:
            lookupd.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        return problems


def environment(home: Path) -> dict[str, str]:
    """Return the environment for daemons and commands, without the user's own Gaffer settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GAFFER")}
    return {**inherited, "HOME": str(home), "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}"}


def wait_for(attempt: Callable[[], T | None], timeout: float, failure: str) -> T:
    """Call `attempt` until it returns a true value, and return that; ignore client errors until `timeout` seconds.

    Raise DemoError with the message `failure` on timeout, Stopped when the demo is to stop.
    """
    deadline = time.monotonic() + timeout
    reason = ""
    while True:
        if stopping.is_set():
            raise Stopped
        try:
            if result := attempt():
                return result
        except GafferClientError as error:
            reason = f": {error.message}"
        if time.monotonic() > deadline:
            raise DemoError(f"timed out after {timeout} s: {failure}{reason}")
        time.sleep(POLL)
