"""Rolling restarts: a client that follows the ready processes has no failed request."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gaffer_client import LiveLookup, Lookup
from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually

RATE = 300  # requests a second
REQUEST_TIMEOUT = 10.0

# Each request takes a while, so that some are open whenever the program is asked to end.
SERVER = """\
import http.server, os, signal, socketserver, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *args):
        pass

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    request_queue_size = 128  # connections that may wait; the default of 5 is too low for bursts

server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()  # returns when all requests have been answered
"""


@pytest.fixture
def registry() -> Iterator[Daemon]:
    with lookupd() as registry:
        yield registry


@pytest.fixture
def node(registry: Daemon) -> Iterator[Daemon]:
    with gafferd("--lookupd-address", registry.url) as node:
        yield node


@pytest.fixture
def live(registry: Daemon) -> Iterator[LiveLookup]:
    with Lookup([registry.url]) as lookup, lookup.watch() as live:
        yield live


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "server.py").write_text(SERVER)
    return {
        "name": "web",
        "cmd": f"python3 {tmp_path / 'server.py'}",
        "port": "auto",
        "numprocesses": 2,
        "ready": "http",
        "ready_interval": 0.2,
        "drain_timeout": 1,
    }


def ready_endpoints(live: LiveLookup) -> list[tuple[str, int]]:
    """Address and port of each process that is ready."""
    return [
        (endpoint["address"], endpoint["port"])
        for source in live.find_job("default.web")["sources"]
        for process in source["processes"]
        if process["state"] == "ready"
        for endpoint in process["endpoints"]
    ]


class Load(threading.Thread):
    """RATE requests a second, each over a connection of its own to the next ready process, none repeated."""

    def __init__(self, live: LiveLookup) -> None:
        super().__init__(name="load")
        self.served: Counter[int] = Counter()  # requests by the system's pid of the process
        self.failures: list[str] = []
        self._live = live
        self._over = threading.Event()

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        started, sent = loop.time(), 0
        async with asyncio.TaskGroup() as requests:
            while not self._over.is_set():
                while sent < (loop.time() - started) * RATE:
                    requests.create_task(self._request(sent))
                    sent += 1
                await asyncio.sleep(1 / RATE)

    async def _request(self, number: int) -> None:
        endpoints = ready_endpoints(self._live)
        if not endpoints:
            self.failures.append("no process is ready")
            return
        address, port = endpoints[number % len(endpoints)]
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                answer = await self._get(address, port)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.0 200 "), answer
            self.served[int(body)] += 1
        except (OSError, ValueError, AssertionError) as error:
            self.failures.append(f"{address}:{port}: {error!r}")

    async def _get(self, address: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


def test_no_request_fails_during_a_rolling_restart(node: Daemon, live: LiveLookup, job: dict[str, Any]) -> None:
    def running() -> set[int]:
        instances = requests.get(f"{node.url}/jobs/default/web", timeout=10).json()["instances"]
        assert {instance["state"] for instance in instances} == {"ready"}
        return {instance["os_pid"] for instance in instances}

    requests.post(f"{node.url}/jobs/default", json=job, timeout=10).raise_for_status()
    eventually(lambda: len(ready_endpoints(live)) == 2)
    before = running()
    with Load(live) as load:
        eventually(lambda: set(load.served) == before)
        restart = requests.post(f"{node.url}/jobs/default/web/restart?rolling=true", timeout=10)
        restart.raise_for_status()
        after = eventually(lambda: len(found := running()) == 2 and before.isdisjoint(found) and found, timeout=40)
        eventually(lambda: after <= set(load.served))
    assert load.failures == []
    assert set(load.served) == before | after
    assert load.served.total() > RATE  # the restart takes more than a second
