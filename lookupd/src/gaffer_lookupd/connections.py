"""The websockets of the nodes: carries messages to the registry, replies back, and closes what the registry ends."""

import asyncio
import logging
import time
from collections.abc import Iterable

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from gaffer.complaints import Complaints
from gaffer_lookupd.changes import MemoryChanges
from gaffer_lookupd.protocol import answer
from gaffer_lookupd.registry import Registry

_GOING_AWAY = 1001

logger = logging.getLogger(__name__)


class Connections:
    """The open websockets by session, and the clock of the registry's leases."""

    def __init__(self, registry: Registry, changes: MemoryChanges) -> None:
        self.registry = registry
        self._changes = changes
        self._complaints = Complaints()
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

    def add(self, socket: WebSocketHandler) -> int:
        """A websocket was opened; returns its session."""
        session = self.registry.connect(time.monotonic())
        self._sockets[session] = socket
        return session

    def receive(self, session: int, message: str | bytes) -> "asyncio.Future[None] | None":
        """A message came on a session's websocket; the reply is written when the future is done."""
        socket = self._sockets.get(session)
        if socket is None:
            return None
        reply = answer(self.registry, session, message, time.monotonic())
        self._changes.tell()
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
        self._sockets.pop(session, None)
        self.registry.disconnect(session, time.monotonic())

    def delete(self, node_id: str) -> None:
        """Remove a node on an operator's order; raises Refused (404)."""
        self._close(self.registry.delete(node_id, time.monotonic()))

    def complain(self, socket: WebSocketHandler, what: str) -> None:
        """Log what is wrong with the peer at the other end."""
        self._complaints.warn(f"{socket.request.remote_ip}: {what}", time.monotonic())

    def _tick(self) -> None:
        was_stale = self.registry.stale
        self._close(self.registry.tick(time.monotonic()))
        if self.registry.stale and not was_stale:
            logger.warning("more than half of the nodes went silent at once: none is removed, answers are stale")
        elif was_stale and not self.registry.stale:
            logger.warning("answers are no longer stale")
        self._timer = asyncio.get_running_loop().call_later(self.registry.lease.tick, self._tick)

    def _close(self, sessions: Iterable[int]) -> None:
        for session in sessions:
            socket = self._sockets.pop(session, None)
            if socket is not None:
                socket.close(reason="the session has ended")
