"""A cluster on this host: a gaffer_lookupd, some gafferd, and the application in procfile/ spread over them.

Without arguments it shows a table that follows the lookup until Ctrl-C. With --once it kills a process and a node,
measures how soon the lookup's answers follow, and ends. Nothing is left behind: no process, no file.

It starts only installed commands, those beside the Python that runs it, and learns everything else over HTTP.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gaffer_client import Lookup, Server
from gaffer_client.answers import Source
from gaffer_client.cli.topology import job_table
from gaffer_client.errors import GafferClientError, Unreachable
from gaffer_client.naming import display_name

T = TypeVar("T")

BIN = Path(sys.executable).parent
APPLICATION = Path(__file__).resolve().parent / "procfile"
SESSION = "demo"
WEB = f"{SESSION}.web"

TTL, INTERVAL = 3, 1  # seconds
LONG_ENOUGH = 1.1  # a process that lived over a second is replaced at once
POLL = 0.01
REFRESH = 0.2
MOST_NODES = 200  # as many loopback addresses are taken, from 127.0.0.11 on
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

stopping = threading.Event()


class DemoError(Exception):
    """The demo can't go on."""


class Stopped(Exception):
    """Somebody asked the demo to end."""


class Daemon:
    """An installed daemon, started in a process group of its own: what Ctrl-C means is up to the demo."""

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
        """Where it listens, as soon as it does."""
        url = wait_for(self._announced, 15, f"{self.name} does not listen")
        self._listened = True
        return url

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it and all that it runs.

        What a gafferd that was killed has left is ended by its successor on the same state directory.
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
            raise DemoError(f"{self.name} ended with status {self.process.returncode}: {self._last_words()}")
        return None

    def _last_words(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-8:])


class Node:
    """A gafferd, with how many processes of each type it gets."""

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
            f"--node-name={home.name}",
        )
        self.url = ""
        self.name = ""


class Cluster:
    """All daemons, and the folder they live in."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.home = Path(tempfile.mkdtemp(prefix="gaffer-demo-"))
        self.daemons: list[Daemon] = []
        self.nodes: list[Node] = []

    def start_lookupd(self) -> None:
        lookupd = Daemon(
            self.home / "lookupd", "gaffer_lookupd", "--bind=127.0.0.1:0", f"--ttl={TTL}", f"--interval={INTERVAL}"
        )
        self.daemons.append(lookupd)
        self.lookup_url = lookupd.url()
        self.lookup = Lookup([self.lookup_url])

    def start_nodes(self) -> None:
        """Start them all at once, and wait until the lookup knows them."""
        for index in range(self.size):
            node = Node(index, self.home / f"node{index + 1}", self.lookup_url)
            self.nodes.append(node)
            self.daemons.append(node.daemon)
        for node in self.nodes:
            node.url = node.daemon.url()
        names = wait_for(self._names, 15, "the lookup does not know all nodes")
        for node in self.nodes:
            node.name = names[node.url]

    def _names(self) -> dict[str, str] | None:
        names = {node["origin"]: display_name(node) for node in self.lookup.nodes()["nodes"]}
        return names if all(node.url in names for node in self.nodes) else None

    def load(self) -> None:
        """Load the application on all nodes, unevenly, and wait until each answers its page."""
        loads = [(node, self._start_load(node)) for node in self.nodes]
        for node, load in loads:
            output, _ = load.communicate(timeout=30)
            if load.returncode != 0:
                raise DemoError(f"gaffer load on {node.name} ended with status {load.returncode}: {output.strip()}")
        wait_for(self._complete, 15, "the lookup does not know all processes")

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
        """The status of a node in the lookup's answers; None when it is not among them."""
        statuses = {info["origin"]: info.get("status", "alive") for info in self.lookup.nodes()["nodes"]}
        return statuses.get(node.url)

    def web(self) -> dict[str, Source]:
        """What each node runs of demo.web, by the URL of the node."""
        return {source["node_info"]["origin"]: source for source in self.lookup.find_job(WEB)["sources"]}

    def stop(self) -> list[str]:
        """End everything; what could not be ended is told."""
        problems = []
        with ThreadPoolExecutor(max(1, len(self.daemons))) as pool:
            for daemon, stopped in [(daemon, pool.submit(daemon.stop)) for daemon in self.daemons[1:]]:
                try:
                    stopped.result()
                except (DemoError, OSError) as error:
                    problems.append(f"could not end all of {daemon.name}: {error}")
        for lookupd in self.daemons[:1]:
            lookupd.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        return problems


