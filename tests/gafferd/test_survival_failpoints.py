"""gafferd and its keeper die at each point at which what they know and what is differ.

Afterwards no process runs twice, none is without an owner, and none is forgotten.
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from support.failpoints import FailPoint
from support.poll import eventually
from support.survival import NO_LINES, TIMEOUT, Node, count_lines, feeds, kept_node, ping, writers

# Each process holds a lock on the file of its slot, and complains if another has it.
HOLDING = """
import fcntl, os, sys, time
folder, slot = sys.argv[1], os.environ["GAFFER_INSTANCE"]
lock = os.open(f"{folder}/{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(f"{folder}/twice", "a").write(f"{slot} {os.getpid()}\\n")
if sys.argv[2] == "ends":
    time.sleep(0.05)
    sys.exit(7)
time.sleep(1000)
"""


class Watched:
    """A node whose processes hold locks, and that may die at any call."""

    def __init__(self, node: Node, point: FailPoint, folder: Path) -> None:
        self.node = node
        self.point = point
        self.folder = folder

    def job(self, name: str, count: int, how: str = "stays", **settings: object) -> dict[str, object]:
        locks = self.folder / name
        locks.mkdir(exist_ok=True)
        arguments = ["-I", "-S", "-c", HOLDING, str(locks), how]
        return {"name": name, "cmd": sys.executable, "args": arguments, "numprocesses": count, **settings}

    def call(self, method: str, path: str, body: object = None) -> None:
        """A request whose answer may never come; one that has had its effect is refused when it is repeated."""

        def done() -> bool:
            answer = requests.request(method, self.node.url + path, json=body, timeout=TIMEOUT)
            assert answer.status_code in (200, 202, 204, 404, 409), answer.text
            return True

        eventually(done, timeout=TIMEOUT, retry_on=(OSError,))

    def marked(self) -> set[int]:
        """The processes that carry the mark of this node, by what the kernel says."""
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("GAFFER_PROCESS") and str(self.folder) in " ".join(process.cmdline()):
                    found.add(process.pid)
        return found

    def settled(self, **counts: int) -> None:
        """Wait until each job has so many processes, and check that there are no others, and were none twice."""

        def agreed() -> bool:
            shown = {name: [each.os_pid for each in self.node.instances(name)] for name in counts}
            assert {name: len(pids) for name, pids in shown.items()} == counts
            assert self.marked() == {pid for pids in shown.values() for pid in pids}
            return self.node.get("/health")["keeper"]["error"] is None

        eventually(agreed, timeout=TIMEOUT, retry_on=(OSError, requests.HTTPError))
        assert list(self.folder.glob("*/twice")) == []


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    point = FailPoint(str(tmp_path / "failpoint"))
    folder = tmp_path / "locks"
    folder.mkdir()
    with kept_node(tmp_path, env=point.env, enter=point.enter) as node:
        yield Watched(node, point, folder)
        print(node.logged, file=sys.stderr)
        if node.keeper.returncode is not None:
            node.stop()


def live(watched: Watched) -> None:
    """Load, restart and unload processes, some of which end by themselves; nothing is left."""
    node = watched.node
    watched.call("POST", "/jobs/default", watched.job("a", 2))
    watched.call("POST", "/jobs/default", watched.job("b", 1, "ends", restart="never", rlimit_core="0"))
    eventually(lambda: node.exits("b"), timeout=TIMEOUT, retry_on=(OSError,))
    watched.settled(a=2, b=0)
    assert [each["exit_code"] for each in node.exits("b")] == [7], node.exits("b")
    watched.call("DELETE", "/jobs/default/b")
    watched.call("DELETE", "/jobs/default/a")
    eventually(lambda: not watched.marked(), timeout=TIMEOUT)
    eventually(lambda: node.get("/jobs") == {"jobs": []}, timeout=TIMEOUT, retry_on=(OSError,))


def die_at(watched: Watched, place: str, number: int = 1) -> bool:
    """Live with a death at the n-th passing of a place; return whether it was passed so often."""
    print(f"dying {place}, {number}")
    watched.point.arm(place, number)
    live(watched)
    died = not watched.point.armed
    watched.point.disarm()
    return died


OF_OUTPUT = re.compile("splice|header|append|mark|cut|rename:default")  # passed again and again

PLACES = (
    "gafferd after fork",
    "gafferd after rename:state.json",
    "gafferd before send:EXITED",
    "gafferd before send:GONE",
    "keeper after receive:CHILD",
)


def test_a_death_between_two_steps_leaves_no_process_twice_or_alone(watched: Watched) -> None:
    for place in PLACES:
        assert die_at(watched, place), place


def die_while_writing(watched: Watched, *places: str) -> str:
    """Die at each of these places, by default at all that writing processes make gafferd pass; compare their lines."""
    node, point, count = watched.node, watched.point, 2
    node.load(writers("w", count, fill=1000, log_max_bytes="200k", log_backups=100))
    before = node.running("w", count)
    with feeds(node, before) as following:
        if not places:
            point.record()
            time.sleep(5.0)  # what they write in this time fills files
            places = tuple(place for place in point.recorded() if OF_OUTPUT.search(place) for _ in range(3))
        for number, place in enumerate(places):
            print(f"dying {place}")
            pid = node.pid
            point.arm(place, 1 + number % 3)
            eventually(lambda: not point.armed, timeout=TIMEOUT)
            eventually(lambda pid=pid: not psutil.pid_exists(pid), timeout=TIMEOUT)  # type: ignore[misc]
            assert ping(node.url)
            assert node.instances("w") == before
        for feed in following:
            assert feed.connected.wait(TIMEOUT)
        node.unload("w")
        for feed in following:
            assert feed.over.wait(TIMEOUT)
    logs = [node.ended_log("w", each.slot) for each in before]
    found = sum((count_lines(log) for log in logs), NO_LINES)
    assert (found.ended, found.flaws) == (count, (0, 0, 0))
    assert [bytes(feed.data) for feed in following] == logs
    return f"{len(places)} deaths at {len(set(places))} places: {found.written} lines, 0 lost, 0 twice"


def test_a_death_between_two_steps_of_output_loses_and_repeats_nothing(watched: Watched) -> None:
    die_while_writing(watched, "gafferd after splice", "gafferd before append", "gafferd after append")


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_death_at_every_step_of_output(watched: Watched) -> None:
    print(die_while_writing(watched))


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_death_at_every_step(watched: Watched) -> None:
    live(watched)
    watched.point.record()
    live(watched)
    places = watched.point.recorded()
    deaths = sum(die_at(watched, place, number) for place, count in places.items() for number in range(1, count + 1))
    print(f"{deaths} deaths at {len(places)} places: no process twice, none alone, none forgotten")
