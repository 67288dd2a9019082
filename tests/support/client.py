"""Helpers of the client's tests: a server that answers as told, and what a command of this process did."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import psutil
import pytest


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answering:
    """A server that answers each path as told, 404 elsewhere; `requests` holds what came."""

    url: str
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, path: str, body: bytes | str, status: int = 200) -> None:
        self.answers[path] = (status, body.encode() if isinstance(body, str) else body)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for them

    def handle_error(self, *_args: object) -> None:
        """A client that goes away, or does not trust the certificate, is part of the test."""


def own_address() -> str:
    """An IPv4 address of this host beyond loopback; skips the test when there is none."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return address.address
    pytest.skip("needs an address beyond loopback")


@contextmanager
def answering_server(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Answering]:
    """Run a server on a free port, of loopback unless told otherwise, until the block ends."""
    told = Answering("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            told.requests.append(Request(self.command, self.path, dict(self.headers), body))
            status, content = told.answers.get(self.path.partition("?")[0], (404, b""))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", content.decode())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

        def log_message(self, *_args: object) -> None:
            pass

    with _Server((host, 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        told.url = f"http{'s' if context else ''}://{host}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Commands = Callable[..., Ran]
