"""What a lookupd shows of a node whose gafferd is killed: the same node with the same processes, all the time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests

from support.daemons import Daemon, lookupd
from support.poll import eventually
from support.survival import TIMEOUT, kept_node

PAUSE = 0.01


class Answer(NamedTuple):
    """What the lookupd said of the nodes with the job."""

    ids: tuple[str, ...]
    statuses: tuple[str, ...]
    pids: tuple[int, ...]


class Seen:
    """What the lookupd answered, asked all the time."""

    def __init__(self, registry: Daemon) -> None:
        self.answers: list[Answer] = []
        self._url = f"{registry.url}/findJob?name=default.s"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._over.wait(PAUSE):
                sources = session.get(self._url, timeout=TIMEOUT).json()["sources"]
                ids = tuple(each["node_info"]["id"] for each in sources)
                pids = tuple(pid for each in sources for pid in sorted(each["pids"]))
                self.answers.append(Answer(ids, tuple(each["status"] for each in sources), pids))


@contextmanager
def watching(registry: Daemon) -> Iterator[Seen]:
    seen = Seen(registry)
    try:
        yield seen
    finally:
        seen.close()


def test_a_killed_gafferd_stays_where_it_is_found(tmp_path: Path) -> None:
    with lookupd() as registry, kept_node(tmp_path, "--lookupd-address", registry.url) as node:
        node.load({"name": "s", "cmd": "sleep 1000", "numprocesses": 3})
        pids = tuple(sorted(each.pid for each in node.running("s", 3)))

        def listed() -> bool:
            [source] = requests.get(f"{registry.url}/findJob?name=default.s", timeout=TIMEOUT).json()["sources"]
            return source["status"] == "alive" and tuple(sorted(source["pids"])) == pids

        eventually(listed, timeout=TIMEOUT, retry_on=(ValueError,))
        with watching(registry) as seen:
            eventually(lambda: seen.answers)
            for _ in range(3):
                connections = registry.stderr.count("connected")
                node.kill()
                eventually(lambda n=connections: registry.stderr.count("connected") > n, timeout=TIMEOUT)  # type: ignore[misc]
                eventually(listed, timeout=TIMEOUT)
        assert {(each.ids, each.pids) for each in seen.answers} == {(seen.answers[0].ids, pids)}
        assert {each.statuses for each in seen.answers} <= {("alive",), ("suspect",)}
        suspect = sum(each.statuses == ("suspect",) for each in seen.answers)
        print(f"3 kills: never removed; suspect in {suspect} of {len(seen.answers)} answers, one each {PAUSE:g} s")
