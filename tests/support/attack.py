"""Clients that attack a node, and clients that only use it, as programs of their own.

attack.py attack HOST PORT                  until it is terminated
attack.py honest HOST PORT SECONDS [KEY]    prints {"latencies": [seconds...], "failed": [reason...]}
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

POST = "POST /jobs/default HTTP/1.1\r\nHost: localhost\r\n"
HANDSHAKE = (
    "GET /channel/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MEGABYTE = 1024 * 1024

# What honest clients ask for, on connections of their own, each so many times a second.
HONEST = ("/ping", "/jobs", "/jobs/default/web", "/processes/web")
HONEST_RATE = 50


class Experience(NamedTuple):
    """What honest clients got: the latencies of all requests in seconds, sorted, and why some failed."""

    latencies: list[float]
    failed: list[str]

    @property
    def p99(self) -> float:
        return self.latencies[len(self.latencies) * 99 // 100]


@contextmanager
def under_attack(host: str, port: int) -> Iterator[None]:
    """Attack the node while the block runs."""
    with _program("attack", host, port) as attackers:
        assert attackers.stdout is not None
        assert attackers.stdout.readline() == "attacking\n"
        try:
            yield
        finally:
            attackers.terminate()


def use_honestly(host: str, port: int, seconds: float, key: str = "") -> Experience:
    """Use the node for so long, as honest clients do, with a key where it is given."""
    with _program("honest", host, port, seconds, *([key] if key else [])) as clients:
        output, _ = clients.communicate(timeout=seconds + 60)
    assert clients.returncode == 0
    found = json.loads(output)
    return Experience(sorted(found["latencies"]), found["failed"])


def _program(*args: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, __file__, *map(str, args)], stdout=subprocess.PIPE, text=True)


# The attackers. Each sends what it can for as long as the node lets it, and comes back when it is thrown out.


@contextlib.asynccontextmanager
async def _connection(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _trickle(host: str, port: int, start: str) -> None:
    """Begin a request and go on byte by byte."""
    async with _connection(host, port) as (reader, writer):
        writer.write(start.encode())
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.5)


async def send_heads_slowly(host: str, port: int) -> None:
    await _trickle(host, port, "GET /jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")


async def send_bodies_slowly(host: str, port: int) -> None:
    await _trickle(host, port, POST + f"Content-Length: {MEGABYTE}\r\n\r\n")


async def stay_silent(host: str, port: int) -> None:
    async with _connection(host, port) as (reader, _):
        await reader.read()


async def never_read(host: str, port: int) -> None:
    """Ask for more than the buffers between the two take, and don't read it."""
    async with _connection(host, port) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        await asyncio.sleep(5)


async def _post(host: str, port: int, headers: str, body: bytes) -> None:
    async with _connection(host, port) as (reader, writer):
        writer.write((POST + headers + f"Content-Length: {len(body)}\r\n\r\n").encode())
        for start in range(0, len(body), 65536):
            writer.write(body[start : start + 65536])
            await writer.drain()
        await reader.read(65536)


async def send_huge_bodies(host: str, port: int) -> None:
    await _post(host, port, "", b"x" * (12 * MEGABYTE))


async def send_deep_json(host: str, port: int) -> None:
    await _post(host, port, "", b'{"a":[' * (MEGABYTE // 6))


async def send_huge_heads(host: str, port: int) -> None:
    await _post(host, port, "X-Huge: y\r\n" * 10_000, b"")


async def send_nonsense(host: str, port: int) -> None:
    async with _connection(host, port) as (reader, writer):
        writer.write(b"\x16\x03\x01" + b"\r\n\r\n" * 1000)
        await reader.read(65536)
        await asyncio.sleep(0.05)


async def hold_a_websocket(host: str, port: int) -> None:
    """Open a websocket, and never say who it is."""
    async with _connection(host, port) as (reader, writer):
        writer.write(HANDSHAKE.encode())
        await reader.read()


async def hold_a_session(host: str, port: int) -> None:
    """Open a SockJS session, and listen to it."""
    async with _connection(host, port) as (reader, writer):
        writer.write(_open_session("xhr_streaming").encode())
        while await reader.read(65536):
            pass


async def open_sessions(host: str, port: int) -> None:
    """Open one session after the other on one connection."""
    async with _connection(host, port) as (reader, writer):
        answered = True
        while answered:
            writer.write(_open_session("xhr").encode())
            answered = bool(await reader.read(65536))


def _open_session(transport: str) -> str:
    path = f"/channel/0/{uuid4()}/{transport}"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


ATTACKERS: dict[Callable[[str, int], Awaitable[None]], int] = {
    send_heads_slowly: 200,
    send_bodies_slowly: 100,
    stay_silent: 200,
    never_read: 20,
    send_huge_bodies: 3,
    send_deep_json: 3,
    send_huge_heads: 3,
    send_nonsense: 3,
    hold_a_websocket: 200,
    hold_a_session: 100,
    open_sessions: 3,
}


async def _again_and_again(attacker: Callable[[str, int], Awaitable[None]], host: str, port: int) -> None:
    while True:
        try:
            await attacker(host, port)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)


async def _attack(host: str, port: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for attacker, count in ATTACKERS.items():
            for _ in range(count):
                tasks.create_task(_again_and_again(attacker, host, port))
        await asyncio.sleep(0.5)
        print("attacking", flush=True)


# The honest clients


class _Log(NamedTuple):
    latencies: list[float]
    failed: list[str]

    @contextlib.asynccontextmanager
    async def note(self, path: str) -> AsyncIterator[None]:
        """Note how long the block took and why it failed."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(10):
                yield
        except (OSError, EOFError, ValueError) as error:  # a timeout is an OSError
            self.failed.append(f"{path}: {error!r}")
        took = time.perf_counter() - began
        self.latencies.append(took)
        await asyncio.sleep(max(0.0, 1 / HONEST_RATE - took))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, key: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{_key_header(key)}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
    if head.split()[1] != "200":
        raise ValueError(head)


def _key_header(key: str) -> str:
    return f"X-Api-Key: {key}\r\n" if key else ""


async def _use(host: str, port: int, path: str, end: float, log: _Log, key: str) -> None:
    """Ask again and again on one connection."""
    async with _connection(host, port) as (reader, writer):
        while time.monotonic() < end:
            async with log.note(path):
                await _ask(reader, writer, path, key)


async def _use_as_curl_does(host: str, port: int, path: str, end: float, log: _Log, key: str) -> None:
    """Ask again and again, each time on a new connection."""
    while time.monotonic() < end:
        async with log.note(path), _connection(host, port) as (reader, writer):
            await _ask(reader, writer, path, key)


async def _honest(host: str, port: int, seconds: float, key: str) -> None:
    log, end = _Log([], []), time.monotonic() + seconds
    kept = [_use(host, port, path, end, log, key) for path in HONEST]
    await asyncio.gather(*kept, _use_as_curl_does(host, port, "/jobs", end, log, key))
    print(json.dumps(log._asdict()))


if __name__ == "__main__":
    role, host, port, *rest = sys.argv[1:]
    if role == "attack":
        asyncio.run(_attack(host, int(port)))
    else:
        asyncio.run(_honest(host, int(port), float(rest[0]), "".join(rest[1:])))
