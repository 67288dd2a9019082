"""SockJS sessions: those of sockjs-tornado, with an owner, a bounded queue, and timers that end with the session.

A session has one timer for heartbeats while a client listens, and one for its expiry while none does. This fixes
several defects of the library: its queue is unbounded; some transports have no heartbeats, and a stopped one stays on
the loop; sessions expire by the wall clock, which is polled every second; `close` drops queued messages, sends two
frames in one response to a poll, and hides errors of the service; the reason in a close frame is not escaped.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import msgspec
from tornado.httputil import HTTPServerRequest

from gaffer.errors import BadRequest
from gaffer.http.access import Grant
from gaffer.http.connections import mark_caller
from gaffer.http.jsonbody import TooManyValues, check_size
from gaffer.http.sockjs.connection import GO_AWAY, Connection, ConnectionClosed
from gaffer.http.sockjs.library import CLOSED, CONNECTING, OPEN, BaseSession, Session, proto

if TYPE_CHECKING:
    from gaffer.http.sockjs.router import Router

INTERRUPTED = (1002, "Connection interrupted")
REVOKED = (1008, "access was revoked")

_NOBODY = Grant(frozenset())

_messages = msgspec.json.Decoder(str | list[str])


class BrokenMessage(BadRequest):
    """The client sent neither a JSON string nor an array of strings; `close_code` is for websockets (RFC 6455)."""

    reason = "invalid_json"
    close_code = 1007


class NotText(BrokenMessage):
    """The client sent a binary message on the raw websocket."""

    close_code = 1003


def decode_messages(data: str | bytes) -> list[str]:
    """Return the messages in a frame or body; raises BrokenMessage."""
    try:
        check_size(data)
        found = _messages.decode(data)
    except (ValueError, RecursionError, TooManyValues):
        raise BrokenMessage("the message is neither a JSON string nor an array of strings") from None
    return [found] if isinstance(found, str) else found


class OwnedSession:
    """Base of both kinds of sessions, mixed into those of the library."""

    server: "Router"
    state: int
    handler: Any
    is_closed: bool
    transport_name: str

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection = Connection(self)  # type: ignore[arg-type]
        self.owner: Grant | None = None
        self.caller: Hashable = None
        self.source: Hashable = None
        self.request: HTTPServerRequest | None = None  # that opened the session
        self.grant = _NOBODY
        self._deadline: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._receiving = asyncio.Lock()

    @property
    def queued(self) -> int:
        """Bytes queued for the client."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send queued messages as far as the client is ready."""
        raise NotImplementedError

    def discard(self) -> None:
        """Drop queued messages."""
        raise NotImplementedError

    @property
    def is_receiving(self) -> bool:
        """Whether a message is being handled."""
        return self._receiving.locked()

    def belongs_to(self, grant: Grant, caller: Hashable) -> bool:
        """Return whether a request with that grant and caller comes from the client that opened the session."""
        if self.owner is None:
            return True
        return (self.owner, self.caller) == (grant, caller) and self.owner.revocation is grant.revocation

    @property
    def is_known(self) -> bool:
        """Whether the client is authenticated."""
        return self.server.is_known(self.grant)

    def adopt(self, grant: Grant) -> None:
        """Replace the grant of the client."""
        self.grant.release(self)
        self.grant = grant
        grant.hold(self)
        self._mark_caller()

    def revoked(self) -> None:
        """Close the session because the grant was revoked, and drop queued messages."""
        self.discard()
        self.close(*REVOKED)
        if self.handler is not None:  # it is still receiving earlier messages
            self.handler.cut()

    @property
    def has_room(self) -> bool:
        """Whether the session is open and a message may be queued."""
        return not self.is_closed and self.queued < self.server.limits.buffer_limit

    async def wait_for_room(self) -> None:
        """Wait until a message may be queued; raises ConnectionClosed."""
        while not self.is_closed and not self.has_room:
            self._room.clear()
            await self._room.wait()
        if self.is_closed:
            raise ConnectionClosed("the client has disconnected")

    async def receive(self, texts: list[str]) -> None:
        """Pass messages to the service in order."""
        async with self._receiving:
            for text in texts:
                if self.state != OPEN:
                    return
                try:
                    handling = self.server.service.received(self.connection, text)
                    if handling is not None:
                        await handling
                except ConnectionClosed:
                    return

    def close(self, code: int = GO_AWAY[0], message: str = GO_AWAY[1]) -> None:
        """End the session; the client receives the close frame after the queued messages."""
        if self.state == CLOSED:
            return
        was_open, self.state = self.state != CONNECTING, CLOSED
        self.close_reason = (code, message)
        self.grant.release(self)
        self._room.set()
        self.server.ended(self)
        if was_open:
            self.server.service.closed(self.connection)
        self.flush()
        if self.handler is not None:  # earlier messages are still being sent
            self._end_soon(self.handler.cut)

    def remove_handler(self, handler: Any) -> None:
        """Record that the client has disconnected or received the last frame of a response."""
        self._clear_deadline()
        super().remove_handler(handler)  # type: ignore[misc]

    def _attached(self, handler: Any) -> None:
        if self.owner is None:
            self.owner, self.caller, self.source = handler.grant, handler.caller, handler.source
            self.request = handler.request
            self.adopt(handler.grant)
            self.server.live.add(self)
        else:
            self._mark_caller()

    def _mark_caller(self) -> None:
        """Mark the connection of the listening client as authenticated if the session is."""
        if self.handler is not None:
            mark_caller(self.handler.stream, self.is_known)

    def _end_soon(self, end: Callable[[], None]) -> None:
        """Call `end` after `disconnect_delay` unless the client reacts before."""
        delay = self.server.limits.disconnect_delay
        self._deadline = asyncio.get_running_loop().call_later(delay, end)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _make_room(self) -> None:
        if self.queued < self.server.limits.buffer_limit:
            self._room.set()


