"""Measure the time from SIGKILL of a process to its replacement in lookupd, for each instance of a job.

python bench/crash.py [--count 20]
"""

import argparse
import http.client
import os
import signal
import time
from urllib.parse import urlsplit

import msgspec
from _measure import daemon, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    count = parser.parse_args().count

    with daemon("gaffer_lookupd") as lookupd, daemon("gafferd", "--lookupd-address", lookupd.url) as node:
        node.call("POST", "/jobs/default", {"name": "sleepers", "cmd": "/bin/sleep 1000", "numprocesses": count})
        connection = http.client.HTTPConnection(urlsplit(lookupd.url).netloc)

        def pids() -> set[int]:
            connection.request("GET", "/findJob?name=default.sleepers")
            sources = msgspec.json.decode(connection.getresponse().read())["sources"]
            return {pid for source in sources for pid in source["pids"]}

        while len(before := pids()) < count:
            time.sleep(0.01)
        time.sleep(1.1)  # a process that has run for over a second is replaced at once
        os_pids = {each["pid"]: each["os_pid"] for each in node.call("GET", "/jobs/default/sleepers")["instances"]}
        took = []
        for pid in sorted(before):
            began = time.perf_counter()
            os.kill(os_pids[pid], signal.SIGKILL)
            while pid in (now := pids()) or len(now) < count:
                pass
            took.append(time.perf_counter() - began)
        connection.close()
    show(f"SIGKILL to replacement in lookupd, {count} instances", took)


if __name__ == "__main__":
    main()
