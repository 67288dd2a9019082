"""The interface between SockJS and applications: a Service and its Connections."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from tornado.httputil import HTTPServerRequest

from gaffer.errors import GafferError
from gaffer.http.access import Grant

if TYPE_CHECKING:
    from gaffer.http.sockjs.sessions import FramedSession, RawSession

GO_AWAY = (3000, "Go away!")


class ConnectionClosed(GafferError):
    """The connection was closed by either side."""

    errno = 410
    reason = "connection_closed"


class Connection:
    """A client on any transport. Created by SockJS; compares by identity. Use it on its loop."""

    def __init__(self, session: "FramedSession | RawSession") -> None:
        self._session = session

    @property
    def grant(self) -> Grant:
        """The grant of the client: that of the request that opened the connection, or the last one adopted."""
        return self._session.grant

    @property
    def request(self) -> HTTPServerRequest | None:
        """The request that opened the connection."""
        return self._session.request

    @property
    def open(self) -> bool:
        """Whether the connection is open."""
        return not self._session.is_closed

    def adopt(self, grant: Grant) -> None:
        """Replace the grant; the connection is closed when it is revoked."""
        self._session.adopt(grant)

    @property
    def has_room(self) -> bool:
        """Whether the connection is open and `send` would not wait."""
        return self._session.has_room

    async def wait_for_room(self) -> None:
        """Wait until `has_room` is true. Raises ConnectionClosed."""
        await self._session.wait_for_room()

    async def send(self, text: str) -> None:
        """Send a message, after waiting while the buffer of the client is full. Raises ConnectionClosed."""
        await self._session.wait_for_room()
        self._session.send_message(text)

    def send_now(self, text: str) -> None:
        """Send a message without waiting; call only when `has_room` is true."""
        self._session.send_message(text)

    def close(self, code: int = GO_AWAY[0], reason: str = GO_AWAY[1]) -> None:
        """Close the connection after the client has received earlier messages, or after `disconnect_delay`.

        `closed` of the service is called at once. `code` is defined by RFC 6455 section 7.4 (3000 to 4999 are free),
        `reason` has at most 120 bytes.
        """
        self._session.close(code, reason)


class Service(Protocol):
    """The application protocol; one instance handles all connections of an application."""

    def opened(self, connection: Connection) -> None:
        """Called when a client has connected."""

    def received(self, connection: Connection, text: str) -> Awaitable[None] | None:
        """Called for a message from a client. The next one is read when the returned awaitable, if any, is done."""

    def closed(self, connection: Connection) -> None:
        """Called once when a connection that was `opened` has been closed by either side."""
