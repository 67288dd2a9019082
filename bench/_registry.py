"""Fast clients for registries: requests in a closed loop over plain sockets, and thousands of nodes."""

import asyncio
import base64
import json
import os
import random
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

ENDPOINT = {"name": "http", "address": "10.0.0.7", "port": 8000}

Address = tuple[str, int]


# Frames and requests


def frame(message: dict[str, Any] | str) -> bytes:
    """Return a masked websocket text frame (RFC 6455); the mask is zero, so the payload is the plain text."""
    data = (message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))).encode()
    size = len(data)
    if size < 126:
        head = struct.pack(">BB", 0x81, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", 0x81, 0x80 | 127, size)
    return head + b"\0\0\0\0" + data


def frames(buffer: bytearray, most: int = 1000) -> list[bytes]:
    """Remove at most `most` text frames from the data received from a server; return their payloads."""
    found: list[bytes] = []
    while len(buffer) >= 2 and len(found) < most:
        is_text, size, start = buffer[0] & 0x0F == 1, buffer[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < start + size:
            break
        if is_text:
            found.append(bytes(buffer[start : start + size]))
        del buffer[: start + size]
    return found


def handshake(address: Address, path: str) -> bytes:
    """Return the request that opens a websocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def connect(address: Address) -> socket.socket:
    """Open a TCP connection with TCP_NODELAY."""
    sock = socket.create_connection(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def open_websocket(address: Address, path: str) -> socket.socket:
    """Open a websocket."""
    sock = connect(address)
    sock.sendall(handshake(address, path))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return sock


def receive_frame(sock: socket.socket, buffer: bytearray) -> bytes:
    """Receive the next frame; keep further data in `buffer`."""
    while not (found := frames(buffer, 1)):
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        buffer += data
    return found[0]


def post(path: str, body: dict[str, Any]) -> bytes:
    """Return a POST request with a JSON body."""
    data = json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        len(data),
        data,
    )


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


# Complete responses


def http_answered(buffer: bytearray) -> bool:
    """Return whether `buffer` holds a complete response with status 200 and a Content-Length."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return False
    assert buffer.startswith(b"HTTP/1.1 200"), buffer[:200]
    head = buffer[:end].lower()
    at = head.index(b"content-length:") + 15
    length = int(head[at:].split(b"\r\n", 1)[0])
    return len(buffer) >= end + 4 + length


def redis_answered(buffer: bytearray) -> bool:
    """Return whether `buffer` holds a complete RESP simple string, number or bulk string."""
    if not buffer.endswith(b"\r\n"):
        return False
    return buffer[:1] != b"$" or buffer.count(b"\r\n") >= 2


def frame_answered(buffer: bytearray) -> bool:
    """Return whether `buffer` holds a complete short frame that acknowledges a message."""
    if len(buffer) < 2 or len(buffer) < 2 + (buffer[1] & 0x7F):
        return False
    assert b'"ok":true' in buffer, bytes(buffer)
    return True


def closed_loop(
    sockets: Sequence[socket.socket],
    requests: Callable[[int, int], bytes],
    answered: Callable[[bytearray], bool],
    seconds: float,
) -> float:
    """Return the responses per second with one outstanding request on each socket.

    `requests(number, before)` returns the next request of socket `number`, which has sent `before` requests.
    """
    selector = selectors.DefaultSelector()
    received = [bytearray() for _ in sockets]
    counts = [0] * len(sockets)
    for number, sock in enumerate(sockets):
        selector.register(sock, selectors.EVENT_READ, number)
    began = time.perf_counter()
    end, done = began + seconds, 0
    for number, sock in enumerate(sockets):
        sock.sendall(requests(number, 0))
    while time.perf_counter() < end:
        for key, _ in selector.select(1):
            number = key.data
            received[number] += sockets[number].recv(65536)
            if answered(received[number]):
                done += 1
                counts[number] += 1
                received[number].clear()
                sockets[number].sendall(requests(number, counts[number]))
    took = time.perf_counter() - began
    selector.close()
    return done / took


# Nodes


class Node(asyncio.Protocol):
    """A node with its jobs: identify, send a snapshot, ping at the interval, and reconnect when disconnected."""

    def __init__(self, fleet: "Fleet", number: int) -> None:
        self._fleet = fleet
        self._number = number
        self._buffer = bytearray()
        self._open = False
        self._transport: Any = None
        self._pinging: asyncio.TimerHandle | None = None
        self.window = 1.0
        self.interval = 15.0

    def connect(self) -> None:
        """Connect; retry later on failure."""
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        self._buffer.clear()
        self._open = False
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, *self._fleet.address)
        except OSError as error:
            self._fleet.failed(error)
            self._later()

    def _later(self) -> None:
        delay = random.uniform(0, min(self.window, 20.0))
        asyncio.get_running_loop().call_later(delay, self.connect)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(handshake(self._fleet.address, "/ws"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            del self._buffer[: end + 4]
            self._open = True
            self._fleet.accepted.append(time.time())
            self._transport.write(frame(self._fleet.identity(self._number)))
        for text in frames(self._buffer):
            self._answered(json.loads(text))

    def _answered(self, reply: dict[str, Any]) -> None:
        assert reply.get("ok"), reply
        self.window = reply.get("reconnect_window", self.window)
        if reply["msgid"] == "identify":
            self.interval = reply["interval"]
            self._transport.write(self._fleet.table(self._number))
        elif reply["msgid"] == "snapshot":
            self._fleet.there += 1
            first = random.uniform(0, self.interval)
            self._pinging = asyncio.get_running_loop().call_later(first, self._ping)

    def _ping(self) -> None:
        self._transport.write(self._fleet.ping)
        self._fleet.pings += 1
        self._pinging = asyncio.get_running_loop().call_later(self.interval, self._ping)

    def connection_lost(self, error: Exception | None) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
            self._fleet.there -= 1
        self._later()


class Fleet:
    """Nodes `first` to `first + count` with `jobs` jobs each, and counters of their connections and PINGs."""

    def __init__(self, address: Address, first: int, count: int, jobs: int) -> None:
        self.address = address
        self._first = first
        self._count = count
        self._jobs = jobs
        self.ping = frame({"msgid": "ping", "type": "PING", "seq": 1})
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.there = 0
        self.pings = 0

    def identity(self, number: int) -> dict[str, Any]:
        """Return the IDENTIFY message of a node."""
        name = f"node{self._first + number}"
        return {
            "msgid": "identify",
            "type": "IDENTIFY",
            "name": name,
            "origin": f"http://{name}:5000",
            "version": "0.1",
            "id": f"{self._first + number:032x}",
            "incarnation": 1,
            "labels": {"zone": "a"},
        }

    def table(self, number: int) -> bytes:
        """Return the SNAPSHOT frame of a node; each group of ten consecutive nodes has the same jobs."""
        process = {"pid": 1, "state": "ready", "endpoints": [ENDPOINT]}
        jobs = {f"app{(self._first + number) // 10}.job{job}": [process] for job in range(self._jobs)}
        return frame({"msgid": "snapshot", "type": "SNAPSHOT", "seq": 1, "jobs": jobs})

    def failed(self, error: OSError) -> None:
        """Record a failed connection attempt."""
        self.refused.append(time.time())

    async def run(self, per_second: float, pipe: Any) -> None:
        """Connect `per_second` nodes per second, and answer requests of the parent until it sends "stop"."""
        nodes = [Node(self, number) for number in range(self._count)]
        loop = asyncio.get_running_loop()
        for number, node in enumerate(nodes):
            loop.call_later(number / per_second, node.connect)
        asked = asyncio.Event()
        loop.add_reader(pipe.fileno(), asked.set)
        while True:
            await asked.wait()
            asked.clear()
            if pipe.recv() == "stop":
                return
            pipe.send((self.there, self.pings, self.accepted, self.refused))
            self.accepted, self.refused = [], []


def run_fleet(address: Address, first: int, count: int, jobs: int, per_second: float, pipe: Any) -> None:
    """Main function of a client process."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Fleet(address, first, count, jobs).run(per_second, pipe))


def send_on_request(url: str, texts: Sequence[str], answers: bool, pipe: Any) -> None:
    """Main function of a process with one websocket: send a message on each request, and return the time of sending."""
    import uvloop
    from tornado.websocket import websocket_connect

    async def send() -> None:
        node = await websocket_connect(url)
        requested = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), requested.set)
        pipe.send("connected")
        for text in texts:
            await requested.wait()
            requested.clear()
            pipe.recv()
            began = time.perf_counter()
            await node.write_message(text)
            if answers:
                await node.read_message()
            pipe.send(began)
        node.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send())
