"""SockJS sessions: those of sockjs-tornado, with an owner, a bounded queue, and timers that end with them.

A session without queued messages or receiver costs one timer, a closed one none. What is mended of the library: its
queue grows without end; a heartbeat that is stopped stays on the loop; sessions end by the wall clock, looked at every
second for ever; `close` drops what is queued, sends two frames in one answer to a poll, and hides errors of the
service; the reason of a close frame is not escaped.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, NamedTuple, Protocol

import msgspec
from tornado.ioloop import IOLoop

from gaffer.errors import BadRequest, GafferError
from gaffer.http.access import Forbidden, Grant
from gaffer.http.base import NotFound
from gaffer.http.sockjs_library import (
    CLOSED,
    CONNECTING,
    OPEN,
    BaseSession,
    Session,
    SockJSConnection,
    SockJSRouter,
    proto,
)

GO_AWAY = (3000, "Go away!")
INTERRUPTED = (1002, "Connection interrupted")
REVOKED = (1008, "access was revoked")

_NOBODY = Grant(frozenset())

_messages = msgspec.json.Decoder(str | list[str])


class ConnectionClosed(GafferError):
    """The other side is gone, or was told to go."""

    errno = 410
    reason = "connection_closed"


class TooManySessions(GafferError):
    """There are as many sessions as there may be."""

    errno = 503
    reason = "too_many_sessions"


class BrokenMessage(BadRequest):
    """What a client sent is not a JSON string or an array of them."""

    reason = "invalid_json"


class Connection:
    """One client, whatever transport it came by. Made by SockJS; compares by identity. Use it on its loop."""

    def __init__(self, session: "FramedSession | RawSession") -> None:
        self._session = session

    @property
    def grant(self) -> Grant:
        """What the client may do: the grant of the request that opened the connection, or the one adopted since."""
        return self._session.grant

    @property
    def open(self) -> bool:
        """Whether it was neither closed nor lost."""
        return not self._session.is_closed

    def adopt(self, grant: Grant) -> None:
        """Go on with that grant; when it is taken back, the connection is closed."""
        self._session.adopt(grant)

    async def send(self, text: str) -> None:
        """Send a message; waits while the buffer for this client is full. Raises ConnectionClosed."""
        await self._session.wait_for_room()
        self._session.send_message(text)

    def close(self, code: int = GO_AWAY[0], reason: str = GO_AWAY[1]) -> None:
        """Close it, once the client has what was sent before; `closed` of the service is called at once.

        `code` is one of RFC 6455 section 7.4 (3000 to 4999 are free), `reason` at most 120 bytes.
        """
        self._session.close(code, reason)


class Service(Protocol):
    """What is spoken with the clients; one for all connections of an application."""

    def opened(self, connection: Connection) -> None:
        """A client is there."""

    def received(self, connection: Connection, text: str) -> Awaitable[None] | None:
        """A client sent a message. The next one of this client is read when the awaitable, if any, is done."""

    def closed(self, connection: Connection) -> None:
        """A connection that was `opened` has ended, whoever ended it. Called once."""


class Settings(NamedTuple):
    """The limits of sessions: seconds, bytes, numbers. See SockJS."""

    heartbeat: float
    disconnect_delay: float
    response_limit: int
    buffer_limit: int
    max_sessions: int


def decode_messages(data: str | bytes) -> list[str]:
    """The messages in a frame or body of a client; raises BrokenMessage."""
    try:
        found = _messages.decode(data)
    except (ValueError, RecursionError):
        raise BrokenMessage("send a JSON string, or an array of strings") from None
    return [found] if isinstance(found, str) else found


class _Endpoint(SockJSConnection):  # type: ignore[misc]
    """Tells the service what the library tells a connection."""

    def on_open(self, request: object) -> None:
        self.session.server.service.opened(self.session.connection)


class _Owned:
    """What both kinds of session add to those of the library."""

    server: "Router"
    state: int
    handler: Any
    is_closed: bool
    transport_name: str

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection = Connection(self)  # type: ignore[arg-type]
        self.owner: Grant | None = None
        self.grant = _NOBODY
        self._room = asyncio.Event()
        self._receiving = asyncio.Lock()

    @property
    def queued(self) -> int:
        """Bytes that wait for the client to take what was sent before."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what can be sent."""
        raise NotImplementedError

    def discard(self) -> None:
        """Forget what waits."""
        raise NotImplementedError

    def belongs_to(self, grant: Grant) -> bool:
        """Whether a request with that grant is of the client that opened the session."""
        return self.owner is None or (self.owner == grant and self.owner.revocation is grant.revocation)

    def adopt(self, grant: Grant) -> None:
        """Act for the client by that grant until it is taken back."""
        self.grant.release(self)
        self.grant = grant
        grant.hold(self)

    def revoked(self) -> None:
        """The grant was taken back: the client gets nothing more."""
        self.discard()
        self.close(*REVOKED)
        if self.handler is not None:  # it hasn't taken yet what was sent before
            self.handler.revoked()

    async def wait_for_room(self) -> None:
        """Wait until a message may be queued; raises ConnectionClosed."""
        while not self.is_closed and self.queued >= self.server.limits.buffer_limit:
            self._room.clear()
            await self._room.wait()
        if self.is_closed:
            raise ConnectionClosed("the client is gone")

    async def receive(self, texts: list[str]) -> None:
        """Give messages to the service, one after the other."""
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
        """End the session; the client is told once it has what is queued."""
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

    def _attached(self, grant: Grant) -> None:
        if self.owner is None:
            self.owner = grant
            self.adopt(grant)
            self.server.live.add(self)

    def _make_room(self) -> None:
        if self.queued < self.server.limits.buffer_limit:
            self._room.set()


