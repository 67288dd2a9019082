"""Run a cluster on this host: a gaffer_lookupd, and several gafferd with the application in procfile/.

By default, show a live table of the registry until Ctrl-C. With --once, kill a process, a gafferd and a node, measure
how long the cluster takes to reflect this, and exit. No processes or files are left behind.

The demo only runs the commands installed next to its Python interpreter, and uses HTTP for everything else.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

from demo_cluster import BIN, SESSION, TTL, WEB, Cluster, DemoError, Node, Stopped, stopping, wait_for

from gaffer_client import Server
from gaffer_client.cli.topology import job_table
from gaffer_client.errors import GafferClientError, Unreachable

MIN_UPTIME = 1.1  # seconds; a process that has run for over a second is replaced at once
REFRESH = 0.2  # seconds
MAX_NODES = 200  # each uses a loopback address, from 127.0.0.11 on
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def once(cluster: Cluster) -> None:
    """Kill a process, a gafferd and a node, and print how long the cluster takes to reflect this."""
    cluster.start_lookupd()
    print("lookupd", cluster.lookup_url, flush=True)
    cluster.start_nodes()
    for node in cluster.nodes:
        print("node", node.name, node.url, flush=True)
    cluster.load()
    url = wait_for(lambda: served_page(cluster), 15, f"{WEB} does not respond at any announced endpoint")
    print("page 200", url, flush=True)
    crash_process(cluster, cluster.nodes[0])
    crash_gafferd(cluster, cluster.nodes[0])
    crash_node(cluster, cluster.nodes[-1])


def served_page(cluster: Cluster) -> str | None:
    """Fetch a page from an announced endpoint of demo.web; return its URL, or None on failure."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for source in cluster.web().values():
        for process in source.get("processes", []):
            for endpoint in process["endpoints"]:
                url = f"http://{endpoint['address']}:{endpoint['port']}/"
                try:
                    with direct.open(url, timeout=5) as page:
                        return url if page.status == 200 else None
                except OSError:  # not listening yet
                    continue
    return None


def crash_process(cluster: Cluster, node: Node) -> None:
    """Kill a process of demo.web and wait until the registry lists its replacement."""
    progress(f"waiting until a process of {WEB} on {node.name} has run for a second")
    with Server(node.url) as server:
        pid, os_pid = wait_for(lambda: long_running(server), 15, f"{WEB} does not stay up on {node.name}")
    before = cluster.web()[node.url]["pids"]
    os.kill(os_pid, signal.SIGKILL)
    start = time.monotonic()

    def replaced() -> bool:
        now = cluster.web()[node.url]["pids"]
        return pid not in now and len(now) == len(before)

    wait_for(replaced, 10, f"process {pid} of {WEB} on {node.name} was not replaced")
    print("crash_ms", milliseconds_since(start), flush=True)


def long_running(server: Server) -> tuple[int, int] | None:
    """Return pid and os_pid of a process of demo.web that is replaced at once when it exits."""
    for instance in server.get_job(WEB).info()["instances"]:
        if instance["pid"] and instance["os_pid"] and (instance.get("uptime") or 0) > MIN_UPTIME:
            return instance["pid"], instance["os_pid"]
    return None


def crash_gafferd(cluster: Cluster, node: Node) -> None:
    """Kill a gafferd and wait until its keeper has started another one, with the same processes."""
    before, pids = node.gafferd(), cluster.web()[node.url]["pids"]
    os.kill(before, signal.SIGKILL)
    start = time.monotonic()
    wait_for(lambda: node.gafferd() != before, 15, f"no gafferd follows the one of {node.name} that was killed")
    print("restart_ms", milliseconds_since(start), flush=True)

    def same() -> bool:
        return cluster.status(node) == "alive" and cluster.web()[node.url]["pids"] == pids

    wait_for(same, 15, f"the registry does not show the same processes of {node.name} after its gafferd was killed")


