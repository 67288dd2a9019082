"""Real daemons on hosts of a network of their own, and clients that ask the lookupds all the time.

A test breaks something, tells the history when, and at the end the history must have nothing to complain of.
"""

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from support.daemons import Daemon, gafferd, lookupd
from support.history import History
from support.network import Host, Network
from support.poll import eventually

PORT = 5010
JOB = "[process:web]\ncmd = /bin/sleep 1000\n"

_PAUSE = 0.05  # seconds between two questions
_TIMEOUT = 120.0  # seconds that an answer may take: of a lookupd that was stopped

_starting = threading.BoundedSemaphore(4)  # more at once would only take longer each


def fetch(path: str, resource: str) -> Any:
    """The JSON document that the server on a unix socket answers."""
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_TIMEOUT)
    try:
        connection.sock.connect(path)
        connection.request("GET", resource)
        response = connection.getresponse()
        assert response.status == 200, (path, resource, response.status)
        return json.loads(response.read())
    finally:
        connection.close()


@contextmanager
def watching(history: History, ask: Callable[[], Collection[str]]) -> Iterator[None]:
    """During the block, ask again and again, and tell the history what was seen."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_PAUSE):
            asked = time.monotonic()
            nodes = ask()
            history.saw(asked, time.monotonic(), nodes)

    with ThreadPoolExecutor(1, "watcher") as pool:
        watcher = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
        watcher.result()  # raises what kept it from asking


class Registry:
    """A lookupd on a host of its own; `path` is its unix socket."""

    def __init__(self, cluster: "Cluster", name: str, ttl: float, interval: float) -> None:
        self.name = name
        self.host = cluster.network.host()
        self.path = str(cluster.folder / f"{name}.sock")
        self.url = f"http://{self.host.address}:{PORT}"
        self.history = History(ttl, interval)
        bind = f"{self.host.address}:{PORT},unix:{self.path}"
        options = ("--bind", bind, "--ttl", f"{ttl:g}", "--interval", f"{interval:g}")
        self.daemon = cluster.run(lookupd(*options, enter=self.host.enter))

    def sources(self) -> list[dict[str, Any]]:
        """What it says of the job, node by node."""
        sources: list[dict[str, Any]] = fetch(self.path, "/findJob?name=default.web")["sources"]
        return sources

    def listed(self) -> dict[str, str]:
        """The status of each node that it names for the job, by the address of its host."""
        return {
            urlsplit(source["node_info"]["origin"]).hostname or "": source["status"]
            for source in self.sources()
            if source["pids"]
        }

    def stale(self) -> bool:
        """Whether it says that its answers may be old."""
        return bool(fetch(self.path, "/nodes")["stale"])

    def watched(self) -> AbstractContextManager[None]:
        """Have a client ask it all the time."""
        return watching(self.history, self.listed)


class Node:
    """A gafferd with one process of the job `web`, on a host of its own, whose `address` names it in histories."""

    def __init__(
        self,
        cluster: "Cluster",
        name: str,
        registries: Sequence[Registry],
        state_dir: Path | None = None,
        enter: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.host: Host = cluster.network.host()
        self.state_dir = state_dir or cluster.folder / self.host.address
        options = ["-c", str(cluster.folder / "gafferd.ini"), "--node-name", name]
        options += ["--broadcast-address", f"http://{self.host.address}:5000"]
        options += [word for registry in registries for word in ("--lookupd-address", registry.url)]
        self.daemon = cluster.run(gafferd(*options, state_dir=self.state_dir, enter=(*self.host.enter, *enter)))

    @property
    def address(self) -> str:
        return self.host.address


class Cluster:
    """Starts lookupds and nodes; leaving it ends them all. To be used by one thread."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self.figures: list[str] = []
        self._stack = ExitStack()
        self._daemons: list[Daemon] = []

    def __enter__(self) -> Self:
        (self.folder / "gafferd.ini").write_text(JOB)
        return self

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is not None:
            for daemon in self._daemons:
                print(f"{daemon} wrote:\n{daemon.stderr}")
        running = [daemon for daemon in self._daemons if daemon.returncode is None]
        for signum in (signal.SIGCONT, signal.SIGTERM):  # so that they end all at once
            for daemon in running:
                daemon.signal(signum)
        with self._stack:
            for daemon in running:
                assert daemon.wait() == 0, f"{daemon} wrote:\n{daemon.stderr}"

    def run(self, daemon: Any) -> Daemon:
        """Enter the context manager of a daemon until the cluster ends."""
        with _starting:
            running: Daemon = self._stack.enter_context(daemon)
        self._daemons.append(running)
        return running

    def registry(self, name: str, ttl: float = 3.0, interval: float = 1.0) -> Registry:
        return Registry(self, name, ttl, interval)

    def node(self, name: str, *registries: Registry, **options: Any) -> Node:
        return Node(self, name, registries, **options)

    def nodes(self, names: Sequence[str], *registries: Registry) -> list[Node]:
        """Several nodes, started at once; each lookupd lists all of them when they are returned."""
        with ThreadPoolExecutor(len(names)) as pool:
            nodes = list(pool.map(lambda name: self.node(name, *registries), names))
        for registry in registries:
            self.settled(registry, nodes)
        return nodes

    def settled(self, registry: Registry, nodes: Sequence[Node]) -> None:
        """Wait until the lookupd lists these nodes and believes them alive; from then on they must be listed."""
        alive = dict.fromkeys((node.address for node in nodes), "alive")
        eventually(lambda: registry.listed().items() >= alive.items(), timeout=30)
        for node in nodes:
            registry.history.reachable(node.address, time.monotonic(), within=0.0)

    def note(self, text: str) -> None:
        """Keep a figure for the report."""
        self.figures.append(text)


def let_pass(seconds: float) -> None:
    """Leave things as they are: the length of a fault is what a test is about."""
    time.sleep(seconds)
