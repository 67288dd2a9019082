"""A peer of lookupd that says exactly what a test tells it to, over a real websocket."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import websocket


class Peer:
    """One websocket to a lookupd."""

    def __init__(self, url: str, **options: Any) -> None:
        self._socket = websocket.create_connection(
            url.replace("http", "ws", 1) + "/ws", timeout=10, suppress_origin=True, **options
        )
        self._numbers = itertools.count(1)

    def raw(self, text: str) -> dict[str, Any]:
        """Send any text and return the reply."""
        self._socket.send(text)
        reply: dict[str, Any] = json.loads(self._socket.recv())
        return reply

    def send(self, text: str) -> None:
        """Send any text and wait for nothing."""
        self._socket.send(text)

    def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        """Send a message with a `msgid` of its own and return the reply without it."""
        msgid = f"m{next(self._numbers)}"
        reply = self.raw(json.dumps({"msgid": msgid, "type": type, **fields}))
        assert reply.pop("msgid") == msgid
        return reply

    def identify(self, name: str = "n1", **fields: Any) -> dict[str, Any]:
        """Identify as a peer of 0.5, or with more fields as a newer one."""
        return self.ask("IDENTIFY", **{"name": name, "origin": f"http://{name}:5000", "version": "0.1", **fields})

    def is_closed(self) -> bool:
        """Wait for the server to close the connection."""
        try:
            return self._socket.recv() == ""
        except ConnectionError:  # with something of ours unread
            return True

    def close(self) -> None:
        """End the connection as a killed process does: no close frame, only the socket's end."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def peer(url: str, **options: Any) -> Iterator[Peer]:
    """A peer of the lookupd at `url`, connected during the block."""
    connected = Peer(url, **options)
    try:
        yield connected
    finally:
        connected.close()
