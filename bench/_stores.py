"""Servers to compare the registry with: etcd and redis from Debian, and a bare relay on Tornado."""

import base64
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from _measure import installed_environment
from _registry import Address, post

RELAY = """
import asyncio, sys, uvloop
from tornado.web import Application
from tornado.websocket import WebSocketHandler

followers = set()

class Node(WebSocketHandler):
    def open(self):
        self.set_nodelay(True)
    def on_message(self, message):
        for follower in followers:
            follower.write_message(message)

class Follower(WebSocketHandler):
    def open(self):
        self.set_nodelay(True)
        followers.add(self)
    def on_close(self):
        followers.discard(self)

async def main():
    server = Application([("/ws", Node), ("/follow", Follower)]).listen(0, "127.0.0.1")
    [sock] = server._sockets.values()
    print(f"listening on http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def base64_of(text: str) -> str:
    """Encode a key or value for etcd's JSON gateway."""
    return base64.b64encode(text.encode()).decode()


def etcd_get(key: str) -> bytes:
    """Return the request that reads a key."""
    return post("/v3/kv/range", {"key": base64_of(key)})


def etcd_put(key: str, value: str) -> bytes:
    """Return the request that writes a key."""
    return post("/v3/kv/put", {"key": base64_of(key), "value": base64_of(value)})


def resp(*words: str) -> bytes:
    """Return a redis command."""
    return "".join([f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]).encode()


@contextlib.contextmanager
def _server(words: list[str], port: int) -> Iterator[Address]:
    """Run a program for the duration of the block; wait until it is listening."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{words[0]} did not start; install its Debian package") from None
                time.sleep(0.05)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """Return an unused port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def etcd_server() -> Iterator[Address]:
    """Run a single-member etcd with its data in a temporary directory."""
    port, peer = free_port(), free_port()
    with tempfile.TemporaryDirectory() as data:
        words = [
            "etcd",
            f"--data-dir={data}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--advertise-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        ]
        with _server(words, port) as address:
            time.sleep(2)  # until it has elected itself leader
            yield address


@contextlib.contextmanager
def redis_server() -> Iterator[Address]:
    """Run redis without persistence."""
    port = free_port()
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _server(words, port) as address:
        yield address


@contextlib.contextmanager
def relay_server() -> Iterator[Address]:
    """Run the bare relay."""
    words = [sys.executable, "-c", RELAY]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=installed_environment())
    try:
        assert process.stderr is not None
        yield address_of(process.stderr.readline().split()[-1])
    finally:
        process.terminate()
        process.communicate(timeout=30)


def address_of(url: str) -> Address:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
