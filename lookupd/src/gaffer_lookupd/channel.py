"""SockJS at `/lookup`, and the raw websocket `/lookup/websocket`: each change as a message, from now on (LP-40).

Messages go to the client only. A client that doesn't keep up loses none unnoticed: it is closed.
"""

import asyncio
from typing import TYPE_CHECKING

from gaffer.http.sockjs import Connection, ConnectionClosed, SockJS
from gaffer.streams import Cursor, Records
from gaffer_lookupd.changes import Change, MemoryChanges

if TYPE_CHECKING:
    from gaffer_lookupd.application import LookupApplication

OVERTAKEN = (4000, "you were too slow and changes are lost: connect again and ask /jobs")


class Channel:
    """The service of all connections."""

    def __init__(self, changes: MemoryChanges) -> None:
        self._changes = changes
        self._followers: dict[Connection, tuple[Cursor[Records[Change]], asyncio.Task[None]]] = {}

    def opened(self, connection: Connection) -> None:
        """Follow the changes for the connection."""
        cursor = Cursor(self._changes)
        self._followers[connection] = cursor, asyncio.create_task(_follow(connection, cursor))

    def received(self, connection: Connection, text: str) -> None:
        """There is nothing that a client could ask."""

    def closed(self, connection: Connection) -> None:
        """Follow no longer."""
        cursor, _task = self._followers.pop(connection)
        cursor.end()


async def _follow(connection: Connection, cursor: Cursor[Records[Change]]) -> None:
    try:
        while (records := await cursor.next()) is not None:
            if records.gap:
                connection.close(*OVERTAKEN)
                return
            for change in records.items:
                await connection.send(change.to_json().decode())
    except ConnectionClosed:
        pass


def _make_channel(application: "LookupApplication") -> Channel:
    return Channel(application.changes)


CHANNEL = SockJS("/lookup", _make_channel)
