"""Measure the time from the start of a supervisor to its 200th process, compared with other supervisors.

python bench/coldstart.py [--count 200] [--rounds 5] [--no-peers]
"""

import argparse
import subprocess
import sys
import time

from _measure import show
from _peers import GAFFERD, OTHERS, WORDS, Peer, running, wait_for

IMPORTS = "import tornado.web, tornado.httpserver, uvloop, msgspec, psutil"
LOOP = f"""
import subprocess, time
for _ in range(COUNT):
    subprocess.Popen({WORDS!r}, process_group=0)
time.sleep(1000)
"""


def cold_start(peer: Peer, count: int) -> float:
    """Return the seconds from exec to the last of `count` processes."""
    began = time.perf_counter()
    with running(peer, count) as started:
        wait_for(started, count)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()

    loop = Peer(
        "a Popen loop in python", lambda folder, count: [sys.executable, "-c", LOOP.replace("COUNT", str(count))]
    )
    peers = [GAFFERD, loop, *(() if chosen.no_peers else OTHERS)]
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    imports = []
    for peer in peers:
        cold_start(peer, 1)  # fill caches, and install the peers
    for _ in range(chosen.rounds):
        for peer in peers:
            times[peer.name].append(cold_start(peer, chosen.count))
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imports.append(time.perf_counter() - began)
    for name, values in times.items():
        show(name, values)
    show("python with imports only", imports)


if __name__ == "__main__":
    main()
