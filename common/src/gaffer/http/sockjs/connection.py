"""What SockJS and those who serve on it have to do with each other: a Service, and its Connections."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from gaffer.errors import GafferError
from gaffer.http.access import Grant

if TYPE_CHECKING:
    from gaffer.http.sockjs.sessions import FramedSession, RawSession

GO_AWAY = (3000, "Go away!")


class ConnectionClosed(GafferError):
    """The other side is gone, or was told to go."""

    errno = 410
    reason = "connection_closed"


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

    @property
    def has_room(self) -> bool:
        """Whether it is open and `send` would not wait."""
        return self._session.has_room

    async def wait_for_room(self) -> None:
        """Wait until `send` would not wait. Raises ConnectionClosed."""
        await self._session.wait_for_room()

    async def send(self, text: str) -> None:
        """Send a message; waits while the buffer for this client is full. Raises ConnectionClosed."""
        await self._session.wait_for_room()
        self._session.send_message(text)

    def send_now(self, text: str) -> None:
        """Send a message without waiting, for who has asked whether it `has_room`."""
        self._session.send_message(text)

    def close(self, code: int = GO_AWAY[0], reason: str = GO_AWAY[1]) -> None:
        """Close it, once the client has what was sent before, for which it has the `disconnect_delay`.

        `closed` of the service is called at once.
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