class FramedSession(OwnedSession, Session):  # type: ignore[misc]
    """A session with SockJS framing, on a websocket or over HTTP."""

    _beat: asyncio.TimerHandle | None = None
    _is_stuck = False
    registered = False

    @property
    def queued(self) -> int:
        return len(self.send_queue)

    def set_handler(self, handler: Any, start_heartbeat: bool = True) -> bool:
        attached: bool = super().set_handler(handler, True)
        if attached:
            self._clear_deadline()
            self._attached(handler)
        return attached

    def _mark_caller(self) -> None:
        super()._mark_caller()
        if self.is_known:
            self.server.strangers.discard(self)
        elif self.registered:
            self.server.strangers.add(self, self.source)

    def remove_handler(self, handler: Any) -> None:
        super().remove_handler(handler)
        if self.registered and self.server.closing:
            self.expire()
        elif self.registered:
            self._end_soon(self.expire)

    def flush(self) -> None:
        handler = self.handler
        if handler is not None and handler.active:
            self._is_stuck = False
        Session.flush(self)
        self._make_room()
        if self.state == CLOSED and handler is not None and handler.active and not self.send_queue:
            handler.send_pack(proto.disconnect(*self.get_close_reason()))
            handler.session_closed()

    def discard(self) -> None:
        self.send_queue = ""

    def get_close_reason(self) -> tuple[int, str]:
        code, reason = self.close_reason or GO_AWAY
        return code, proto.json_encode(reason)[1:-1]  # the library adds the quotes

    def expire(self) -> None:
        """Remove the session because no client fetched its messages in time."""
        self._clear_deadline()
        self.server.strangers.discard(self)
        if self.server.sessions.get(self.session_id) is self:
            del self.server.sessions[self.session_id]
        self.close(*INTERRUPTED)

    def start_heartbeat(self) -> None:
        self.stop_heartbeat()
        self._beat = asyncio.get_running_loop().call_later(self.server.limits.heartbeat, self._heartbeat)

    def stop_heartbeat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _heartbeat(self) -> None:
        self.start_heartbeat()
        if self.handler.active:
            self.handler.send_pack(proto.HEARTBEAT)
        elif self._is_stuck:
            self.handler.cut()
        else:
            self._is_stuck = True  # unless the client receives the current frame before the next heartbeat


class RawSession(OwnedSession, BaseSession):  # type: ignore[misc]
    """A session on the raw websocket, where each message is a websocket frame."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue: deque[bytes] = deque()
        self._queued = 0

    @property
    def queued(self) -> int:
        return self._queued

    def set_handler(self, handler: Any) -> bool:
        super().set_handler(handler)
        self._attached(handler)
        return True

    def send_message(self, text: str) -> None:
        data = text.encode("utf-8", "replace")  # a lone surrogate can't be sent
        self._queue.append(data)
        self._queued += len(data)
        self.flush()

    def flush(self) -> None:
        while self._queue and self.handler is not None and self.handler.active:
            data = self._queue.popleft()
            self._queued -= len(data)
            self.handler.send_pack(data)
        if self.state == CLOSED and self.handler is not None and self.handler.active:
            self.handler.session_closed(*self.close_reason)
        self._make_room()

    def discard(self) -> None:
        self._queue.clear()
        self._queued = 0
