"""A server that takes webhooks, for tests."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """A server that takes webhooks: `events` by path, as `(content type, JSON document)`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.authorization: str | None = None
        self.open = threading.Event()  # while it is not set, requests wait
        self.open.set()
        self.statuses: list[int] = []  # of the next responses, before `status`
        self.fields: dict[str, str] = {"Location": "/elsewhere"}  # of the responses
        self.headers: list[dict[str, str]] = []  # of the requests, as they came
        self.bodies: list[bytes] = []
        self.connections = 0
        self.events: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def names(self, path: str) -> list[str]:
        return [event["event"] for _, event in self.events.get(path, [])]


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for them

    def handle_error(self, *_: object) -> None:
        """A client that went away."""


@contextmanager
def receiver(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        wbufsize = -1
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            found.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.events.setdefault(self.path, []).append((self.headers["Content-Type"], json.loads(body)))
            found.headers.append(dict(self.headers))
            found.bodies.append(body)
            found.authorization = self.headers["Authorization"]
            found.open.wait(10)
            self.send_response(found.statuses.pop(0) if found.statuses else found.status)
            for name, value in found.fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_port}")
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            found.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            found.open.set()
            server.shutdown()
            thread.join()
