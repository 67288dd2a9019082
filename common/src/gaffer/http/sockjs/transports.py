"""The transports of SockJS over HTTP: requests that fetch messages, and such that send them."""

import asyncio
from typing import Any

from tornado.web import RequestHandler

from gaffer.errors import GafferError
from gaffer.http.access import Grant
from gaffer.http.base import NotFound, Routed
from gaffer.http.operations import EVENTS, TEXT, operation
from gaffer.http.sockjs.library import (
    EventSourceTransport,
    XhrPollingTransport,
    XhrStreamingTransport,
)
from gaffer.http.sockjs.pages import JAVASCRIPT, SockJSHandler
from gaffer.http.sockjs.router import TooManySessions
from gaffer.http.sockjs.sessions import INTERRUPTED, BrokenMessage, FramedSession, decode_messages


class Transport(SockJSHandler):
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


class _Receiver(Transport):
    """What the library's handlers for fetching messages need here."""

    session: FramedSession | None

    def initialize(self, params: dict[str, str], grant: Grant) -> None:
        super().initialize(params, grant)
        super(Routed, self).initialize(self.router)  # that of the library

    def preflight(self) -> None:
        """The library's answer to any origin; ours has been given."""

    def finish(self, chunk: Any = None) -> "asyncio.Future[None]":
        return RequestHandler.finish(self, chunk)  # that of the library returns nothing

    def cut(self) -> None:
        """The client doesn't take what it is sent: leave it."""
        connection: Any = self.request.connection
        connection.stream.close()

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
        self.router.admit(self.session_id, self.grant, self.caller)
        super().post(self.session_id)


class XhrStreaming(_Receiver, XhrStreamingTransport):  # type: ignore[misc]
    """Fetches messages as they come."""

    methods = ("POST",)

    @operation(str, media=JAVASCRIPT, errors=(TooManySessions,), endless=True)
    def post(self) -> None:
        """2 KiB of prelude, then a line for each frame of SockJS."""
        self.router.admit(self.session_id, self.grant, self.caller)
        super().post(self.session_id)


class EventSource(_Receiver, EventSourceTransport):  # type: ignore[misc]
    """Fetches messages as server-sent events."""

    @operation(str, media=EVENTS, errors=(TooManySessions,))
    def get(self) -> None:
        """An event for each frame of SockJS."""
        self.router.admit(self.session_id, self.grant, self.caller)
        super().get(self.session_id)

    def head(self, *args: str, **kwargs: str) -> None:
        """The headers."""
        self.disable_cache()
        self.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self.finish()


class XhrSend(Transport):
    """Sends messages of the client."""

    methods = ("POST",)

    @operation(status=204, body=list[str], body_media=TEXT, text_errors=(500,))
    async def post(self) -> None:
        """Takes a JSON array of strings. 404 for a session that isn't open.

        The protocol wants 500 for a body that can't be read.
        """
        session = self.router.find(self.session_id, self.grant, self.caller)
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
