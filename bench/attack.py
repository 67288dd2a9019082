"""Measure the 99th percentile latency of legitimate clients of a node under attack, compared with no attack.

python bench/attack.py [--pairs 5] [--seconds 4]

Legitimate clients: five with a key, each sending 50 requests per second, four on persistent connections and one on new
connections. Attackers, in a separate process without a key: 200 slow senders of headers, 100 of bodies, 200 silent
connections, 200 websockets, 100 listening SockJS sessions and 3 clients that keep opening others, 20 clients that do
not read, and several that keep sending huge bodies, deeply nested JSON, huge headers and garbage
(tests/support/attack.py). They use the whole quota of unauthenticated callers, and claim it again as soon as they lose
it.
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
    """Run a node with one job that requires a key; yield the node and the key."""
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
    parser.add_argument("--seconds", type=float, default=4, help="duration of one measurement")
    chosen = parser.parse_args()
    failed = []

    with keyed_node() as (node, key):
        address = urlsplit(node.url)
        host, port = str(address.hostname), address.port or 0

        def calm() -> float:
            time.sleep(1)  # until the attackers' connections are closed
            found = use_honestly(host, port, chosen.seconds, key)
            failed.extend(found.failed)
            return found.p99

        def attacked() -> float:
            with under_attack(host, port):
                found = use_honestly(host, port, chosen.seconds, key)
            failed.extend(found.failed)
            return found.p99

        ours, floor = pairs(attacked, calm, chosen.pairs)
    show("p99 of legitimate clients under attack", ours)
    show("p99 without the attack", floor)
    show_ratio("ratio", ours, floor)
    print(f"{'failed requests of legitimate clients':<44} {len(failed):9d}")


if __name__ == "__main__":
    main()
