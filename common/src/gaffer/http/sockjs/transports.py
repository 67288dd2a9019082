"""The HTTP transports of SockJS: requests that fetch messages and requests that send them."""

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
            raise NotFound(
                f"there is no resource {self.request.path}", hint="remove the dots from the server and session names"
            )
        if self.router.closing:
            raise GafferError("the server is stopping", reason="stopping", errno=503, hint="try again later")

    @property
    def session_id(self) -> str:
        """The id of the session, chosen by the client."""
        return self.params["session"]


class _Receiver(Transport):
    """Base of the library's handlers for fetching messages."""

    session: FramedSession | None

    def initialize(self, params: dict[str, str], grant: Grant) -> None:
        super().initialize(params, grant)
        super(Routed, self).initialize(self.router)  # of the library

    def preflight(self) -> None:
        """Suppress the library's CORS headers, which allow any origin."""

    def finish(self, chunk: Any = None) -> "asyncio.Future[None]":
        return RequestHandler.finish(self, chunk)  # the library's method returns nothing

    def cut(self) -> None:
        """Drop the connection of a client that has stopped reading."""
        connection: Any = self.request.connection
        connection.stream.close()

    def on_connection_close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.remove_handler(self)
            session.close(*INTERRUPTED)  # messages may be lost
        super().on_connection_close()


class XhrPolling(_Receiver, XhrPollingTransport):  # type: ignore[misc]
    """Polling for messages: the queued ones, or the next one."""

    methods = ("POST",)

    @operation(str, media=JAVASCRIPT, errors=(TooManySessions,), endless=True)
    def post(self) -> None:
        """Return a SockJS frame and a newline."""
        self.router.admit(self.session_id, self.grant, self.caller)
        super().post(self.session_id)


class XhrStreaming(_Receiver, XhrStreamingTransport):  # type: ignore[misc]
    """Streaming of messages over one response."""

    methods = ("POST",)

    @operation(str, media=JAVASCRIPT, errors=(TooManySessions,), endless=True)
    def post(self) -> None:
        """Return a prelude of 2 KiB, then a line for each SockJS frame."""
        self.router.admit(self.session_id, self.grant, self.caller)
        super().post(self.session_id)


class EventSource(_Receiver, EventSourceTransport):  # type: ignore[misc]
    """Messages as server-sent events."""

    @operation(str, media=EVENTS, errors=(TooManySessions,))
    def get(self) -> None:
        """Return an event for each SockJS frame."""
        self.router.admit(self.session_id, self.grant, self.caller)
        super().get(self.session_id)

    def head(self, *args: str, **kwargs: str) -> None:
        """Return the headers."""
        self.disable_cache()
        self.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self.finish()


class XhrSend(Transport):
    """Messages from the client."""

    methods = ("POST",)

    @operation(status=204, body=list[str], body_media=TEXT, text_errors=(500,))
    async def post(self) -> None:
        """Send a JSON array of strings. Returns 404 if the session is not open.

        The protocol requires 500 for an invalid body.
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
        self.flush()  # `finish` would remove the content type, and some browsers then expect XML
        self.finish()

    def _refuse(self, text: str) -> None:
        self.set_status(500)
        self.finish(text)
