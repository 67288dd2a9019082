"""A server whose connections follow a script: for clients that must survive what real servers do rarely."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

Play = Callable[["Visit"], object]


@dataclass
class Visit:
    """One connection of a client: `head` is its request line and headers, `path` what it asked for."""

    sock: socket.socket
    head: str

    @property
    def path(self) -> str:
        return self.head.split()[1]

    def header(self, name: str) -> str | None:
        """The value of a header, None when it was not sent."""
        for line in self.head.splitlines()[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def wait_for_end(self) -> None:
        """Read until the client goes away."""
        while self.sock.recv(65536):
            pass


@dataclass
class Scripted:
    """A running server: `url`, and each visit so far."""

    url: str
    visits: list[Visit] = field(default_factory=list)


@contextmanager
def scripted_server(*plays: Play, greet: bool = True) -> Iterator[Scripted]:
    """Serve the first connection with the first play and so on; what comes after the last is closed at once.

    A play that raises fails the test. Unless `greet`, it has to read the head of the request itself.
    """
    waiting = iter(plays)
    with ThreadPoolExecutor(1) as threads, socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        server = Scripted(f"http://{host}:{port}")
        serving = threads.submit(_serve, listener, server, waiting, greet)
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
        serving.result()


def _serve(listener: socket.socket, server: Scripted, waiting: Iterator[Play], greet: bool) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:  # the end of the test
            return
        with sock:
            try:
                visit = Visit(sock, _head(sock) if greet else "")
                server.visits.append(visit)
                next(waiting, lambda visit: None)(visit)
            except ConnectionError:
                continue


def _head(sock: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1)
        if not more:
            raise ConnectionError
        data += more
    return data.decode()


def events(*texts: str, hold: bool = False, head: str = "Content-Type: text/event-stream\r\n") -> Play:
    """A play that sends these texts as a stream of events, then ends it, or holds it until the client goes away."""

    def play(visit: Visit) -> None:
        visit.send(f"HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n")
        for text in texts:
            visit.send(f"{len(text.encode()):x}\r\n{text}\r\n")
        if hold:
            visit.wait_for_end()
        else:
            visit.send("0\r\n\r\n")

    return play


def answer(status: int, body: str = "") -> Play:
    """A play that answers so and closes."""

    def play(visit: Visit) -> None:
        visit.send(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}")

    return play
