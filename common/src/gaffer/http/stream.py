"""The stream of a connection: tracks the progress of requests, and rejects those that reach no handler."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Hashable
from enum import IntEnum, auto
from http import HTTPStatus
from typing import Any, Protocol

from tornado.httputil import format_timestamp
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError

from gaffer.errors import GafferError
from gaffer.http.limits import FRAMING, HeaderTooLarge, Limits, MalformedRequest

_PIECE = 64 * 1024  # bytes that are read at once
_DRAINED = 1024 * 1024  # bytes already received that are read before a connection is closed

# Tornado's whole response to a malformed request.
_BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
_TLS_HANDSHAKE = b"\x16\x03"  # a record of type handshake and its version, RFC 8446 section 5.1
_CONTINUE = b"HTTP/1.1 100 "

# The end of a head; empty lines before the first line do not count (RFC 9112 section 2.2).
_HEAD_END = rb"\n(?:(?<=[^\r\n]\n)|(?<=[^\r\n]\r\n)|(?<=\r\r\n))\r?\n"


class Phase(IntEnum):
    """The state of a connection, by which its timeout is chosen."""

    HEAD = auto()  # including new connections that have received nothing
    BODY = auto()
    IDLE = auto()  # between two requests
    BUSY = auto()  # being handled; websockets stay in this phase
    TAKING = auto()  # handled; the client is still receiving the response


class ConnectionObserver(Protocol):
    """Observer of a stream."""

    limits: Limits

    def move(self, stream: "WireStream", phase: Phase) -> None:
        """Record that the stream enters another phase."""

    def forget(self, stream: "WireStream") -> None:
        """Record that the stream is closed."""

    def identify(self, stream: "WireStream", known: bool) -> None:
        """Record whether the caller is authenticated."""

    def is_known(self, stream: "WireStream") -> bool:
        """Return whether the caller is authenticated, or has no quota."""


class WireStream(IOStream):
    """A stream that reports to its observer, `endpoint`."""

    endpoint: ConnectionObserver
    source: Hashable = None  # of the connection
    phase = Phase.BUSY
    since = 0.0  # when the phase began, in the loop's time
    has_begun = False  # whether any bytes of the next request were received
    detached = False  # whether it became a websocket
    answering = False  # whether any bytes of the response were written
    refusal: GafferError = MalformedRequest()  # the response to a request that Tornado rejects as malformed
    _lines = 0  # of the head
    _head_ended = False

    def expect_head(self) -> None:
        """Expect the head of the next request."""
        self.has_begun = self.answering = self._head_ended = False
        self._lines = 0

    def set_nodelay(self, value: bool) -> None:
        """Do nothing: the endpoint has set TCP_NODELAY, which Tornado would toggle for each response."""

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Read a head for Tornado. Heads received before the client disconnected are dropped."""
        if self.closed():
            raise StreamClosedError(self.error)
        return super().read_until_regex(_HEAD_END, max_bytes)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        if count and not self._head_ended and self.phase in (Phase.HEAD, Phase.IDLE):
            # Bytes beyond the limit make the head too large in any case.
            self._record_head(bytes(memoryview(buf)[: min(count, self.endpoint.limits.max_header)]))
        return count

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        if data == _BARE_REFUSAL:
            data = b"" if self.answering else raw_answer(self.refusal)
        if not self.answering and data[: len(_CONTINUE)] != _CONTINUE:
            self.answering = True
        return super().write(data)

    def refuse(self, error: GafferError) -> None:
        """Send an error, unless a response has begun, and close."""
        if not self.answering:
            self.write(raw_answer(error))
        self.close()

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError) and not self.answering and not self.closed():
            in_head = self.phase in (Phase.HEAD, Phase.IDLE)
            self.write(raw_answer(HeaderTooLarge(self.endpoint.limits) if in_head else MalformedRequest()))
        if self.closed():
            return
        if self.phase not in (Phase.BUSY, Phase.TAKING):
            self.read_available()
        super().close(exc_info)
        self.endpoint.forget(self)

    def _record_head(self, piece: bytes) -> None:
        if not self.has_begun and piece.startswith(_TLS_HANDSHAKE):
            raise UnsatisfiableReadError("TLS on a plain HTTP port")
        if self.phase is Phase.IDLE:
            self.endpoint.move(self, Phase.HEAD)
        self.has_begun = True
        if not self._lines:
            piece = piece.lstrip(b"\r\n")
        end = piece.find(b"\n\r\n")
        self._head_ended = end >= 0
        self._lines += piece.count(b"\n", 0, end if end >= 0 else len(piece))
        if self._lines > self.endpoint.limits.max_header_lines:
            raise UnsatisfiableReadError("too many lines")

    def read_available(self) -> None:
        """Discard received bytes: left unread, they would make `close` reset the connection and lose the response."""
        if self.closed():
            return
        with contextlib.suppress(OSError):
            for _ in range(_DRAINED // _PIECE):
                if not self.socket.recv(_PIECE):
                    break


class TLSWireStream(WireStream, SSLIOStream):
    """A WireStream over TLS."""


def raw_answer(error: GafferError) -> bytes:
    """Return the full response for an error outside any handler."""
    body = error.to_json()
    head = (
        f"HTTP/1.1 {error.errno} {HTTPStatus(error.errno).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Date: {format_timestamp(time.time())}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"Content-Security-Policy: {FRAMING}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
