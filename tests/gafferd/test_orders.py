"""Random orders of several clients on jobs that crash and fork: the API shows what lives, and nothing is left of it."""

import collections
import concurrent.futures
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from gaffer.processes import procfs
from support.daemons import Daemon, gafferd
from support.poll import eventually

CLIENTS = 4
LONG = int(os.environ.get("GAFFER_ORDERS", "10000"))  # orders of the long run

_SETTINGS = {"graceful_timeout": 0.2, "startsecs": 0.2, "backoff": 0.05, "backoff_max": 0.2}
# Sleepers are what lives on in the end; the others crash, ignore SIGTERM, or fork what leaves their group.
PROGRAMS = {
    "sleep": "exec sleep 1000",
    "crash": "sleep 0.0$$; exit 3",
    "die": "sleep 0.05; kill -9 $$",
    "deaf": "trap '' TERM; setsid sleep 1000 & while :; do sleep 0.1; done",
    "nested": "trap '' TERM; setsid sh -c 'setsid sleep 1000 & wait' & wait; sleep 1000",
    "daemon": "(setsid sleep 1000 &) ; sleep 0.05",
    "pause": "kill -STOP $$; exit 1",
}


def job(name: str, count: int) -> dict[str, Any]:
    words = {"cmd": "/bin/sh", "args": ["-c", PROGRAMS[name]]}
    return {"name": name, **words, "numprocesses": count, "redirect_input": True, **_SETTINGS}


class Client:
    """Gives random orders; counts the answers by status."""

    def __init__(self, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.answers: collections.Counter[int] = collections.Counter()
        self.failures: list[str] = []
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def run(self, orders: int) -> "Client":
        with self._session:
            for _ in range(orders):
                self.random.choices(ORDERS, WEIGHTS)[0](self, f"/jobs/default/{self.random.choice(list(PROGRAMS))}")
        return self

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = body if isinstance(body, str) else None if body is None else json.dumps(body)
        answer = self._session.request(method, self._url + path, data=data, timeout=30)
        self.answers[answer.status_code] += 1
        if answer.status_code >= 500:
            self.failures.append(f"{method} {path} {data}: {answer.status_code} {answer.text}")
        return answer

    def pid(self) -> int:
        pids = self.call("GET", "/pids").json()["pids"]
        return self.random.choice(pids) if pids else 1


ORDERS: list[Callable[[Client, str], Any]] = [
    lambda client, path: client.call(
        "POST", "/jobs/default", job(path.rpartition("/")[2], client.random.randint(0, 3))
    ),
    lambda client, path: client.call("PUT", path, job(path.rpartition("/")[2], client.random.randint(0, 3))),
    lambda client, path: client.call("DELETE", path),
    lambda client, path: client.call("POST", f"{path}/state", client.random.choice("012")),
    lambda client, path: client.call(
        "POST", f"{path}/numprocesses", {"scale": client.random.choice(["+1", "-1", "=2"])}
    ),
    lambda client, path: client.call("POST", f"{path}/commit", {"graceful_timeout": 0.1}),
    lambda client, path: client.call("GET", path),
    lambda client, path: client.call("DELETE", f"/{client.pid()}"),
    lambda client, path: client.call(
        "POST", f"/{client.pid()}/signal", {"signal": client.random.choice(["TERM", "KILL", "STOP", "CONT", "HUP"])}
    ),
    lambda client, path: client.call("POST", f"{path}/signal", {"signal": client.random.choice(["TERM", "STOP"])}),
]
WEIGHTS = [4, *[1] * (len(ORDERS) - 1)]  # the first one, else most jobs are unloaded


def marked(state: Path) -> set[int]:
    """Gaffer's pids of all living processes of the node, by the cookies in their environments."""
    node_id = json.loads((state / "node.json").read_text())["id"]
    found = set()
    for os_pid in procfs.all_pids():
        cookie = procfs.read_variable(os_pid, "GAFFER_PROCESS") or ""
        stat = procfs.read_stat(os_pid)
        if cookie.startswith(f"{node_id}:") and stat is not None and stat.state not in "ZX":
            found.add(int(cookie.rpartition(":")[2]))
    return found


def descriptors(node: Daemon) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def give_orders(node: Daemon, state: Path, orders: int) -> collections.Counter[int]:
    """Give random orders and check what is left; return how many answers had which status."""
    client = Client(node.url, 0)
    client.call("POST", "/jobs/default", job("sleep", 1))
    client.call("DELETE", "/jobs/default/sleep")
    eventually(lambda: not marked(state))
    before = descriptors(node)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = list(pool.map(lambda seed: Client(node.url, seed).run(orders // CLIENTS), range(1, CLIENTS + 1)))
    assert not [failure for client in clients for failure in client.failures]

    for name in PROGRAMS:
        client.call("DELETE" if name != "sleep" else "GET", f"/jobs/default/{name}")
    client.call("POST", "/jobs/default", job("sleep", 2))
    client.call("POST", "/jobs/default/sleep/state", "1")
    client.call("POST", "/jobs/default/sleep/numprocesses", {"scale": "=2"})
    eventually(lambda: shown(client) == marked(state) != set(), timeout=20)
    client.call("DELETE", "/jobs/default/sleep")
    eventually(lambda: not marked(state), timeout=20)
    eventually(lambda: not procfs.children(node.pid), message="zombies are left")
    eventually(lambda: descriptors(node) <= before + 1, message="descriptors are left")
    return sum((client.answers for client in clients), collections.Counter())


def shown(client: Client) -> set[int]:
    """The processes that the API shows, when all are settled; empty otherwise."""
    instances = client.call("GET", "/jobs/default/sleep").json()["instances"]
    settled = all(each["state"] == "ready" for each in instances)
    return {each["pid"] for each in instances} if settled else set()


def test_nothing_is_left_after_a_few_hundred_orders(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path / "state") as node:
        give_orders(node, tmp_path / "state", 300)
        assert "Traceback" not in node.stderr


def test_nothing_is_left_by_a_daemon_that_is_stopped_in_the_middle(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path / "state") as node:
        assert not Client(node.url, 5).run(80).failures
        node.stop()
        assert not marked(tmp_path / "state")


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_nothing_is_left_after_thousands_of_orders(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path / "state") as node:
        began = time.monotonic()
        answers = give_orders(node, tmp_path / "state", LONG)
        seconds = time.monotonic() - began
        assert "Traceback" not in node.stderr
    print(f"{LONG} orders of {CLIENTS} clients in {seconds:.0f} s, answers {dict(sorted(answers.items()))}")
    print("0 answers of 5xx, 0 processes that the API does not show, 0 zombies, 0 descriptors left")
