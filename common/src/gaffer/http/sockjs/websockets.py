"""The websockets of SockJS: one with its frames, one with messages as they are."""

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

_MAX_UNANSWERED = 2  # pings without an answer


class _Socket(Transport, ServerSocket, BaseTransportMixin):  # type: ignore[misc]
    """A websocket with one session.

    It is pinged in the rhythm of heartbeats, and left when the client gives no sign to two pings.
    """

    session: FramedSession | RawSession | None = None
    active = True  # whether the client has taken all that was sent
    _awaited: "asyncio.Future[None] | None" = None  # done when it has
    _pings: asyncio.TimerHandle | None = None
    _unanswered = 0  # pings, since the last sign of the client

    @operation(status=101, errors=(503, UpgradeRequired), text_errors=(400,))
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """The handshake. What asks for no upgrade is answered 400 and a text, as the SockJS protocol has it."""
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
        return 0  # while a message is handled, nothing is read: pings of Tornado would take that for silence

    def send_pack(self, message: str | bytes, binary: bool = False) -> None:
        """Send a frame; the session is asked for more when the client has taken it."""
        self.active = False
        try:
            written = self.write_message(message)
        except WebSocketClosedError:  # `on_close` is to come
            return
        # A client that keeps up gets the next one at once, or it would fall behind a burst of messages.
        self.active = not self._connection.stream.writing()
        self._awaited = None if self.active else written
        written.add_done_callback(self._taken)

    def cut(self) -> None:
        """The client doesn't take what it is sent: leave it."""
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
        """The messages in a frame of the websocket; raises BrokenMessage."""
        raise NotImplementedError

    def _refuse(self, text: str) -> None:
        self.set_status(400)
        self.reply_text(text)

    def _begin(self, session: FramedSession | RawSession) -> None:
        self._connection: Any = self.ws_connection  # which Tornado forgets when it is closed from here
        self.set_nodelay(True)
        self._await_sign()
        self.session = session
        session.set_handler(self)
        session.verify_state()

    def _taken(self, written: "asyncio.Future[None]") -> None:
        if written.cancelled() or written.exception() is not None:  # as above
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
    """A websocket that carries the frames of SockJS."""

    name = "websocket"

    def open(self) -> None:
        """Begin a session; its name means nothing here."""
        self._begin(self.router.create_session(self.session_id, register=False))

    def decode(self, message: str | bytes) -> list[str]:
        return decode_messages(message)

    def session_closed(self) -> None:
        """The client has the last frame."""
        self._leave(1000, None)


class RawWebSocket(_Socket):
    """A websocket that carries messages as they are, for clients that are no web pages."""

    name = "rawwebsocket"

    def open(self) -> None:
        """Begin a session."""
        self._begin(self.router.create_raw_session())

    def decode(self, message: str | bytes) -> list[str]:
        if isinstance(message, bytes):
            raise NotText("send text")
        return [message]

    def session_closed(self, code: int, reason: str) -> None:
        """The client has the last message."""
        self._leave(code, reason)