def crash_node(cluster: Cluster, node: Node) -> None:
    """Kill a gafferd with its keeper and wait until the registry marks it suspect and then removes it, and no other."""
    others = {url: source["pids"] for url, source in cluster.web().items() if url != node.url}
    node.kill()
    start = time.monotonic()
    wait_for(
        lambda: cluster.status(node) in ("suspect", None),
        10,
        f"the registry still shows {node.name} as alive after it was killed",
    )
    print("suspect_ms", milliseconds_since(start), flush=True)
    wait_for(
        lambda: cluster.status(node) is None, TTL + 10, f"the registry still lists {node.name} after it was killed"
    )
    print("expired_ms", milliseconds_since(start), flush=True)
    now = {url: source["pids"] for url, source in cluster.web().items()}
    if now != others:
        raise DemoError(f"processes of the other nodes before {node.name} was killed: {others}; after: {now}")


def follow(cluster: Cluster) -> None:
    """Show the registry until the demo is stopped."""
    progress(f"starting a lookupd and {cluster.size} nodes")
    cluster.start_lookupd()
    cluster.start_nodes()
    cluster.load()
    first, node = cluster.nodes[0], cluster.nodes[-1]
    print(
        f"""
{SESSION} runs on {cluster.size} nodes. In a browser: {cluster.lookup_url}/ui/

In another terminal:

  export PATH={BIN}:$PATH
  export GAFFER_LOOKUPD={cluster.lookup_url}
  export GAFFER_ENDPOINT={cluster.nodes[0].url}
  gaffer lookup:nodes
  gaffer lookup:job {WEB}
  gaffer scale {SESSION} web+2 worker=3
  gaffer ps {SESSION}
  gafferctl kill {SESSION}.worker KILL
  kill -9 {first.gafferd()}   # the keeper starts gafferd of {first.name} again, and its processes go on
  kill -9 {node.daemon.process.pid} {node.gafferd()}   # with its keeper: {node.name} is removed after {TTL} s

Press Ctrl-C to stop the demo.
"""
    )
    screen = Screen()
    last, since = "", time.monotonic()
    while not stopping.wait(REFRESH):
        try:
            jobs = cluster.lookup.jobs()["jobs"]
        except Unreachable as error:
            screen.show(f"{last}\n\n{error.message}; table is {time.monotonic() - since:.0f} s old")
            continue
        last = job_table({job["name"]: job["sources"] for job in jobs}, endpoints=1) or "no jobs"
        since = time.monotonic()
        screen.show(last)


class Screen:
    """A region of the terminal that is redrawn; without a terminal, each new text is printed below the previous one."""

    def __init__(self) -> None:
        self._height = 0
        self._last = ""

    def show(self, text: str) -> None:
        lines = text.splitlines()
        if not sys.stdout.isatty():
            without_age = "\n".join(line.rsplit("  ", 1)[0] for line in lines)
            if without_age != self._last:
                print(text, end="\n\n", flush=True)
            self._last = without_age
            return
        columns, rows = shutil.get_terminal_size()
        if len(lines) > rows - 2:
            lines[rows - 3 :] = [f"... and {len(lines) - rows + 3} more"]
        # Move to the first line of the previous text, overwrite its lines and clear the rest.
        up = f"\x1b[{self._height}A" if self._height else ""
        drawn = "".join(f"{line[: columns - 1]}\x1b[K\n" for line in lines)
        print(f"{up}\r{drawn}\x1b[J", end="", flush=True)
        self._height = len(lines)


def milliseconds_since(start: float) -> int:
    return round((time.monotonic() - start) * 1000)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--nodes", type=int, default=os.environ.get("NODES", "3"), help="number of nodes (env: NODES; default: 3)"
    )
    parser.add_argument("--once", action="store_true", help="check, measure and exit")
    options = parser.parse_args()
    if not 1 <= options.nodes <= MAX_NODES:
        parser.error(f"--nodes must be from 1 to {MAX_NODES}")
    for signum in STOP_SIGNALS:
        signal.signal(signum, lambda number, frame: stopping.set())

    cluster = Cluster(options.nodes)
    problems = []
    try:
        (once if options.once else follow)(cluster)
    except Stopped:
        if options.once:
            problems.append("stopped by a signal")
    except (DemoError, GafferClientError, OSError, subprocess.SubprocessError) as error:
        problems.append(str(error))
    finally:
        # Ignore further signals, so that a second Ctrl-C does not leave processes behind.
        for signum in STOP_SIGNALS:
            signal.signal(signum, lambda number, frame: None)
        stopping.clear()
        progress("stopping all daemons")
        problems += cluster.stop()
    if problems:
        print("failed:", "; ".join(problems), flush=True)
        return 1
    if options.once:
        print("ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
