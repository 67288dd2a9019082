"""The connections of one endpoint: how long each part of a request may take, who gives way when there are too many,
and whose turn it is to send a body.

Tornado reads the requests (see http1). Its own timeouts are not used: they bound the head of a request only
together with the pause before it, and close without an answer.
"""

import asyncio
import errno
import math
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
from gaffer.runtime import tls
from gaffer.runtime.throttled import ThrottledWarnings

_PIECE = 64 * 1024  # bytes of a body that are taken at once
_WAITING_AT_ONCE = 16  # connections that are accepted at once, when they only wait
_HELD_UP = 0.05  # seconds
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.003  # seconds between two pieces of large bodies, whosever they are: they come with 20 MB/s at most
_UNSENT = 64 * 1024  # bytes that the system keeps for a client who doesn't take them; it would keep megabytes


class Context(NamedTuple):
    """What Tornado and the policy want to know of a connection."""

    remote_ip: str
    protocol: str
    peer: Peer

    def __str__(self) -> str:
        return self.remote_ip


class Traffic(NamedTuple):
    """Connections: how many are open now, had to make room for others, and found none."""

    open: int
    displaced: int
    refused: int


class ServedApplication(HTTPServerConnectionDelegate):
    """What an Acceptor serves."""

    def trusts(self, peer: Peer) -> bool:
        """Whether the peer of a connection is known without a key."""
        raise NotImplementedError

    def shows_key(self, head: bytes) -> bool:
        """Whether the beginning of a request shows a valid key."""
        raise NotImplementedError


class FairQueue:
    """Lets those who wait go on one by one, with a pause between them in which others are served."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def acquire(self) -> "asyncio.Future[None]":
        """A future that is done when it is the caller's turn."""
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


@dataclass(frozen=True)
class Shared:
    """What the endpoints of one server have in common."""

    turns: FairQueue = field(default_factory=FairQueue)
    complaints: ThrottledWarnings = field(default_factory=ThrottledWarnings)


