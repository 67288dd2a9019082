"""The connections of one endpoint: how long each part of a request may take, who gives way when there are too many,
whose turn it is to send a body, and what is answered to what is not HTTP.

Tornado reads the requests (HTTP1Connection). Its own timeouts are not used: they bound the head of a request only
together with the pause before it, and close without an answer.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, NamedTuple

from tornado.http1connection import HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream, UnsatisfiableReadError
from tornado.netutil import add_accept_handler, ssl_wrap_socket

from gaffer import tls
from gaffer.complaints import Complaints
from gaffer.errors import GafferError
from gaffer.http.access import Peer
from gaffer.http.limits import HeaderTooLarge, Limits, MalformedRequest, RequestTimeout

_PIECE = 64 * 1024  # bytes of a body that are taken at once
_DRAINED = 1024 * 1024  # bytes that have come already and are read before a connection is closed

# All that Tornado itself ever says of a malformed request.
_BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 "


class Phase(Enum):
    """What a connection is doing, as far as that may not take for ever."""

    HEAD = "head"  # also new connections, which nothing has come on
    BODY = "body"
    IDLE = "idle"  # between two requests
    BUSY = "busy"  # being answered; a websocket stays so


class Traffic(NamedTuple):
    """Connections: how many are open now, had to make room for others, and found none."""

    open: int
    displaced: int
    refused: int


class Context(NamedTuple):
    """What Tornado and the policy want to know of a connection."""

    remote_ip: str
    protocol: str
    peer: Peer

    def __str__(self) -> str:
        return self.remote_ip


class _Watched(IOStream):
    """A stream that reports to its endpoint."""

    endpoint: "Endpoint"
    phase = Phase.BUSY
    since = 0.0  # when the phase began, in the loop's time
    heard = False  # whether anything came of the request that is awaited
    answering = False  # whether anything was written in answer to it
    _lines = 0  # of its head
    _head_ended = False

    def expect_head(self) -> None:
        """The next request is awaited."""
        self.heard = self.answering = self._head_ended = False
        self._lines = 0

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        if count and not self._head_ended and self.phase in (Phase.HEAD, Phase.IDLE):
            self._note_head(bytes(memoryview(buf)[:count]))
        return count

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        if data == _BARE_REFUSAL:
            data = b"" if self.answering else raw_answer(MalformedRequest())
        if not self.answering and data[: len(_CONTINUE)] != _CONTINUE:
            self.answering = True
        return super().write(data)

    def refuse(self, error: GafferError) -> None:
        """Answer an error, unless an answer is under way, and close."""
        if not self.answering:
            self.write(raw_answer(error))
        self.close()

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError) and not self.answering and not self.closed():
            in_head = self.phase in (Phase.HEAD, Phase.IDLE)
            self.write(raw_answer(HeaderTooLarge(self.endpoint.limits) if in_head else MalformedRequest()))
        if self.closed():
            return
        if self.phase is not Phase.BUSY:
            self._drain()
        super().close(exc_info)
        self.endpoint.forget(self)

    def _note_head(self, piece: bytes) -> None:
        if self.phase is Phase.IDLE:
            self.endpoint.move(self, Phase.HEAD)
        self.heard = True
        end = piece.find(b"\n\r\n")
        self._head_ended = end >= 0
        self._lines += piece.count(b"\n", 0, end if end >= 0 else len(piece))
        if self._lines > self.endpoint.limits.max_header_lines:
            raise UnsatisfiableReadError("too many lines")

    def _drain(self) -> None:
        """Read what has come: closing with it unread would reset the connection, and the answer might get lost."""
        with contextlib.suppress(OSError):
            for _ in range(_DRAINED // _PIECE):
                if not self.socket.recv(_PIECE):
                    break


class _PlainStream(_Watched):
    pass


class _TLSStream(_Watched, SSLIOStream):
    pass


class Turns:
    """Lets those who wait go on one by one, one in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> "asyncio.Future[None]":
        """A future that is done when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._next, loop)
        self._waiting.append(turn)
        return turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # cancelled with its request
            turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._next, loop)


@dataclass(frozen=True)
class Shared:
    """What the endpoints of one server have in common."""

    turns: Turns = field(default_factory=Turns)
    complaints: Complaints = field(default_factory=Complaints)


class _Request(HTTPMessageDelegate):
    """Stands between Tornado and the application for one request."""

    def __init__(self, application: HTTPMessageDelegate, stream: _Watched, endpoint: "Endpoint") -> None:
        self._application = application
        self._stream = stream
        self._endpoint = endpoint
        self._received = 0

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._endpoint.move(self._stream, Phase.BODY)
        return self._application.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._received += len(chunk)
        if self._received <= _PIECE:
            return self._application.data_received(chunk)
        return self._take_turn(chunk)

    async def _take_turn(self, chunk: bytes) -> None:
        await self._endpoint.turns.take()
        taken = self._application.data_received(chunk)
        if taken is not None:
            await taken

    def finish(self) -> None:
        self._endpoint.move(self._stream, Phase.BUSY)
        self._application.finish()

    def on_connection_close(self) -> None:
        self._application.on_connection_close()


class Endpoint(HTTPServerConnectionDelegate):
    """Accepts connections and serves them. To be used on the loop.

    When there are as many as allowed, a new one takes the place of another: of the oldest that has not sent the head
    of a request, else of the one idle for longest, else of the oldest that is sending a body. When all are being
    answered, the new one is closed. `displaced` and `refused` count both.
    """

    def __init__(
        self,
        application: HTTPServerConnectionDelegate,
        find_peer: Callable[[socket.socket], Peer],
        limits: Limits,
        max_connections: int,
        shared: "Shared",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.turns = shared.turns
        self.displaced = 0
        self.refused = 0
        self._application = application
        self._find_peer = find_peer
        self._max_connections = max_connections
        self._tls = context
        self._complaints = shared.complaints
        self._parameters = HTTP1ConnectionParameters(
            max_header_size=limits.max_header, max_body_size=limits.max_body, chunk_size=_PIECE
        )
        self._loop = asyncio.get_running_loop()
        self._sockets: list[tuple[socket.socket, Callable[[], None]]] = []
        self._connections: dict[_Watched, HTTP1ServerConnection] = {}
        self._timeouts = {
            Phase.HEAD: limits.header_timeout,
            Phase.BODY: limits.body_timeout,
            Phase.IDLE: limits.idle_timeout,
        }
        # One phase has one timeout, so each of these is in the order in which the streams will be late.
        self._waiting: dict[Phase, dict[_Watched, None]] = {phase: {} for phase in self._timeouts}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def traffic(self) -> "Traffic":
        """The connections that are open, and how many had to give way or were refused so far."""
        return Traffic(len(self._connections), self.displaced, self.refused)

    def listen(self, listening: socket.socket) -> None:
        """Accept connections on the socket, which is closed by `stop`."""
        self._sockets.append((listening, add_accept_handler(listening, self._accept)))

    def stop(self) -> None:
        """Accept no more."""
        for listening, remove in self._sockets:
            remove()
            listening.close()
        self._sockets.clear()

    async def close_connections(self) -> None:
        """Close all connections, websockets too, whatever they are doing."""
        while self._connections:
            connection = next(iter(self._connections.values()))
            await connection.close()
        if self._timer is not None:
            self._timer.cancel()

    # What streams report

    def move(self, stream: _Watched, phase: Phase) -> None:
        """The stream begins another phase."""
        self._leave(stream)
        stream.phase = phase
        queue = self._waiting.get(phase)
        if queue is not None:
            stream.since = self._loop.time()
            queue[stream] = None
            self._watch_until(stream.since + self._timeouts[phase])

    def forget(self, stream: _Watched) -> None:
        """The stream is closed."""
        self._leave(stream)
        self._connections.pop(stream, None)

    # Hooks of Tornado

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(server_conn, HTTP1ServerConnection)
        stream = server_conn.stream
        assert isinstance(stream, _Watched)
        if stream.phase is Phase.BUSY:
            self.move(stream, Phase.IDLE)
        stream.expect_head()
        return _Request(self._application.start_request(server_conn, request_conn), stream, self)

    def on_close(self, server_conn: object) -> None:
        assert isinstance(server_conn, HTTP1ServerConnection)
        if why := tls.explain(server_conn.stream.error):
            assert isinstance(server_conn.context, Context)
            self._complain(f"{server_conn.context.remote_ip}: no TLS connection: {why}")

    def _accept(self, connection: socket.socket, address: Any) -> None:
        if len(self._connections) >= self._max_connections and not self._displace():
            connection.close()
            return
        context = Context(_ip(address), "https" if self._tls else "http", self._find_peer(connection))
        try:
            stream = self._make_stream(connection)
        except OSError:  # it is gone already
            connection.close()
            return
        stream.endpoint = self
        served = self._connections[stream] = HTTP1ServerConnection(stream, self._parameters, context)
        self.move(stream, Phase.HEAD)
        served.start_serving(self)

    def _make_stream(self, connection: socket.socket) -> _Watched:
        if self._tls is None:
            return _PlainStream(connection)
        wrapped = ssl_wrap_socket(connection, self._tls, server_side=True, do_handshake_on_connect=False)
        return _TLSStream(wrapped)

    def _displace(self) -> bool:
        """Close a connection in favour of a new one; False when each is being answered."""
        for phase in (Phase.HEAD, Phase.IDLE, Phase.BODY):
            queue = self._waiting[phase]
            if queue:
                self._complain(f"{self._max_connections} connections are open: new ones displace those that wait")
                self.displaced += 1
                next(iter(queue)).close()
                return True
        self._complain(f"{self._max_connections} connections are open and in use: more are refused")
        self.refused += 1
        return False

    def _complain(self, text: str) -> None:
        self._complaints.warn(text, self._loop.time())

    def _leave(self, stream: _Watched) -> None:
        queue = self._waiting.get(stream.phase)
        if queue is not None:
            queue.pop(stream, None)

    def _watch_until(self, deadline: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._end_late)

    def _end_late(self) -> None:
        """Close what is late, and look again when the next one will be."""
        self._timer = None
        for phase, queue in self._waiting.items():
            deadline = self._loop.time() - self._timeouts[phase]
            while queue and (stream := next(iter(queue))).since <= deadline:
                if stream.heard:
                    stream.refuse(RequestTimeout(f"the request was not complete after {self._timeouts[phase]:g} s"))
                else:
                    stream.close()
            if queue:
                self._watch_until(next(iter(queue)).since + self._timeouts[phase])


def raw_answer(error: GafferError) -> bytes:
    """The answer to what no handler will answer."""
    body = error.to_json()
    head = (
        f"HTTP/1.1 {error.errno} {HTTPStatus(error.errno).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _ip(address: Any) -> str:
    """The address of a TCP peer; others get the one that Tornado gives them."""
    return address[0] if isinstance(address, tuple) else "0.0.0.0"
