"""The 99th percentile of honest clients' latencies while a node is attacked, beside their own without the attack.

python bench/attack.py [--pairs 5] [--seconds 4]

Honest clients: five, each with 50 requests a second, four on connections that are kept and one on new ones. The attack,
from a process of its own: 200 slow senders of heads, 100 of bodies, 200 silent connections, 20 clients that don't read,
and some that send huge bodies, deep JSON, huge heads and nonsense again and again (tests/support/attack.py).
"""

import argparse
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from _measure import daemon, pairs, show, show_ratio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.attack import under_attack, use_honestly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="how long one measurement takes")
    chosen = parser.parse_args()
    failed = []

    with daemon("gafferd") as node:
        node.call("POST", "/jobs/default", {"name": "web", "cmd": "/bin/sleep 1000"})
        address = urlsplit(node.url)
        host, port = str(address.hostname), address.port or 0

        def calm() -> float:
            time.sleep(1)  # the attackers' connections are gone
            found = use_honestly(host, port, chosen.seconds)
            failed.extend(found.failed)
            return found.p99

        def attacked() -> float:
            with under_attack(host, port):
                found = use_honestly(host, port, chosen.seconds)
            failed.extend(found.failed)
            return found.p99

        ours, floor = pairs(attacked, calm, chosen.pairs)
    show("p99 of honest clients under attack", ours)
    show("p99 without the attack", floor)
    show_ratio("ratio", ours, floor)
    print(f"{'failed requests of honest clients':<44} {len(failed):9d}")


if __name__ == "__main__":
    main()