def once(cluster: Cluster) -> None:
    """Kill a process and a node, and print how soon the lookup's answers follow."""
    cluster.start_lookupd()
    print("lookupd", cluster.lookup_url, flush=True)
    cluster.start_nodes()
    for node in cluster.nodes:
        print("node", node.name, node.url, flush=True)
    cluster.load()
    url = wait_for(lambda: served_page(cluster), 15, f"no {WEB} answers at the endpoint that the lookup gives")
    print("page 200", url, flush=True)
    crash_process(cluster, cluster.nodes[0])
    crash_node(cluster, cluster.nodes[-1])


def served_page(cluster: Cluster) -> str | None:
    """Fetch a page of demo.web where the lookup says that it listens; the URL when it was there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for source in cluster.web().values():
        for process in source.get("processes", []):
            for endpoint in process["endpoints"]:
                url = f"http://{endpoint['address']}:{endpoint['port']}/"
                try:
                    with direct.open(url, timeout=5) as page:
                        return url if page.status == 200 else None
                except OSError:  # it may not listen yet
                    continue
    return None


def crash_process(cluster: Cluster, node: Node) -> None:
    """Kill a process of demo.web and wait until the lookup names another in its place."""
    progress(f"waiting until a process of {WEB} on {node.name} has lived for a second")
    with Server(node.url) as server:
        pid, os_pid = wait_for(lambda: long_lived(server), 15, f"{WEB} does not stay alive on {node.name}")
    before = cluster.web()[node.url]["pids"]
    os.kill(os_pid, signal.SIGKILL)
    start = time.monotonic()

    def replaced() -> bool:
        now = cluster.web()[node.url]["pids"]
        return pid not in now and len(now) == len(before)

    wait_for(replaced, 10, f"no process came for {pid} of {WEB} on {node.name}")
    print("crash_ms", milliseconds_since(start), flush=True)


def long_lived(server: Server) -> tuple[int, int] | None:
    """The node's number and the system's of a process of demo.web that is replaced at once when it dies."""
    for instance in server.get_job(WEB).info()["instances"]:
        if instance["pid"] and instance["os_pid"] and (instance.get("uptime") or 0) > LONG_ENOUGH:
            return instance["pid"], instance["os_pid"]
    return None


def crash_node(cluster: Cluster, node: Node) -> None:
    """Kill a gafferd and wait until the lookup suspects it and then drops it, and it alone."""
    others = {url: source["pids"] for url, source in cluster.web().items() if url != node.url}
    node.daemon.kill()
    start = time.monotonic()
    wait_for(
        lambda: cluster.status(node) in ("suspect", None),
        10,
        f"the lookup takes {node.name} for alive, which was killed",
    )
    print("suspect_ms", milliseconds_since(start), flush=True)
    wait_for(lambda: cluster.status(node) is None, TTL + 10, f"the lookup still lists {node.name}, which was killed")
    print("expired_ms", milliseconds_since(start), flush=True)
    now = {url: source["pids"] for url, source in cluster.web().items()}
    if now != others:
        raise DemoError(f"the other nodes ran {others} before {node.name} was killed and {now} after it")


def follow(cluster: Cluster) -> None:
    """Show what the lookup answers, until somebody stops it."""
    progress(f"starting a lookupd and {cluster.size} nodes")
    cluster.start_lookupd()
    cluster.start_nodes()
    cluster.load()
    node = cluster.nodes[-1]
    print(
        f"""
{SESSION} runs on {cluster.size} nodes. In another terminal:

  export PATH={BIN}:$PATH
  export GAFFER_LOOKUPD={cluster.lookup_url}
  export GAFFER_ENDPOINT={cluster.nodes[0].url}
  gaffer lookup:nodes
  gaffer lookup:job {WEB}
  gaffer scale {SESSION} web+2 worker=3
  gaffer ps {SESSION}
  gafferctl kill {SESSION}.worker KILL
  kill -9 {node.daemon.process.pid}   # {node.name}: suspect at once, gone in {TTL} s

