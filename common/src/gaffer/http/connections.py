"""The connections of one endpoint: timeouts for each part of a request, displacement when there are too many, and
fair reading of bodies.

Tornado reads the requests (see http1). Its own timeouts are not used: they cover the head of a request only together
with the idle time before it, and close the connection without a response.
"""

import asyncio
import contextvars
import errno
import itertools
import math
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple

from msgspec import Struct, field
from tornado.http1connection import HTTP1ConnectionParameters
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.netutil import ssl_wrap_socket

from gaffer.http.access import Peer, PeerKind
from gaffer.http.authority import network_of
from gaffer.http.http1 import ServerConnection
from gaffer.http.limits import Limits, RequestTimeout
from gaffer.http.quota import Quota
from gaffer.http.rate_limiter import RateLimiter
from gaffer.http.stream import Phase, TLSWireStream, WireStream
from gaffer.http.waiting_room import Arrival, WaitingRoom
from gaffer.runtime import log_lines, tls
from gaffer.runtime.throttled import ThrottledWarnings

_PIECE = 64 * 1024  # bytes of a body that are read at once
_WAITING_AT_ONCE = 16  # connections accepted at once while they only join the waiting room
_LATE_LOOP = 0.05  # seconds of delay after which the loop was busy with something else
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.003  # seconds between two pieces of large bodies, over all clients: this limits them to 20 MB/s
_UNSENT = 64 * 1024  # bytes that the kernel buffers for a slow client, which by default can be megabytes

_numbers = itertools.count(1)  # of connections, in log lines


class Context(NamedTuple):
    """Facts about a connection for Tornado and the policy."""

    remote_ip: str
    protocol: str
    peer: Peer

    def __str__(self) -> str:
        return self.remote_ip


class Traffic(NamedTuple):
    """Numbers of connections: open now, displaced by others, and refused for lack of room."""

    open: int
    displaced: int
    refused: int


class ServedApplication(HTTPServerConnectionDelegate):
    """An application that an Acceptor serves."""

    def trusts(self, peer: Peer) -> bool:
        """Return whether the peer of a connection is authenticated without a key."""
        raise NotImplementedError

    def shows_key(self, head: bytes) -> bool:
        """Return whether the start of a request contains a valid key."""
        raise NotImplementedError


class FairQueue:
    """A queue that resumes its callers one at a time, with a pause in between for other work."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def acquire(self) -> "asyncio.Future[None]":
        """Return a future that is done when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_later(_PAUSE, self._next, loop)
        self._waiting.append(turn)
        return turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # cancelled with its request
            turn.set_result(None)
        if self._waiting:
            loop.call_later(_PAUSE, self._next, loop)


class Shared(Struct, frozen=True):
    """State shared by the endpoints of one server."""

    turns: FairQueue = field(default_factory=FairQueue)
    warnings: ThrottledWarnings = field(default_factory=ThrottledWarnings)


class _Request(HTTPMessageDelegate):
    """The layer between Tornado and the application for one request."""

    def __init__(self, application: HTTPMessageDelegate, stream: WireStream, endpoint: "Acceptor") -> None:
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
        await self._endpoint.turns.acquire()
        taken = self._application.data_received(chunk)
        if taken is not None:
            await taken

    def finish(self) -> None:
        self._endpoint.move(self._stream, Phase.BUSY)
        self._application.finish()

    def on_connection_close(self) -> None:
        self._application.on_connection_close()


