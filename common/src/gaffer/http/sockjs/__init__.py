"""SockJS 0.3: bidirectional messages for web pages, over a websocket or, as a fallback, over HTTP.

A Service exchanges messages with Connections, which a SockJS creates for clients below a prefix:

    CHANNEL = SockJS("/channel", make_service)
    ROUTES = [..., *CHANNEL.routes(Scope.READ)]
"""

from collections.abc import Callable
from typing import Any, TypeVar

from gaffer.http.access import Scope
from gaffer.http.base import Application
from gaffer.http.routes import Open, Route
from gaffer.http.sockjs.connection import Connection, ConnectionClosed, Service
from gaffer.http.sockjs.pages import ClientScript, Greeting, Iframe, Info, SockJSHandler
from gaffer.http.sockjs.router import Router, Settings
from gaffer.http.sockjs.transports import EventSource, XhrPolling, XhrSend, XhrStreaming
from gaffer.http.sockjs.websockets import RawWebSocket, WebSocket

__all__ = ["Connection", "ConnectionClosed", "Service", "SockJS"]

H = TypeVar("H", bound=SockJSHandler)


class SockJS:
    """A SockJS endpoint below `prefix`, which has no trailing slash.

    make_service: called with the Application on its first request. heartbeat: seconds between two heartbeats on a
    silent connection. disconnect_delay: seconds that a session lives without a request that fetches its messages.
    response_limit: size in bytes at which a streamed response ends, so that the client sends a new request.
    buffer_limit: bytes that may be queued for a client before `send` waits. max_sessions: maximum number of clients
    without a websocket; further ones get 503. max_strangers: maximum number of unauthenticated clients among them;
    these are displaced when either limit is reached.
    """

    def __init__(
        self,
        prefix: str,
        make_service: Callable[[Any], Service],
        *,
        heartbeat: float = 25.0,
        disconnect_delay: float = 5.0,
        response_limit: int = 128 * 1024,
        buffer_limit: int = 64 * 1024,
        max_sessions: int = 4096,
        max_strangers: int = 256,
    ) -> None:
        self.prefix = prefix
        self._make_service = make_service
        self._settings = Settings(
            heartbeat, disconnect_delay, response_limit, buffer_limit, max_sessions, max_strangers
        )

    def routes(self, scope: Scope | Open) -> list[Route]:
        """Return the routes of the endpoint, each of which requires `scope`."""
        session = f"{self.prefix}/{{server}}/{{session}}"
        handlers: list[tuple[str, type[SockJSHandler]]] = [
            (self.prefix, Greeting),
            (f"{self.prefix}/", Greeting),
            (f"{self.prefix}/info", Info),
            (f"{self.prefix}/sockjs.min.js", ClientScript),
            (f"{self.prefix}/{{server}}", Iframe),  # a parameter has the same name in all routes
            (f"{self.prefix}/websocket", RawWebSocket),
            (f"{session}/websocket", WebSocket),
            (f"{session}/xhr", XhrPolling),
            (f"{session}/xhr_send", XhrSend),
            (f"{session}/xhr_streaming", XhrStreaming),
            (f"{session}/eventsource", EventSource),
        ]
        return [
            Route(pattern, self._bind(handler), dict.fromkeys(handler.methods, scope), accepts_text=True)
            for pattern, handler in handlers
        ]

    def router(self, application: Application) -> Router:
        """Return the sessions of an application."""
        key = f"sockjs {self.prefix}"
        found = application.settings.get(key)
        if found is None:
            found = application.settings[key] = Router(
                self._make_service(application), self._settings, application.policy.is_known
            )
        return found

    def close(self, application: Application) -> None:
        """Close all connections of an application before it stops. Call it on the loop."""
        router: Router | None = application.settings.get(f"sockjs {self.prefix}")
        if router is not None:
            router.close()

    def _bind(self, handler: type[H]) -> type[H]:
        attributes = {"sockjs": self, "__doc__": handler.__doc__, "__module__": handler.__module__}
        return type(handler.__name__, (handler,), attributes)
