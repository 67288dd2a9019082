"""A websocket client (RFC 6455) that does just what it is told: broken frames too, and no answers to pings."""

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from support.http_node import Exchange, open_exchange

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Closed(Exception):
    """The server closed the connection; `code` is 1006 when it sent no close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


@dataclass
class WebSocket:
    """One open connection."""

    exchange: Exchange
    answers_pings: bool = True
    pings: int = 0

    async def send_frame(self, opcode: int, data: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame; continuation frames have the opcode 0."""
        mask = os.urandom(4)
        size = len(data)
        head = bytes([opcode | 0x80 * fin])
        if size < 126:
            head += bytes([0x80 | size])
        else:
            head += struct.pack("!BH", 0x80 | 126, size) if size < 1 << 16 else struct.pack("!BQ", 0x80 | 127, size)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)) if size < 4096 else _mask(mask, data)
        self.exchange.writer.write(head + mask + masked)
        await self.exchange.writer.drain()

    async def send(self, message: str | bytes) -> None:
        """Send a text or a binary message."""
        data = message.encode() if isinstance(message, str) else message
        await self.send_frame(TEXT if isinstance(message, str) else BINARY, data)

    async def receive(self) -> str | bytes:
        """The next message; raises Closed."""
        while True:
            try:
                opcode, data = await self._read_frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Closed(1006) from None
            if opcode in (TEXT, BINARY):
                return data.decode() if opcode == TEXT else data
            if opcode == CLOSE:
                code, reason = (struct.unpack("!H", data[:2])[0], data[2:].decode()) if data else (1005, "")
                with suppress(ConnectionError):
                    await self.send_frame(CLOSE, data)
                raise Closed(code, reason)
            if opcode == PING:
                self.pings += 1
                if self.answers_pings:
                    await self.send_frame(PONG, data)

    async def receive_json(self) -> Any:
        """The next message as JSON."""
        return json.loads(await self.receive())

    async def receive_until(self, end: bytes) -> bytes:
        """All messages as one, until that ends with `end`."""
        received = b""
        while not received.endswith(end):
            received += await self._receive_bytes()
        return received

    async def receive_size(self, size: int) -> bytes:
        """All messages as one, until that has so many bytes."""
        received = b""
        while len(received) < size:
            received += await self._receive_bytes()
        return received

    async def closing(self) -> Closed:
        """What the server says when it closes; messages before that are thrown away."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed

    async def _receive_bytes(self) -> bytes:
        message = await self.receive()
        return message.encode() if isinstance(message, str) else message

    async def _read_frame(self) -> tuple[int, bytes]:
        reader = self.exchange.reader
        first, size = await reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await reader.readexactly(8))
        return first & 0x0F, await reader.readexactly(size)


def _mask(mask: bytes, data: bytes) -> bytes:
    number = int.from_bytes(data, "big") ^ int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
    return number.to_bytes(len(data), "big")


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@asynccontextmanager
async def connected(
    address: str, path: str, headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[WebSocket]:
    """A connection to `http://host:port` or `unix:/path`; all that is done with it must be done within 20 s."""
    async with asyncio.timeout(20):
        exchange = await open_exchange(address, "GET", path, None, {**HANDSHAKE, **(headers or {})})
        try:
            assert exchange.status == 101, exchange
            yield WebSocket(exchange, **options)
        finally:
            if exchange.writer.transport.get_write_buffer_size():  # which the other end may never take
                exchange.writer.transport.abort()
            exchange.close()
            with suppress(OSError):
                await exchange.writer.wait_closed()  # raises what broke the connection, once more
