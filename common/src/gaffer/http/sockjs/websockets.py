"""The websockets of SockJS: one with SockJS framing, one with raw messages."""

import asyncio
import contextlib
from typing import Any

from tornado.websocket import WebSocketClosedError

from gaffer.http.http1 import list_items
from gaffer.http.operations import operation
from gaffer.http.rfc6455 import ServerSocket, UpgradeRequired
from gaffer.http.sockjs.library import BaseTransportMixin
from gaffer.http.sockjs.sessions import INTERRUPTED, BrokenMessage, FramedSession, NotText, RawSession, decode_messages
from gaffer.http.sockjs.transports import Transport

_MAX_UNANSWERED = 2  # pings


class _Socket(Transport, ServerSocket, BaseTransportMixin):  # type: ignore[misc]
    """A websocket with one session.

    It sends a ping at each heartbeat, and drops the connection after two pings without a sign of life.
    """

    session: FramedSession | RawSession | None = None
    active = True  # whether the client has received everything sent
    _awaited: "asyncio.Future[None] | None" = None  # done when the client has
    _pings: asyncio.TimerHandle | None = None
    _unanswered = 0  # pings since the last sign of life

    @operation(status=101, errors=(503, UpgradeRequired), text_errors=(400,))
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the websocket. Requests without an upgrade get 400 and plain text, as the SockJS protocol requires."""
        if "websocket" not in list_items(self.request.headers, "Upgrade"):
            self._refuse('Can "Upgrade" only to "WebSocket".')
        elif "upgrade" not in list_items(self.request.headers, "Connection"):
            self._refuse('"Connection" must be "Upgrade".')
        else:
            await super().get(*args, **kwargs)

    @property
    def max_message_size(self) -> int:
        return self.max_body

    @property
    def ping_interval(self) -> float:
        return 0  # nothing is read while a message is handled, which Tornado's pings would mistake for silence

    def send_pack(self, message: str | bytes, binary: bool = False) -> None:
        """Send a frame; the session is flushed again when the client has received it."""
        self.active = False
        try:
            written = self.write_message(message)
        except WebSocketClosedError:  # `on_close` follows
            return
        # A client that keeps up gets the next frame at once, so that bursts do not make it fall behind.
        self.active = not self._connection.stream.writing()
        self._awaited = None if self.active else written
        written.add_done_callback(self._on_written)

    def cut(self) -> None:
        """Drop the connection of a client that has stopped reading."""
        self._connection.stream.close()

    def on_close(self) -> None:
        if self._pings is not None:
            self._pings.cancel()
        session, self.session = self.session, None
        if session is not None:
            session.remove_handler(self)
            session.close(*INTERRUPTED)

    async def on_message(self, message: str | bytes) -> None:
        session = self.session
        if not message or session is None:
            return
        try:
            messages = self.decode(message)
        except BrokenMessage as error:
            self.close(error.close_code, error.message)
            return
        await session.receive(messages)
        self._unanswered = 0

    def on_pong(self, data: bytes) -> None:
        self._unanswered = 0

    def decode(self, message: str | bytes) -> list[str]:
        """Return the messages in a websocket frame; raises BrokenMessage."""
        raise NotImplementedError

    def _refuse(self, text: str) -> None:
        self.set_status(400)
        self.reply_text(text)

    def _begin(self, session: FramedSession | RawSession) -> None:
        self._connection: Any = self.ws_connection  # Tornado drops its reference when this side closes
        self.set_nodelay(True)
        self._await_sign()
        self.session = session
        session.set_handler(self)
        session.verify_state()

    def _on_written(self, written: "asyncio.Future[None]") -> None:
        if written.cancelled() or written.exception() is not None:  # closed
            return
        if written is self._awaited:
            self.active = True
            if self.session is not None:
                self.session.flush()

    def _await_sign(self) -> None:
        self._pings = asyncio.get_running_loop().call_later(self.router.limits.heartbeat, self._ping)

    def _ping(self) -> None:
        is_read = self.session is None or not self.session.is_receiving
        if is_read and self._unanswered == _MAX_UNANSWERED:
            self.cut()
            return
        self._unanswered += is_read
        with contextlib.suppress(WebSocketClosedError):
            self.ping()
            self._await_sign()

    def _leave(self, code: int, reason: str | None) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.remove_handler(self)
        self.close(code, reason)


class WebSocket(_Socket):
    """A websocket with SockJS framing."""

    name = "websocket"

    def open(self) -> None:
        """Begin a session; its id is not used."""
        self._begin(self.router.create_session(self.session_id, register=False))

    def decode(self, message: str | bytes) -> list[str]:
        return decode_messages(message)

    def session_closed(self) -> None:
        """Close the websocket after the last frame."""
        self._leave(1000, None)


class RawWebSocket(_Socket):
    """A websocket with raw messages, for clients other than web pages."""

    name = "rawwebsocket"

    def open(self) -> None:
        """Begin a session."""
        self._begin(self.router.create_raw_session())

    def decode(self, message: str | bytes) -> list[str]:
        if isinstance(message, bytes):
            raise NotText("binary messages are not supported")
        return [message]

    def session_closed(self, code: int, reason: str) -> None:
        """Close the websocket after the last message."""
        self._leave(code, reason)