class Acceptor(HTTPServerConnectionDelegate):
    """The server of one endpoint, which accepts and limits connections. Use it on the loop.

    A peer is authenticated on accept if the application trusts it, and otherwise by its first authorized request.
    Unauthenticated connections, including websockets, have a quota. While it is full, new ones enter the waiting room,
    except those whose first bytes contain a valid key; each one served from there displaces the victim of the Quota.

    When `max_connections` is reached, a new connection displaces another one, in this order of preference: the victim
    of the Quota, the oldest that has not sent the head of a request, the one idle for longest, the oldest that is
    sending a body or receiving a response. If every connection is being served, the new one is refused. `displaced` and
    `refused` count these connections.
    """

    def __init__(
        self,
        application: ServedApplication,
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
        self._strangers: Quota[WireStream] | None = None
        if limits.max_strangers is not None:
            self._strangers = Quota(limits.strangers(max_connections))
        self._waiting_room = WaitingRoom(
            limits.waiting(max_connections), application.shows_key, self._serve, self._has_room_for_stranger
        )
        self._max_connections = max_connections
        self._tls = context
        self._warnings = shared.warnings
        self._parameters = HTTP1ConnectionParameters(
            max_header_size=limits.max_header, max_body_size=limits.max_body, chunk_size=_PIECE
        )
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._accepts = RateLimiter(limits.accepts_per_second)
        self._paused: asyncio.TimerHandle | None = None
        self._connections: dict[WireStream, ServerConnection] = {}
        self._timeouts = {
            Phase.HEAD: limits.header_timeout,
            Phase.BODY: limits.body_timeout,
            Phase.IDLE: limits.idle_timeout,
            Phase.TAKING: limits.body_timeout,
        }
        # Each phase has one timeout, so each of these is in order of deadline.
        self._waiting: dict[Phase, dict[WireStream, None]] = {phase: {} for phase in self._timeouts}
        self._timer: asyncio.Handle | None = None
        self._checks_at = math.inf

    @property
    def traffic(self) -> "Traffic":
        """Numbers of open, displaced and refused connections."""
        waiting = self._waiting_room
        return Traffic(len(self._connections) + len(waiting), self.displaced, self.refused + waiting.refused)

    def listen(self, listening: socket.socket) -> None:
        """Accept connections on the socket, which `stop` closes."""
        self._sockets.append(listening)
        self._loop.add_reader(listening, self._accept, listening)

    def stop(self) -> None:
        """Stop accepting connections."""
        if self._paused is not None:
            self._paused.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        self._waiting_room.close()

    async def close_connections(self) -> None:
        """Close all connections, including websockets and busy ones, and wait for running requests to end."""
        while self._connections:
            connection = next(iter(self._connections.values()))
            await connection.close()
        if self._timer is not None:
            self._timer.cancel()

    # ConnectionObserver

    def move(self, stream: WireStream, phase: Phase) -> None:
        """Record that the stream enters another phase."""
        self._leave(stream)
        stream.phase = phase
        queue = self._waiting.get(phase)
        if queue is not None and not stream.closed():
            stream.since = self._loop.time()
            queue[stream] = None
            self._watch_until(stream.since + self._timeouts[phase])

    def forget(self, stream: WireStream) -> None:
        """Record that the stream is closed. While a request is being handled, its connection is kept."""
        self._leave(stream)
        if self._timer is not None and not any(self._waiting.values()):
            self._timer.cancel()  # so that an idle daemon is not woken
            self._timer, self._checks_at = None, math.inf
        self.identify(stream, True)
        if stream.detached:
            self._connections.pop(stream, None)

    def identify(self, stream: WireStream, known: bool) -> None:
        """Record whether the caller is authenticated."""
        if self._strangers is None:
            return
        if known:
            self._strangers.discard(stream)
        elif not stream.closed():
            self._strangers.add(stream, stream.source)
            # The proxy of a trusted user was accepted before its requests revealed that it is a proxy.
            if len(self._strangers) > self._strangers.limit and self._strangers.victim is not stream:
                self._displace(f"{self._strangers.limit} connections of unauthenticated callers are open")

    def is_known(self, stream: WireStream) -> bool:
        """Return whether the caller is authenticated, or has no quota."""
        return self._strangers is None or stream not in self._strangers

    # Hooks of Tornado

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(server_conn, ServerConnection)
        stream = server_conn.stream
        assert isinstance(stream, WireStream)
        if stream.phase is not Phase.HEAD:  # of a new connection
            self.move(stream, Phase.IDLE)
        stream.expect_head()
        return _Request(self._application.start_request(server_conn, request_conn), stream, self)

    def on_close(self, server_conn: object) -> None:
        assert isinstance(server_conn, ServerConnection)
        assert isinstance(server_conn.stream, WireStream)
        if server_conn.stream.closed():
            self._connections.pop(server_conn.stream, None)
        else:
            server_conn.stream.detached = True  # it has become a websocket
        if why := tls.explain(server_conn.stream.error):
            assert isinstance(server_conn.context, Context)
            self._warn(f"{server_conn.context.remote_ip}: TLS handshake failed: {why}")

    def _accept(self, listening: socket.socket) -> None:
        """Accept connections until one is served; leave the rest to the next turn of the loop."""
        for _ in range(_WAITING_AT_ONCE):
            if not self._accept_waiting(listening):
                return

    def _accept_waiting(self, listening: socket.socket) -> bool:
        """Accept one connection; return whether it joined the waiting room and more may be accepted."""
        try:
            connection, address = listening.accept()
        except OSError as error:  # usually closed by the client already
            if error.errno in _EXHAUSTED:
                self._displace(f"can't accept connections: {error.strerror}")
            return False
        pause = self._accepts.count(self._loop.time())
        if pause:
            for each in self._sockets:
                self._loop.remove_reader(each)
            self._paused = self._loop.call_later(pause, self._resume)
        arrival = Arrival(connection, address, self._find_peer(connection))
        if not self._must_wait(arrival):
            self._serve(arrival)
            return False
        limit = self.limits.strangers(self._max_connections)
        self._warn(f"{limit} connections of unauthenticated callers are open: new ones have to wait")
        self._waiting_room.add(arrival, source_of(arrival.peer, _ip(address)))
        return not pause

    def _resume(self) -> None:
        """Accept connections again after a pause."""
        self._paused = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _must_wait(self, arrival: Arrival) -> bool:
        """Return whether the arrival is unauthenticated and their quota is full.

        TLS connections never wait, as a key in their first bytes can't be read.
        """
        secured = self._tls is not None and arrival.connection.family != socket.AF_UNIX
        return not (self._has_room_for_stranger() or secured or self._application.trusts(arrival.peer))

    def _has_room_for_stranger(self) -> bool:
        return self._strangers is None or not self._strangers.is_full

    def _serve(self, arrival: Arrival) -> None:
        connection, address, peer = arrival
        known = self._application.trusts(peer)
        if not self._make_room(known):
            connection.close()
            return
        # A unix socket needs no TLS: the kernel authenticates the peer, and nobody can listen in.
        secured = self._tls if connection.family != socket.AF_UNIX else None
        context = Context(_ip(address), "https" if secured else "http", peer)
        try:
            stream = _make_stream(connection, secured)
        except OSError:  # closed by the client already
            connection.close()
            return
        stream.endpoint = self
        stream.source = source_of(peer, context.remote_ip)
        self.identify(stream, known)
        served = self._connections[stream] = ServerConnection(stream, self._parameters, context)
        self.move(stream, Phase.HEAD)
        contextvars.copy_context().run(_serve, served, self)

    def _make_room(self, known: bool) -> bool:
        """Make room for one more connection; return whether there is any."""
        if not known and self._strangers is not None and self._strangers.is_full:
            return self._displace(f"{self._strangers.limit} connections of unauthenticated callers are open")
        if len(self._connections) >= self._max_connections:
            return self._displace(f"{self._max_connections} connections are open")
        return True

    def _displace(self, why: str) -> bool:
        """Close a connection in favour of a new one; return False if every one is being served."""
        victim = self._strangers.victim if self._strangers is not None else None
        if victim is not None:
            self._warn(f"{why}: new ones displace those of unauthenticated callers")
            self.displaced += 1
            victim.close()
            return True
        for phase in (Phase.HEAD, Phase.IDLE, Phase.BODY, Phase.TAKING):
            queue = self._waiting[phase]
            if queue:
                self._warn(f"{why}: new ones displace idle ones")
                self.displaced += 1
                next(iter(queue)).close()
                return True
        self._warn(f"{why}, all in use: refusing new ones")
        self.refused += 1
        return False

    def _warn(self, text: str) -> None:
        self._warnings.warn(text, self._loop.time())

    def _leave(self, stream: WireStream) -> None:
        queue = self._waiting.get(stream.phase)
        if queue is not None:
            queue.pop(stream, None)

    def _watch_until(self, deadline: float) -> None:
        if deadline >= self._checks_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._checks_at = deadline
        self._timer = self._loop.call_at(deadline, self._check)

    def _check(self) -> None:
        if self._loop.time() - self._checks_at > _LATE_LOOP:
            # The loop was busy for long: read first what clients sent in that time.
            self._timer = self._loop.call_later(_LATE_LOOP, self._close_late)
        else:
            self._close_late()

    def _close_late(self) -> None:
        """Close the streams past their deadline, and schedule the next check."""
        self._timer = None
        self._checks_at = math.inf
        for phase, queue in self._waiting.items():
            deadline = self._loop.time() - self._timeouts[phase]
            while queue and (stream := next(iter(queue))).since <= deadline:
                self._leave(stream)
                if stream.has_begun:
                    stream.refuse(RequestTimeout(f"the request was not complete after {self._timeouts[phase]:g} s"))
                else:
                    stream.close()
            if queue:
                self._watch_until(next(iter(queue)).since + self._timeouts[phase])


def caller_of(peer: Peer, remote_ip: str) -> Hashable:
    """Return the identity of a caller across connections: the user on this host, else the address."""
    return remote_ip if peer.kind is PeerKind.REMOTE or peer.uid is None else (peer.kind, peer.uid)


def source_of(peer: Peer, remote_ip: str) -> Hashable:
    """Like `caller_of`, but for a remote IPv6 address its /64 network, since one host can have all of its addresses."""
    return network_of(remote_ip) if peer.kind is PeerKind.REMOTE else caller_of(peer, remote_ip)


def stream_of(request: HTTPServerRequest) -> WireStream | None:
    """Return the stream of the request's connection; None if it was not accepted here or is closed."""
    stream = getattr(request.connection, "stream", None)
    return stream if isinstance(stream, WireStream) else None


def mark_caller(stream: WireStream | None, known: bool) -> None:
    """Record whether the caller on the stream of a connection is authenticated."""
    if stream is not None:
        stream.endpoint.identify(stream, known)


def is_known(stream: WireStream | None) -> bool:
    """Return whether the caller on the stream of a connection is authenticated."""
    return stream is not None and stream.endpoint.is_known(stream)


def answered(request: HTTPServerRequest) -> None:
    """Record that the handler of the request is done."""
    stream = stream_of(request)
    if stream is not None:
        stream.endpoint.move(stream, Phase.TAKING)


def _make_stream(connection: socket.socket, secured: ssl.SSLContext | None) -> WireStream:
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    if secured is None:
        return WireStream(connection)
    return TLSWireStream(ssl_wrap_socket(connection, secured, server_side=True, do_handshake_on_connect=False))


def _ip(address: Any) -> str:
    """Return the address of a TCP peer; for other peers 0.0.0.0, as Tornado does."""
    return address[0] if isinstance(address, tuple) else "0.0.0.0"


def _serve(connection: ServerConnection, delegate: HTTPServerConnectionDelegate) -> None:
    """Serve a connection in a task whose log lines have its number."""
    log_lines.connection.set(next(_numbers))
    connection.start_serving(delegate)
