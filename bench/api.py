"""Measure the requests per second of the node's API on 16 connections, compared with a bare Tornado handler.

python bench/api.py [--pairs 5] [--seconds 3] [--no-peers]

wrk (from Debian) requests the status of 200 processes, the status of a job with one process, statistics, pids and
/ping. The floor is a RequestHandler on uvloop that returns the same bytes as gafferd. For websockets, 16 connections
with one outstanding message each echo 100 bytes through `/wstreams` and a `cat`, compared with a bare WebSocketHandler
that pipes its messages through its own `cat`. Peers: status of all processes with supervisor's XML-RPC, number of
processes with circus.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from _measure import Daemon, daemon, installed_environment, show, show_ratio
from _peers import environment
from tornado.websocket import websocket_connect

CONNECTIONS = 16
PROCESSES = 200
PATHS = {
    f"status of {PROCESSES} processes": "/jobs/default/many",
    "status of one job": "/jobs/default/one",
    f"stats of {PROCESSES} processes": "/stats/many",
    f"pids of {PROCESSES} processes": "/jobs/default/many/pids",
    "ping": "/ping",
}

BARE = """
import asyncio, sys, uvloop
from pathlib import Path
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

class Bare(RequestHandler):
    def initialize(self, content):
        self.content = content
    def get(self):
        self.set_header("Content-Type", "application/json")
        self.finish(self.content)

class Echo(WebSocketHandler):
    async def open(self):
        self.cat = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        asyncio.ensure_future(self.follow())
    async def follow(self):
        while data := await self.cat.stdout.read(65536):
            await self.write_message(data, binary=True)
    def on_message(self, message):
        self.cat.stdin.write(message if isinstance(message, bytes) else message.encode())
    def on_close(self):
        self.cat.kill()