class FramedSession(_Owned, Session):  # type: ignore[misc]
    """A session that speaks the frames of SockJS, on a websocket or by HTTP."""

    _beat: asyncio.TimerHandle | None = None
    _expiry: asyncio.TimerHandle | None = None
    registered = False

    @property
    def queued(self) -> int:
        return len(self.send_queue)

    def set_handler(self, handler: Any, start_heartbeat: bool = True) -> bool:
        attached: bool = super().set_handler(handler, True)
        if attached:
            self._attached(handler.grant)
            self._cancel_expiry()
        return attached

    def remove_handler(self, handler: Any) -> None:
        super().remove_handler(handler)
        self._cancel_expiry()
        if not self.registered:
            return
        if self.server.closing:
            self.expire()
        else:
            delay = self.server.limits.disconnect_delay
            self._expiry = asyncio.get_running_loop().call_later(delay, self.expire)

    def flush(self) -> None:
        Session.flush(self)
        self._make_room()
        handler = self.handler
        if self.state == CLOSED and handler is not None and handler.active and not self.send_queue:
            handler.send_pack(proto.disconnect(*self.get_close_reason()))
            handler.session_closed()

    def discard(self) -> None:
        self.send_queue = ""

    def get_close_reason(self) -> tuple[int, str]:
        code, reason = self.close_reason or GO_AWAY
        return code, proto.json_encode(reason)[1:-1]  # the library puts the quotes

    def expire(self) -> None:
        """Nobody came for the messages: forget the session."""
        self._cancel_expiry()
        self.server.sessions.pop(self.session_id, None)
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
        if self.handler.active:  # else the client still has a frame to take, which serves as well
            self.handler.send_pack(proto.HEARTBEAT)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None


class RawSession(_Owned, BaseSession):  # type: ignore[misc]
    """A session on the raw websocket: a message is a frame of the websocket."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue: deque[bytes] = deque()
        self._queued = 0

    @property
    def queued(self) -> int:
        return self._queued

    def set_handler(self, handler: Any) -> bool:
        super().set_handler(handler)
        self._attached(handler.grant)
        return True

    def send_message(self, text: str) -> None:
        data = text.encode("utf-8", "replace")  # a lone surrogate can't be sent
        self._queue.append(data)
        self._queued += len(data)
        self.flush()

    def flush(self) -> None:
        if self.handler is None or not self.handler.active:
            return
        if self._queue:
            data = self._queue.popleft()
            self._queued -= len(data)
            self.handler.send_pack(data)
        elif self.state == CLOSED:
            self.handler.session_closed(*self.close_reason)
        self._make_room()

    def discard(self) -> None:
        self._queue.clear()
        self._queued = 0


class Router(SockJSRouter):  # type: ignore[misc]
    """The sessions of one application."""

    def __init__(self, service: Service, limits: Settings) -> None:
        settings = {
            "response_limit": limits.response_limit,
            "jsessionid": False,
            "verify_ip": False,  # a session is bound to a grant
        }
        super().__init__(_Endpoint, user_settings=settings, io_loop=IOLoop.current())
        # Two timers run from here on, needed or not. Statistics are not read, and sessions know when they end.
        self._sessions_cleanup.stop()
        self.stats._callback.stop()
        self.service = service
        self.limits = limits
        self.sessions: dict[str, FramedSession] = {}
        self.live: set[_Owned] = set()
        self.closing = False

    def admit(self, session_id: str, grant: Grant) -> FramedSession | None:
        """The session of that name, None when it is to be made; raises Forbidden or TooManySessions."""
        found = self.sessions.get(session_id)
        if found is not None and not found.belongs_to(grant):
            raise Forbidden("another caller opened this session", hint="choose a session id of your own")
        if found is None and len(self.sessions) >= self.limits.max_sessions:
            raise TooManySessions(f"{len(self.sessions)} sessions are open", hint="try again later")
        return found

    def find(self, session_id: str, grant: Grant) -> FramedSession:
        """The open session of that name; raises NotFound or Forbidden."""
        found = self.sessions.get(session_id)
        if found is None or found.is_closed:
            raise NotFound("there is no such session, or it has ended", hint="open a new one")
        self.admit(session_id, grant)
        return found

    def get_session(self, session_id: str) -> FramedSession | None:
        return self.sessions.get(session_id)

    def create_session(self, session_id: str, register: bool = True) -> FramedSession:
        session = FramedSession(_Endpoint, self, session_id, None)
        if register:
            session.registered = True
            self.sessions[session_id] = session
        return session

    def create_raw_session(self) -> RawSession:
        """A session for the raw websocket."""
        return RawSession(_Endpoint, self)

    def ended(self, session: _Owned) -> None:
        """A session was closed."""
        self.live.discard(session)

    def close(self) -> None:
        """Close every session; one that nobody listens to is forgotten. There will be no others."""
        self.closing = True
        for session in list(self.live):
            session.close()
        for waiting in list(self.sessions.values()):
            if waiting.handler is None:
                waiting.expire()
