"""The transports of SockJS: HTTP requests that fetch and send messages, and websockets."""

import asyncio
from typing import Any

from tornado.web import RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from gaffer.errors import GafferError
from gaffer.http.access import Grant
from gaffer.http.base import NotFound, Routed
from gaffer.http.limits import DEFAULT_LIMITS
from gaffer.http.operations import EVENTS, TEXT, operation
from gaffer.http.sockjs_library import (
    BaseTransportMixin,
    EventSourceTransport,
    XhrPollingTransport,
    XhrStreamingTransport,
)
from gaffer.http.sockjs_pages import JAVASCRIPT, SockJSHandler
from gaffer.http.sockjs_sessions import (
    INTERRUPTED,
    BrokenMessage,
    FramedSession,
    RawSession,
    TooManySessions,
    decode_messages,
)


class _Transport(SockJSHandler):
    """A SockJSHandler for the session in its path."""

    def prepare(self) -> None:
        super().prepare()
        if any("." in part for part in self.params.values()):
            raise NotFound(f"there is no resource {self.request.path}", hint="the names in it have no dots")
        if self.router.closing:
            raise GafferError("the server is stopping", reason="stopping", errno=503, hint="try again later")

    @property
    def session_id(self) -> str:
        """The name the client gave its session."""
        return self.params["session"]


class _Receiver(_Transport):
    """What the library's handlers for fetching messages need here."""

    session: FramedSession | None

    def initialize(self, params: dict[str, str], grant: Grant) -> None:
        super().initialize(params, grant)
        super(Routed, self).initialize(self.router)  # that of the library

    def preflight(self) -> None:
        """The library's answer to any origin; ours has been given."""

    def finish(self, chunk: Any = None) -> "asyncio.Future[None]":
        connection: Any = self.request.connection
        # Tornado would keep the connection of a client of HTTP/1.0 that asks for it, and the answer had no end.
        is_last = self.request.version == "HTTP/1.0" and self._headers_written and "Content-Length" not in self._headers
        finished = RequestHandler.finish(self, chunk)  # that of the library returns nothing
        if is_last:
            finished.add_done_callback(lambda _written: connection.close())
        return finished

    def on_connection_close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.remove_handler(self)
            session.close(*INTERRUPTED)  # messages may be lost
        super().on_connection_close()


class XhrPolling(_Receiver, XhrPollingTransport):  # type: ignore[misc]
    """Fetches the messages that wait, or the next one."""

    methods = ("POST",)

    @operation(str, media=JAVASCRIPT, errors=(TooManySessions,), endless=True)
    def post(self) -> None:
        """A frame of SockJS and a newline."""
        self.router.admit(self.session_id, self.grant)
        super().post(self.session_id)


class XhrStreaming(_Receiver, XhrStreamingTransport):  # type: ignore[misc]
    """Fetches messages as they come."""

    methods = ("POST",)

    @operation(str, media=JAVASCRIPT, errors=(TooManySessions,), endless=True)
    def post(self) -> None:
        """2 KiB of prelude, then a line for each frame of SockJS."""
        self.router.admit(self.session_id, self.grant)
        super().post(self.session_id)


class EventSource(_Receiver, EventSourceTransport):  # type: ignore[misc]
    """Fetches messages as server-sent events."""

    @operation(str, media=EVENTS, errors=(TooManySessions,))
    def get(self) -> None:
        """An event for each frame of SockJS."""
        self.router.admit(self.session_id, self.grant)
        super().get(self.session_id)

    def head(self, *args: str, **kwargs: str) -> None:
        """The headers."""
        self.disable_cache()
        self.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self.finish()


class XhrSend(_Transport):
    """Sends messages of the client."""

    methods = ("POST",)

    @operation(status=204, body=list[str], body_media=TEXT, text_errors=(500,))
    async def post(self) -> None:
        """Takes a JSON array of strings. 404 for a session that isn't open.

        The protocol wants 500 for a body that can't be read.
        """
        session = self.router.find(self.session_id, self.grant)
        self.disable_cache()
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        if not self.body:
            self._refuse("Payload expected.")
            return
        try:
            messages = decode_messages(self.body)
        except BrokenMessage:
            self._refuse("Broken JSON encoding.")
            return
        await session.receive(messages)
        self.set_status(204)
        self.flush()  # `finish` would take the content type away, without which some browsers look for XML
        self.finish()

    def _refuse(self, text: str) -> None:
        self.set_status(500)
        self.finish(text)


class _Socket(_Transport, WebSocketHandler, BaseTransportMixin):  # type: ignore[misc]
    """A websocket with one session."""

    session: FramedSession | RawSession | None = None
    active = True  # whether the client has taken all that was sent

    @operation(status=101, errors=(503,), text_errors=(400, 426))
    async def get(self) -> None:
        """The handshake."""
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        await WebSocketHandler.get(self)

    @property
    def max_message_size(self) -> int:
        return DEFAULT_LIMITS.max_body

    def check_origin(self, origin: str) -> bool:
        return True  # it was checked before this handler was made

    def send_pack(self, message: str | bytes, binary: bool = False) -> None:
        """Send a frame; the session is asked for more when the client has taken it."""
        self.active = False
        try:
            written = self.write_message(message)
        except WebSocketClosedError:  # `on_close` is to come
            return
        written.add_done_callback(self._taken)

    def on_close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.remove_handler(self)
            session.close(*INTERRUPTED)

    def _begin(self, session: FramedSession | RawSession) -> None:
        self.set_nodelay(True)
        self.session = session
        session.set_handler(self)
        session.verify_state()

    def _taken(self, written: "asyncio.Future[None]") -> None:
        if written.cancelled() or written.exception() is not None:  # as above
            return
        self.active = True
        if self.session is not None:
            self.session.flush()

    def _leave(self, code: int, reason: str | None) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.remove_handler(self)
        self.close(code, reason)


class WebSocket(_Socket):
    """A websocket that carries the frames of SockJS."""

    name = "websocket"

    def open(self) -> None:
        """Begin a session; its name means nothing here."""
        self._begin(self.router.create_session(self.session_id, register=False))

    async def on_message(self, message: str | bytes) -> None:
        if not message or not isinstance(self.session, FramedSession):
            return
        try:
            messages = decode_messages(message)
        except BrokenMessage:
            self.close(1007, "Broken JSON encoding.")
            return
        await self.session.receive(messages)

    def session_closed(self) -> None:
        """The client has the last frame."""
        self._leave(1000, None)


class RawWebSocket(_Socket):
    """A websocket that carries messages as they are, for clients that are no web pages."""

    name = "rawwebsocket"

    def open(self) -> None:
        """Begin a session."""
        self._begin(self.router.create_raw_session())

    @property
    def ping_interval(self) -> float:
        """There are no heartbeats in this protocol, and proxies close what is silent."""
        return self.router.limits.heartbeat

    @property
    def ping_timeout(self) -> float:
        """Pongs are not waited for: a service that is busy with a message doesn't read them."""
        return 0

    async def on_message(self, message: str | bytes) -> None:
        if not message or self.session is None:
            return
        if isinstance(message, bytes):
            self.close(1003, "text expected")
            return
        await self.session.receive([message])

    def session_closed(self, code: int, reason: str) -> None:
        """The client has the last message."""
        self._leave(code, reason)
