"""The 99th percentile of honest clients' latencies while a node is attacked, beside their own without the attack.

python bench/attack.py [--pairs 5] [--seconds 4]

Honest clients: five with a key, each with 50 requests a second, four on connections that are kept and one on new ones.
The attack, from a process of its own without a key: 200 slow senders of heads, 100 of bodies, 200 silent connections,
200 websockets, 100 SockJS sessions that listen and 3 clients that open others again and again, 20 clients that don't
read, and some that send huge bodies, deep JSON, huge heads and nonsense again and again (tests/support/attack.py). They
hold all that callers may who are not known, and take it again as soon as they lose it.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from _measure import Daemon, daemon, pairs, show, show_ratio

from gaffer.runtime.keyfile import new_key

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.attack import under_attack, use_honestly


@contextlib.contextmanager
def keyed_node() -> Iterator[tuple[Daemon, str]]:
    """A node with one job that knows callers by a key only, and the key."""
    with tempfile.TemporaryDirectory() as folder:
        key = new_key()
        for name, text in (
            ("key", key),
            ("gafferd.ini", "[gaffer]\ntrust_local = no\n[process:web]\ncmd = /bin/sleep 1000\n"),
        ):
            Path(folder, name).write_text(text)
            Path(folder, name).chmod(0o600)
        with daemon("gafferd", "-c", f"{folder}/gafferd.ini", "--api-key-file", f"{folder}/key") as node:
            yield node, key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="how long one measurement takes")
    chosen = parser.parse_args()
    failed = []

    with keyed_node() as (node, key):
        address = urlsplit(node.url)
        host, port = str(address.hostname), address.port or 0

        def calm() -> float:
            time.sleep(1)  # the attackers' connections are gone
            found = use_honestly(host, port, chosen.seconds, key)
            failed.extend(found.failed)
            return found.p99

        def attacked() -> float:
            with under_attack(host, port):
                found = use_honestly(host, port, chosen.seconds, key)
            failed.extend(found.failed)
            return found.p99

        ours, floor = pairs(attacked, calm, chosen.pairs)
    show("p99 of honest clients under attack", ours)
    show("p99 without the attack", floor)
    show_ratio("ratio", ours, floor)
    print(f"{'failed requests of honest clients':<44} {len(failed):9d}")


if __name__ == "__main__":
    main()
