"""Where connections wait that may be strangers', while strangers hold all that they may.

A stranger that loses its connection comes back at once. Serving all of them again and again would leave no time for
others, so they wait for their turn. A connection whose first bytes show a valid key does not wait.
"""

import asyncio
import socket
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from gaffer.http.access import Peer
from gaffer.http.quota import Quota

TURN = 0.02  # seconds from one turn to the next

_HEAD = 4096  # bytes of a request that are looked at for a key


class Arrival(NamedTuple):
    """A connection that was accepted, and where it comes from."""

    connection: socket.socket
    address: Any
    peer: Peer


class WaitingRoom:
    """At most `limit` arrivals. To be used on the loop.

    `shows_key` says whether the beginning of a request shows a valid key, `serve` serves an arrival for good,
    `has_room` says whether a stranger can be served without displacing another. `refused` counts those that had to
    leave for others.
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
        """Let the arrival wait; when there are too many, the oldest of the source with most of them leaves."""
        if self._arrivals.is_full and (victim := self._arrivals.victim) is not None:
            self.refused += 1
            self._take(victim).connection.close()
        arrival.connection.setblocking(False)
        self._arrivals.add(arrival, source)
        self._loop.add_reader(arrival.connection, self._look_at, arrival)
        if self._timer is None:
            self._timer = self._loop.call_later(TURN, self._turn)

    def close(self) -> None:
        """Close all that wait."""
        while (arrival := self._arrivals.fairest) is not None:
            self._take(arrival).connection.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, arrival: Arrival) -> None:
        """Something came: serve the arrival if it is a key, else let it wait for its turn."""
        try:
            head = arrival.connection.recv(_HEAD, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        self._loop.remove_reader(arrival.connection)
        if not head:  # it is gone
            self._take(arrival).connection.close()
        elif self._shows_key(head):
            self._serve(self._take(arrival))

    def _turn(self) -> None:
        """Serve the oldest arrival of the source with fewest, and more while there is room."""
        self._timer = None
        while (arrival := self._arrivals.fairest) is not None:
            had_room = self._has_room()
            self._serve(self._take(arrival))
            if not had_room:
                break
        if self._arrivals:
            self._timer = self._loop.call_later(TURN, self._turn)

    def _take(self, arrival: Arrival) -> Arrival:
        self._loop.remove_reader(arrival.connection)
        self._arrivals.discard(arrival)
        return arrival
