"""The websockets of the nodes: carries messages to the registry, replies back, and closes what the registry ends."""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, cast

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from gaffer.runtime.throttled import ThrottledWarnings
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.log_budget import Verdict, WarningBudget
from gaffer_lookupd.protocol import answer
from gaffer_lookupd.readers import Readers
from gaffer_lookupd.registry import Registry

_GOING_AWAY = 1001

logger = logging.getLogger(__name__)


class Connections:
    """The open websockets by session, and the clock of the registry's leases."""

    def __init__(self, registry: Registry, changes: ChangeLog, readers: Readers) -> None:
        self.registry = registry
        self._changes = changes
        self._readers = readers  # peers are counted there until they identify themselves
        self._complaints = ThrottledWarnings()
        self._budget = WarningBudget()
        self._sockets: dict[int, WebSocketHandler] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sockets)

    def start(self) -> None:
        """Begin to check leases; called on the loop."""
        self._tick()

    def stop(self) -> None:
        """Check no more leases and close every websocket."""
        if self._timer is not None:
            self._timer.cancel()
        for socket in self._sockets.values():
            socket.close(_GOING_AWAY, "lookupd stops")
        self._sockets.clear()

    def add(self, socket: WebSocketHandler, *, known: bool) -> int:
        """A websocket was opened, by a `known` caller if it showed the cluster key; returns its session."""
        session = self.registry.connect(time.monotonic())
        self._sockets[session] = socket
        self._readers.admit(session, lambda: self._displace(session), known=known)
        return session

    def receive(self, session: int, message: str | bytes) -> "asyncio.Future[None] | None":
        """A message came on a session's websocket; the reply is written when the future is done."""
        socket = self._sockets.get(session)
        if socket is None:
            return None
        reply = answer(self.registry, session, message, time.monotonic())
        self._changes.notify()
        if reply.identified:
            self._readers.leave(session)
        if reply.complaint:
            self.complain(socket, reply.complaint)
        try:
            return socket.write_message(reply.text)
        except WebSocketClosedError:
            return None
        finally:
            self._close(reply.close)

    def closed(self, session: int) -> None:
        """A session's websocket was closed, from either side."""
        self._readers.leave(session)
        self._sockets.pop(session, None)
        self.registry.disconnect(session, time.monotonic())

    def is_identified(self, session: int) -> bool:
        """Whether the peer of a session has identified itself."""
        return self.registry.node_of(session) is not None

    def delete(self, node_id: str) -> None:
        """Remove a node on an operator's order; raises Refused (404)."""
        self._close(self.registry.delete(node_id, time.monotonic()))

    def complain(self, socket: WebSocketHandler, what: str) -> None:
        """Log what is wrong with the peer at the other end; its part of the log is bounded, whatever it writes."""
        address, now = str(socket.request.remote_ip), time.monotonic()
        match self._budget.spend(address, now):
            case Verdict.LOG:
                self._complaints.warn(f"{address}: {what}", now)
            case Verdict.LAST:
                logger.warning("%s: more warnings about this address are not logged for a while", address)

    def _tick(self) -> None:
        preserved, warmed = self.registry.preserving, self.registry.warming
        self._close(self.registry.tick(time.monotonic()))
        if self.registry.preserving and not preserved:
            logger.warning("more than half of the nodes went silent at once: none is removed, answers are stale")
        elif preserved and not self.registry.preserving:
            logger.warning("answers are no longer stale")
        if warmed and not self.registry.warming:
            logger.info("warmed up: answers are no longer provisional")
        self._timer = asyncio.get_running_loop().call_later(self.registry.lease.tick, self._tick)

    def _displace(self, session: int) -> None:
        socket = self._sockets.get(session)
        if socket is not None and socket.ws_connection is not None:
            cast(
                Any, socket.ws_connection
            ).stream.close()  # at once: a closing handshake takes as long as the peer likes

    def _close(self, sessions: Iterable[int]) -> None:
        for session in sessions:
            socket = self._sockets.pop(session, None)
            if socket is not None:
                socket.close(reason="the session has ended")
