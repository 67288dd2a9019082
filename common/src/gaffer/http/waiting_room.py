"""A queue for connections that may be unauthenticated, used while the quota of these is full.

Unauthenticated clients that lose their connection reconnect at once. Serving all of them repeatedly would leave no time
for other callers, so they are served at a limited rate. Connections whose first bytes contain a valid key skip it.
"""

import asyncio
import socket
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from gaffer.http.access import Peer
from gaffer.http.quota import Quota

TURN = 0.02  # seconds from one turn to the next

_AT_ONCE = 4  # arrivals that are served in one turn if there is room
_HEAD = 4096  # bytes of a request that are searched for a key


class Arrival(NamedTuple):
    """An accepted connection and its origin."""

    connection: socket.socket
    address: Any
    peer: Peer


class WaitingRoom:
    """A queue of at most `limit` arrivals. Use it on the loop.

    `shows_key` returns whether the start of a request contains a valid key, `serve` takes over an arrival, `has_room`
    returns whether an unauthenticated one can be served without displacing another. `refused` counts arrivals that were
    closed because the room was full.
    """

    def __init__(
        self,
        limit: int,
        shows_key: Callable[[bytes], bool],
        serve: Callable[[Arrival], None],
        has_room: Callable[[], bool],
    ) -> None:
        self.refused = 0
        self._shows_key = shows_key
        self._serve = serve
        self._has_room = has_room
        self._arrivals: Quota[Arrival] = Quota(limit)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._arrivals)

    def add(self, arrival: Arrival, source: Hashable) -> None:
        """Add an arrival; if the room is full, close the oldest one of the source that has the most."""
        if self._arrivals.is_full and (victim := self._arrivals.victim) is not None:
            self.refused += 1
            self._remove(victim).connection.close()
        arrival.connection.setblocking(False)
        self._arrivals.add(arrival, source)
        self._loop.add_reader(arrival.connection, self._on_readable, arrival)
        if self._timer is None:
            self._timer = self._loop.call_later(TURN, self._turn)

    def close(self) -> None:
        """Close all arrivals."""
        while (arrival := self._arrivals.fairest) is not None:
            self._remove(arrival).connection.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_readable(self, arrival: Arrival) -> None:
        """Serve the arrival if it sent a valid key, else keep it for its turn."""
        try:
            head = arrival.connection.recv(_HEAD, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        self._loop.remove_reader(arrival.connection)
        if not head:  # closed by the client
            self._remove(arrival).connection.close()
        elif self._shows_key(head):
            self._serve(self._remove(arrival))

    def _turn(self) -> None:
        """Serve the oldest arrival of the source that has the fewest, and some more if there is room."""
        self._timer = None
        for _ in range(_AT_ONCE):
            had_room = self._has_room()
            if (arrival := self._arrivals.fairest) is not None:
                self._serve(self._remove(arrival))
            if not had_room:
                break
        if self._arrivals:
            self._timer = self._loop.call_later(TURN, self._turn)

    def _remove(self, arrival: Arrival) -> Arrival:
        self._loop.remove_reader(arrival.connection)
        self._arrivals.discard(arrival)
        return arrival