class _Request(HTTPMessageDelegate):
    """Stands between Tornado and the application for one request."""

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
    """Accepts connections and serves them. To be used on the loop.

    The application says whether a peer is known before it asks for anything; others are once a request of theirs has
    passed the gate. Those that are not known have a quota of their own, whatever they do, websockets included: over it,
    new ones wait for their turn, when the one of them that the Quota names gives way; those that show a key at once
    don't wait. It also gives way first when there are as many connections as allowed.
    Without any, a new one takes the place of the oldest that has not sent the head of a request, else of the one idle
    for longest, else of the oldest that is sending a body or taking an answer. When all are being answered, the new one
    is closed. `displaced` and `refused` count both.
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
        self._complaints = shared.complaints
        self._parameters = HTTP1ConnectionParameters(
            max_header_size=limits.max_header, max_body_size=limits.max_body, chunk_size=_PIECE
        )
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._accepts = RateLimiter(limits.accepts_per_second)
        self._resting: asyncio.TimerHandle | None = None
        self._connections: dict[WireStream, ServerConnection] = {}
        self._timeouts = {
            Phase.HEAD: limits.header_timeout,
            Phase.BODY: limits.body_timeout,
            Phase.IDLE: limits.idle_timeout,
            Phase.TAKING: limits.body_timeout,
        }
        # One phase has one timeout, so each of these is in the order in which the streams will be late.
        self._waiting: dict[Phase, dict[WireStream, None]] = {phase: {} for phase in self._timeouts}
        self._timer: asyncio.Handle | None = None
        self._looks_at = math.inf

    @property
    def traffic(self) -> "Traffic":
        """The connections that are open, and how many had to give way or were refused so far."""
        waiting = self._waiting_room
        return Traffic(len(self._connections) + len(waiting), self.displaced, self.refused + waiting.refused)

    def listen(self, listening: socket.socket) -> None:
        """Accept connections on the socket, which is closed by `stop`."""
        self._sockets.append(listening)
        self._loop.add_reader(listening, self._accept, listening)

    def stop(self) -> None:
        """Accept no more."""
        if self._resting is not None:
            self._resting.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        self._waiting_room.close()

    async def close_connections(self) -> None:
        """Close all connections, websockets too, whatever they are doing, and wait until no request is under way."""
        while self._connections:
            connection = next(iter(self._connections.values()))
            await connection.close()
        if self._timer is not None:
            self._timer.cancel()

    # What streams report

    def move(self, stream: WireStream, phase: Phase) -> None:
        """The stream begins another phase."""
        self._leave(stream)
        stream.phase = phase
        queue = self._waiting.get(phase)
        if queue is not None and not stream.closed():
            stream.since = self._loop.time()
            queue[stream] = None
            self._watch_until(stream.since + self._timeouts[phase])

    def forget(self, stream: WireStream) -> None:
        """The stream is closed. When a request is under way, the connection is not gone yet."""
        self._leave(stream)
        self.identify(stream, True)
        if stream.detached:
            self._connections.pop(stream, None)

    def identify(self, stream: WireStream, known: bool) -> None:
        """The caller is known from now on, or isn't any more."""
        if self._strangers is None:
            return
        if known:
            self._strangers.discard(stream)
        elif not stream.closed():
            self._strangers.add(stream, stream.source)
            # A proxy of a trusted user was let in before its requests showed that it is one.
            if len(self._strangers) > self._strangers.limit and self._strangers.victim is not stream:
                self._displace(f"{self._strangers.limit} connections of unknown callers are open")

    def knows(self, stream: WireStream) -> bool:
        """Whether the caller is known, or no difference is made."""
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
            self._complain(f"{server_conn.context.remote_ip}: no TLS connection: {why}")

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection to serve, after some that wait; when there are more, others have their turn first."""
        for _ in range(_WAITING_AT_ONCE):
            if not self._accept_waiting(listening):
                return

    def _accept_waiting(self, listening: socket.socket) -> bool:
        """Accept one connection; whether it waits, which costs little, and more may be accepted."""
        try:
            connection, address = listening.accept()
        except OSError as error:  # most often it is gone already
            if error.errno in _EXHAUSTED:
                self._displace(f"no connection can be accepted: {error.strerror}")
            return False
        rest = self._accepts.count(self._loop.time())
        if rest:
            for each in self._sockets:
                self._loop.remove_reader(each)
            self._resting = self._loop.call_later(rest, self._go_on)
        arrival = Arrival(connection, address, self._find_peer(connection))
        if not self._is_to_wait(arrival):
            self._serve(arrival)
            return False
        limit = self.limits.strangers(self._max_connections)
        self._complain(f"{limit} connections of unknown callers are open: new ones wait for their turn")
        self._waiting_room.add(arrival, source_of(arrival.peer, _ip(address)))
        return not rest

    def _go_on(self) -> None:
        """Accept again, after a rest."""
        self._resting = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _is_to_wait(self, arrival: Arrival) -> bool:
        """Whether strangers hold all that they may, and this may be one. What comes by TLS shows no key beforehand."""
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
        # On a unix socket the kernel says who is there, and nobody listens.
        secured = self._tls if connection.family != socket.AF_UNIX else None
        context = Context(_ip(address), "https" if secured else "http", peer)
        try:
            stream = _make_stream(connection, secured)
        except OSError:  # it is gone already
            connection.close()
            return
        stream.endpoint = self
        stream.source = source_of(peer, context.remote_ip)
        self.identify(stream, known)
        served = self._connections[stream] = ServerConnection(stream, self._parameters, context)
        self.move(stream, Phase.HEAD)
        served.start_serving(self)

    def _make_room(self, known: bool) -> bool:
        """Have room for one more connection; False when there is none."""
        if not known and self._strangers is not None and self._strangers.is_full:
            return self._displace(f"{self._strangers.limit} connections of unknown callers are open")
        if len(self._connections) >= self._max_connections:
            return self._displace(f"{self._max_connections} connections are open")
        return True

    def _displace(self, why: str) -> bool:
        """Close a connection in favour of a new one; False when each is being answered."""
        victim = self._strangers.victim if self._strangers is not None else None
        if victim is not None:
            self._complain(f"{why}: new ones displace those of unknown callers")
            self.displaced += 1
            victim.close()
            return True
        for phase in (Phase.HEAD, Phase.IDLE, Phase.BODY, Phase.TAKING):
            queue = self._waiting[phase]
            if queue:
                self._complain(f"{why}: new ones displace those that wait")
                self.displaced += 1
                next(iter(queue)).close()
                return True
        self._complain(f"{why}, all in use: more are refused")
        self.refused += 1
        return False

    def _complain(self, text: str) -> None:
        self._complaints.warn(text, self._loop.time())

    def _leave(self, stream: WireStream) -> None:
        queue = self._waiting.get(stream.phase)
        if queue is not None:
            queue.pop(stream, None)

    def _watch_until(self, deadline: float) -> None:
        if deadline >= self._looks_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = deadline
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        if self._loop.time() - self._looks_at > _HELD_UP:
            # The loop did something else for long: what has come meanwhile is still to be read.
            self._timer = self._loop.call_later(_HELD_UP, self._end_late)
        else:
            self._end_late()

    def _end_late(self) -> None:
        """Close what is late, and look again when the next one will be."""
        self._timer = None
        self._looks_at = math.inf
        for phase, queue in self._waiting.items():
            deadline = self._loop.time() - self._timeouts[phase]
            while queue and (stream := next(iter(queue))).since <= deadline:
                self._leave(stream)
                if stream.heard:
                    stream.refuse(RequestTimeout(f"the request was not complete after {self._timeouts[phase]:g} s"))
                else:
                    stream.close()
            if queue:
                self._watch_until(next(iter(queue)).since + self._timeouts[phase])


def caller_of(peer: Peer, remote_ip: str) -> Hashable:
    """What all connections of one caller have in common: the user on this host, else the address."""
    return remote_ip if peer.kind is PeerKind.REMOTE or peer.uid is None else (peer.kind, peer.uid)


def source_of(peer: Peer, remote_ip: str) -> Hashable:
    """As `caller_of`, but with the network for an IPv6 address: one host has all addresses of it."""
    return network_of(remote_ip) if peer.kind is PeerKind.REMOTE else caller_of(peer, remote_ip)


def stream_of(request: HTTPServerRequest) -> WireStream | None:
    """The stream of the connection that the request came on; None when it was not accepted here, or is gone."""
    stream = getattr(request.connection, "stream", None)
    return stream if isinstance(stream, WireStream) else None


def mark_caller(stream: WireStream | None, known: bool) -> None:
    """Say whether the caller on the stream of a connection is known."""
    if stream is not None:
        stream.endpoint.identify(stream, known)


def is_known(stream: WireStream | None) -> bool:
    """Whether the caller on the stream of a connection is known."""
    return stream is not None and stream.endpoint.knows(stream)


def answered(request: HTTPServerRequest) -> None:
    """Say that the handler of the request is done."""
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
    """The address of a TCP peer; others get the one that Tornado gives them."""
    return address[0] if isinstance(address, tuple) else "0.0.0.0"
