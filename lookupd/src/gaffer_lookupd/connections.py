"""The websockets of the nodes: passes messages to the registry and replies back, and closes ended sessions."""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, cast

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from gaffer.runtime.throttled import ThrottledWarnings
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.log_budget import Verdict, WarningBudget
from gaffer_lookupd.protocol import handle_message
from gaffer_lookupd.readers import Readers
from gaffer_lookupd.registry import Registry

_GOING_AWAY = 1001

logger = logging.getLogger(__name__)


class Connections:
    """The open websockets by session, and the clock of the registry's leases."""

    def __init__(self, registry: Registry, changes: ChangeLog, readers: Readers) -> None:
        self.registry = registry
        self._changes = changes
        self._readers = readers  # also counts peers that have not identified themselves
        self._warnings = ThrottledWarnings()
        self._budget = WarningBudget()
        self._sockets: dict[int, WebSocketHandler] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sockets)

    def start(self) -> None:
        """Start checking leases; call it on the loop."""
        self._tick()

    def stop(self) -> None:
        """Stop checking leases and close all websockets."""
        if self._timer is not None:
            self._timer.cancel()
        for socket in self._sockets.values():
            socket.close(_GOING_AWAY, "lookupd is stopping")
        self._sockets.clear()

    def add(self, socket: WebSocketHandler, *, known: bool) -> int:
        """Add a new websocket and return its session; `known`: its peer presented the cluster key."""
        session = self.registry.connect(time.monotonic())
        self._sockets[session] = socket
        self._readers.admit(session, lambda: self._displace(session), known=known)
        return session

    def receive(self, session: int, message: str | bytes) -> "asyncio.Future[None] | None":
        """Handle a message on a session's websocket; the returned future is done when the reply is written."""
        socket = self._sockets.get(session)
        if socket is None:
            return None
        reply = handle_message(self.registry, session, message, time.monotonic())
        self._changes.notify()
        if reply.identified:
            self._readers.leave(session)
        if reply.warning:
            self.warn(socket, reply.warning)
        try:
            return socket.write_message(reply.text)
        except WebSocketClosedError:
            return None
        finally:
            self._close(reply.close)

    def closed(self, session: int) -> None:
        """Handle the end of a session's websocket, closed by either side."""
        self._readers.leave(session)
        self._sockets.pop(session, None)
        self.registry.disconnect(session, time.monotonic())

    def is_identified(self, session: int) -> bool:
        """Return whether the peer of a session has identified itself."""
        return self.registry.node_of(session) is not None

    def delete(self, node_id: str) -> None:
        """Remove a node by request of an operator; raises Refused (404)."""
        self._close(self.registry.delete(node_id, time.monotonic()))

    def warn(self, socket: WebSocketHandler, text: str) -> None:
        """Log a warning about the peer of `socket`; the number of warnings per address is limited."""
        address, now = str(socket.request.remote_ip), time.monotonic()
        match self._budget.spend(address, now):
            case Verdict.LOG:
                self._warnings.warn(f"{address}: {text}", now)
            case Verdict.LAST:
                logger.warning("%s: more warnings about this address are not logged for a while", address)

    def _tick(self) -> None:
        preserved, warmed = self.registry.preserving, self.registry.warming
        self._close(self.registry.tick(time.monotonic()))
        if self.registry.preserving and not preserved:
            logger.warning("more than half of the nodes went silent at once: none is removed, responses are stale")
        elif preserved and not self.registry.preserving:
            logger.warning("responses are no longer stale")
        if warmed and not self.registry.warming:
            logger.info("warmed up: responses are complete")
        self._timer = asyncio.get_running_loop().call_later(self.registry.lease.tick, self._tick)

    def _displace(self, session: int) -> None:
        socket = self._sockets.get(session)
        if socket is not None and socket.ws_connection is not None:
            cast(Any, socket.ws_connection).stream.close()  # at once, since the peer could delay a closing handshake

    def _close(self, sessions: Iterable[int]) -> None:
        for session in sessions:
            socket = self._sockets.pop(session, None)
            if socket is not None:
                socket.close(reason="the session has ended")
