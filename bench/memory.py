"""Measure the memory of idle supervisors with no job and with many, each with one process.

python bench/memory.py [--count 200] [--no-peers]

Private and shared memory of the supervisor itself: Rss counts shared pages in full, Pss by their share (proc(5)).
"""

import argparse
import sys
import time
from pathlib import Path

from _measure import BIN
from _peers import WORDS, Peer, environment, running, wait_for

SETTLE = 3.0  # seconds until the work of the start is done
CMD = " ".join(WORDS)


def _gafferd(folder: Path, count: int) -> list[str]:
    config = folder / "gafferd.ini"
    config.write_text("".join(f"[process:j{number}]\ncmd = {CMD}\n" for number in range(count)))
    return [str(BIN / "gafferd"), "--bind", "127.0.0.1:0", "--state-dir", str(folder / "state"), str(config)]


def _supervisor(folder: Path, count: int) -> list[str]:
    config = folder / "supervisord.conf"
    programs = "".join(f"[program:j{number}]\ncommand={CMD}\n" for number in range(count))
    own = f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nminfds=4096\n"
    server = f"[unix_http_server]\nfile={folder}/supervisor.sock\n"
    config.write_text(own + server + programs)
    return [str(environment() / "supervisord"), "-c", str(config)]


def _circus(folder: Path, count: int) -> list[str]:
    config = folder / "circus.ini"
    names = ("endpoint", "pubsub_endpoint", "stats_endpoint")
    sockets = "".join(f"{name} = ipc://{folder}/{name}.sock\n" for name in names)
    watchers = "".join(f"[watcher:j{number}]\ncmd = {CMD}\n" for number in range(count))
    config.write_text(f"[circus]\n{sockets}{watchers}")
    return [str(environment() / "circusd"), str(config)]


def memory(peer: Peer, count: int) -> tuple[float, float]:
    """Return Rss and Pss in MiB."""
    with running(peer, count) as started:
        wait_for(started, count)
        time.sleep(SETTLE)
        lines = Path(f"/proc/{started.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
        return sizes["Rss"], sizes["Pss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()
    peers = [Peer("gafferd", _gafferd)]
    if not chosen.no_peers:
        peers += [Peer("supervisor", _supervisor), Peer("circus", _circus)]
    for peer in peers:
        for count in (0, chosen.count):
            rss, pss = memory(peer, count)
            print(f"{peer.name:<12} {count:4} jobs: Rss {rss:6.1f} MiB, Pss {pss:6.1f} MiB")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
