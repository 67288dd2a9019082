"""Draining: clients that look up before each request never meet a process that is going."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually

DRAIN_TIMEOUT = 1.2

SERVER = """\
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def registry() -> Iterator[Daemon]:
    with lookupd("--ttl", "6", "--interval", "2") as registry:
        yield registry


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "server.py").write_text(SERVER)
    return {
        "name": "web",
        "cmd": f"python3 {tmp_path / 'server.py'}",
        "port": "auto",
        "numprocesses": 2,
        "drain_timeout": DRAIN_TIMEOUT,
        "startsecs": 0,
    }


def node(registry: Daemon, name: str) -> Any:
    return gafferd("--lookupd-address", registry.url, "--node-name", name)


def load(node: Daemon, job: dict[str, Any]) -> None:
    requests.post(f"{node.url}/jobs/shop", json=job, timeout=10).raise_for_status()


def found(registry: Daemon) -> dict[str, Any]:
    """What lookupd says of the job, by node."""
    answer = requests.get(f"{registry.url}/findJob?name=shop.web", timeout=10).json()
    return {source["name"]: source for source in answer["sources"]}


def offered(registry: Daemon) -> list[tuple[str, str]]:
    """Node and URL of each process that takes work."""
    return [
        (name, f"http://{endpoint['address']}:{endpoint['port']}/")
        for name, source in found(registry).items()
        for process in source["processes"]
        if process["pid"] in source["pids"]
        for endpoint in process["endpoints"]
    ]


def answers(url: str) -> bool:
    return requests.get(url, timeout=10).status_code == 204


def serving(registry: Daemon, number: int) -> list[tuple[str, str]]:
    """So many endpoints, once all of them answer."""

    def ready() -> list[tuple[str, str]]:
        endpoints = offered(registry)
        assert len(endpoints) == number
        return endpoints if all(answers(url) for _, url in endpoints) else []

    return eventually(ready, retry_on=(requests.ConnectionError,))


class Client(threading.Thread):
    """Looks up and asks each process that it finds, again and again; keeps what failed."""

    def __init__(self, registry: Daemon) -> None:
        super().__init__()
        self.registry = registry
        self.served: list[str] = []
        self.failed: list[str] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            endpoints = offered(self.registry)
            if not endpoints:
                self.failed.append("nobody was found")
            for name, url in endpoints:
                try:
                    assert answers(url)
                    self.served.append(name)
                except (requests.RequestException, AssertionError) as error:
                    self.failed.append(f"{name} at {url}: {error}")

    def __enter__(self) -> "Client":
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self.join()


def test_no_request_fails_while_one_node_of_two_drains_and_comes_back(registry: Daemon, job: dict[str, Any]) -> None:
    with node(registry, "one") as one, node(registry, "two") as two:
        load(one, job)
        load(two, job)
        serving(registry, 4)
        with Client(registry) as client:
            eventually(lambda: {"one", "two"} <= set(client.served))
            requests.post(f"{one.url}/drain", timeout=10).raise_for_status()
            eventually(lambda: requests.get(f"{one.url}/drain", timeout=10).json()["drained"])
            before = len(client.served)
            eventually(lambda: len(client.served) > before + 10)
            assert set(client.served[before + 4 :]) == {"two"}
        assert client.failed == []
        sources = found(registry)
        assert (sources["one"]["status"], sources["one"]["processes"]) == ("draining", [])
        requests.delete(f"{one.url}/drain", timeout=10).raise_for_status()
        assert {name for name, _ in serving(registry, 4)} == {"one", "two"}


def test_what_goes_is_out_of_the_answers_before_it_is_asked_to_end(registry: Daemon, job: dict[str, Any]) -> None:
    with node(registry, "one") as one:
        load(one, job)
        (_, first), (_, second) = serving(registry, 2)

        requests.post(f"{one.url}/jobs/shop/web/numprocesses", json={"scale": -1}, timeout=10).raise_for_status()
        eventually(lambda: [url for _, url in offered(registry)] == [first], timeout=DRAIN_TIMEOUT / 2)
        assert answers(second)
        states = [process["state"] for process in found(registry)["one"]["processes"]]
        assert states == ["ready", "draining"]
        eventually(lambda: len(found(registry)["one"]["processes"]) == 1)
        with pytest.raises(requests.ConnectionError):
            answers(second)

        one.signal(signal.SIGTERM)
        eventually(lambda: found(registry)["one"]["status"] == "draining", timeout=DRAIN_TIMEOUT / 2)
        assert offered(registry) == []
        assert requests.get(f"{one.url}/health", timeout=10).json()["status"] == "stopping"
        assert answers(first)
        assert one.wait() == 0
        assert found(registry) == {}