Ctrl-C ends it all.
"""
    )
    screen = Screen()
    last, since = "", time.monotonic()
    while not stopping.wait(REFRESH):
        try:
            jobs = cluster.lookup.jobs()["jobs"]
        except Unreachable as error:
            screen.show(f"{last}\n\n{error.message}; this is {time.monotonic() - since:.0f} s old")
            continue
        last = job_table({job["name"]: job["sources"] for job in jobs}, endpoints=1) or "no jobs"
        since = time.monotonic()
        screen.show(last)


class Screen:
    """The part of the terminal that is drawn over; without a terminal a new text is printed below the last."""

    def __init__(self) -> None:
        self._height = 0
        self._last = ""

    def show(self, text: str) -> None:
        lines = text.splitlines()
        if not sys.stdout.isatty():
            ageless = "\n".join(line.rsplit("  ", 1)[0] for line in lines)
            if ageless != self._last:
                print(text, end="\n\n", flush=True)
            self._last = ageless
            return
        columns, rows = shutil.get_terminal_size()
        if len(lines) > rows - 2:
            lines[rows - 3 :] = [f"... and {len(lines) - rows + 3} more"]
        # Up to the first line of the last text; each line is written over it, and what is left below is cleared.
        up = f"\x1b[{self._height}A" if self._height else ""
        drawn = "".join(f"{line[: columns - 1]}\x1b[K\n" for line in lines)
        print(f"{up}\r{drawn}\x1b[J", end="", flush=True)
        self._height = len(lines)


def environment(home: Path) -> dict[str, str]:
    """The environment of daemons and commands: nothing of the user's own Gaffer."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GAFFER")}
    return {**inherited, "HOME": str(home), "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}"}


def wait_for(attempt: Callable[[], T | None], timeout: float, complaint: str) -> T:
    """Call `attempt` until it gives something true. An answer that can't be had counts as not yet."""
    deadline = time.monotonic() + timeout
    trouble = ""
    while True:
        if stopping.is_set():
            raise Stopped
        try:
            if result := attempt():
                return result
        except GafferClientError as error:
            trouble = f" ({error.message})"
        if time.monotonic() > deadline:
            raise DemoError(f"{complaint}, for {timeout} s{trouble}")
        time.sleep(POLL)


def milliseconds_since(start: float) -> int:
    return round((time.monotonic() - start) * 1000)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--nodes", type=int, default=os.environ.get("NODES", "3"), help="how many (NODES; default: 3)")
    parser.add_argument("--once", action="store_true", help="check, measure and end")
    options = parser.parse_args()
    if not 1 <= options.nodes <= MOST_NODES:
        parser.error(f"--nodes takes 1 to {MOST_NODES}")
    for signum in STOP_SIGNALS:
        signal.signal(signum, lambda number, frame: stopping.set())

    cluster = Cluster(options.nodes)
    problems = []
    try:
        (once if options.once else follow)(cluster)
    except Stopped:
        if options.once:
            problems.append("it was told to stop")
    except (DemoError, GafferClientError, OSError, subprocess.SubprocessError) as error:
        problems.append(str(error))
    finally:
        # Whoever presses Ctrl-C twice is still not left with processes.
        for signum in STOP_SIGNALS:
            signal.signal(signum, lambda number, frame: None)
        stopping.clear()
        progress("ending everything")
        problems += cluster.stop()
    if problems:
        print("failed:", "; ".join(problems), flush=True)
        return 1
    if options.once:
        print("ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
