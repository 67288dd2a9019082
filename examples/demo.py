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
import time
import urllib.request

from demo_cluster import BIN, SESSION, TTL, WEB, Cluster, DemoError, Node, Stopped, stopping, wait_for

from gaffer_client import Server
from gaffer_client.cli.topology import job_table
from gaffer_client.errors import GafferClientError, Unreachable

LONG_ENOUGH = 1.1  # a process that lived over a second is replaced at once
REFRESH = 0.2
MOST_NODES = 200  # as many loopback addresses are taken, from 127.0.0.11 on
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
