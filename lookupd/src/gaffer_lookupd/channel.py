"""SockJS at `/lookup`, and the raw websocket `/lookup/websocket`: each new change as a message.

Messages are only sent to the client. A client that can't keep up is disconnected, so it never misses a message
unknowingly.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gaffer.http.access import Scope
from gaffer.http.sockjs import Connection, ConnectionClosed, SockJS
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.readers import Readers

if TYPE_CHECKING:
    from gaffer_lookupd.application import LookupApplication

DISPLACED = (4001, "displaced by newer followers: connect again later")
OVERTAKEN = (4000, "too slow, changes were lost: reconnect and request /jobs")


class Channel:
    """The service for all connections."""

    def __init__(self, changes: ChangeLog, readers: Readers) -> None:
        self._changes = changes
        self._readers = readers
        self._followers: dict[Connection, _Follower] = {}

    def opened(self, connection: Connection) -> None:
        """Follow the changes for the connection."""
        follower = self._followers[connection] = _Follower(connection, self._changes)
        self._changes.watch(follower.pump)
        known = Scope.CONTROL in connection.grant.scopes
        self._readers.admit(connection, lambda: connection.close(*DISPLACED), known=known)

    def received(self, connection: Connection, text: str) -> None:
        """Ignore messages of the client."""

    def closed(self, connection: Connection) -> None:
        """Stop following the changes."""
        self._readers.leave(connection)
        self._changes.unwatch(self._followers.pop(connection).pump)


class _Follower:
    """A follower that sends new changes as fast as its connection accepts them, without buffering."""

    def __init__(self, connection: Connection, changes: ChangeLog) -> None:
        self._connection = connection
        self._changes = changes
        self._position = changes.end
        self._waiting: asyncio.Task[None] | None = None

    def pump(self) -> None:
        """Send available changes, and the rest once the connection has room."""
        if self._waiting is not None:
            return
        while self._position < self._changes.end:
            records = self._changes.read(self._position)
            if records.gap:
                self._connection.close(*OVERTAKEN)
                return
            for change in records.items:
                if not self._connection.has_room:
                    self._waiting = asyncio.create_task(self._wait())
                    return
                self._connection.send_now(change.to_json().decode())
                self._position = change.seq

    async def _wait(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._connection.wait_for_room()
            self._waiting = None
            self.pump()


def _make_channel(application: "LookupApplication") -> Channel:
    return Channel(application.changes, application.readers)


CHANNEL = SockJS("/lookup", _make_channel)