async def main(folder):
    rules = [(f"/{file.name}", Bare, {"content": file.read_bytes()}) for file in folder.iterdir()]
    server = Application([("/echo", Echo), *rules]).listen(0, "127.0.0.1")
    [sock] = server._sockets.values()
    print(f"listening on http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main(Path(sys.argv[1])))
"""

CIRCUS_CLIENT = """
import sys, threading, time
from circus.client import CircusClient
endpoint, seconds, count = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
done = []
def ask():
    client, answers, end = CircusClient(endpoint=endpoint, timeout=30), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        assert client.send_message("numprocesses", name="s")["numprocesses"]
        answers += 1
    done.append(answers)
threads = [threading.Thread(target=ask) for _ in range(count)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(done) / seconds)
"""

XML_RPC = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "text/xml"
wrk.body = "<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="duration of one measurement")
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing; install it: apt-get install wrk")

    with daemon("gafferd") as node, tempfile.TemporaryDirectory() as folder:
        node.call("POST", "/jobs/default", {"name": "many", "cmd": "/bin/sleep 1000", "numprocesses": PROCESSES})
        node.call("POST", "/jobs/default", {"name": "one", "cmd": "/bin/sleep 1000"})
        cats = {"name": "cat", "cmd": "cat", "numprocesses": CONNECTIONS}
        node.call("POST", "/jobs/default", {**cats, "redirect_input": True, "redirect_output": ["out"]})
        while len(node.children()) < PROCESSES + 1 + CONNECTIONS:
            time.sleep(0.01)
        for path in PATHS.values():
            with urllib.request.urlopen(node.url + path) as answer:
                (Path(folder) / path.replace("/", "_")).write_bytes(answer.read())
        with bare(Path(folder)) as floor:
            for what, path in PATHS.items():
                _compare(
                    what,
                    partial(wrk, node.url + path, chosen.seconds),
                    partial(wrk, f"{floor.url}/{path.replace('/', '_')}", chosen.seconds),
                    chosen.pairs,
                )
            pids = node.call("GET", "/jobs/default/cat/pids")["pids"]
            ours = [f"{node.url.replace('http', 'ws')}/wstreams/{pid}" for pid in pids]
            theirs = [f"{floor.url.replace('http', 'ws')}/echo"] * CONNECTIONS
            _compare(
                "websocket echo through cat",
                lambda: echoes(ours, chosen.seconds),
                lambda: echoes(theirs, chosen.seconds),
                chosen.pairs,
            )
    if not chosen.no_peers:
        for count in (PROCESSES, 1):
            with supervisor(count) as url:
                rates = [wrk(url, chosen.seconds, _xml_rpc(count)) for _ in range(3)]
                show(f"supervisor, XML-RPC, {count} processes", rates, "/s", 1)
        with circus() as endpoint:
            words = [str(environment() / "python"), "-c", CIRCUS_CLIENT, endpoint, str(chosen.seconds)]
            rates = [float(subprocess.check_output([*words, str(CONNECTIONS)])) for _ in range(3)]
            show("circus, count of processes", rates, "/s", 1)


def wrk(url: str, seconds: int, script: str | None = None) -> float:
    """Return the successful requests per second."""
    words = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", url]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            words += ["--script", file.name]
        report = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in report or "Socket errors" in report:
        raise SystemExit(f"{url}: {report}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", report)
    assert found, report
    return float(found[1])


def echoes(urls: list[str], seconds: float) -> float:
    """Return the echoed messages per second, in total over all `urls`."""

    async def echo(url: str) -> int:
        socket = await websocket_connect(url)
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            await socket.write_message(b"x" * 99 + b"\n", binary=True)
            missing = 100
            while missing > 0:
                answer = await socket.read_message()
                assert answer is not None, url
                missing -= len(answer)
            count += 1
        socket.close()
        while await socket.read_message() is not None:
            pass
        return count

    async def all_at_once() -> int:
        return sum(await asyncio.gather(*map(echo, urls)))

    return asyncio.run(all_at_once()) / seconds


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[Daemon]:
    """Run the floor, which serves the files in `folder` by name, and /echo."""
    words = [sys.executable, "-c", BARE, str(folder)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=installed_environment())
    assert process.stderr is not None
    try:
        yield Daemon(process, process.stderr.readline().split()[-1])
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def supervisor(count: int) -> Iterator[str]:
    """Run supervisor with `count` processes; yield the URL of its XML-RPC interface."""
    port = 19001
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nminfds=4096\n"
            f"[inet_http_server]\nport=127.0.0.1:{port}\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[program:s]\ncommand=/bin/sleep 1000\nnumprocs={count}\nprocess_name=%(process_num)03d\n"
        )
        url = f"http://127.0.0.1:{port}/RPC2"
        with _running([str(environment() / "supervisord"), "-c", str(config)], folder):
            _wait_for(lambda: wrk(url, 1, _xml_rpc(count)) > 0)
            yield url


@contextlib.contextmanager
def circus() -> Iterator[str]:
    """Run circus with a watcher of 200 processes; yield its endpoint."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/endpoint.sock"
        config = Path(folder) / "circus.ini"
        config.write_text(
            f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = ipc://{folder}/p.sock\n"
            f"[watcher:s]\ncmd = /bin/sleep 1000\nnumprocesses = {PROCESSES}\n"
        )
        with _running([str(environment() / "circusd"), str(config)], folder):
            _wait_for((Path(folder) / "endpoint.sock").exists)
            time.sleep(5)  # circus starts its processes before it responds
            yield endpoint


@contextlib.contextmanager
def _running(words: list[str], folder: str) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=folder, env=installed_environment(), stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, subprocess.CalledProcessError, SystemExit):
            if ready():
                return
        time.sleep(0.1)
    raise SystemExit("a peer did not start")


def _xml_rpc(count: int) -> str:
    if count == 1:
        value = "<param><value><string>s:000</string></value></param>"
        return XML_RPC.format(method="supervisor.getProcessInfo", params=value)
    return XML_RPC.format(method="supervisor.getAllProcessInfo", params="")


def _compare(what: str, ours: Callable[[], float], floor: Callable[[], float], count: int) -> None:
    results = [(ours(), floor()) for _ in range(count)]
    show(what, [a for a, _ in results], "/s", 1)
    show("  a bare Tornado handler", [b for _, b in results], "/s", 1)
    show_ratio("  ratio", [a for a, _ in results], [b for _, b in results])


if __name__ == "__main__":
    main()
