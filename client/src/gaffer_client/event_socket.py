"""Websockets that receive events: `EventSocket`, and `LookupSocket` for the changes of a lookup."""

import threading
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from gaffer_client.connection import PING_INTERVAL, Connection
from gaffer_client.errors import GafferClientError, MalformedAnswer, Unreachable
from gaffer_client.listeners import Bindable
from gaffer_client.transport import Transport


class EventSocket(Bindable):
    """A websocket whose messages are JSON objects with an `event`; listeners are called in a separate thread.

    A slow listener delays the following messages. A lost connection is not reopened. `ping_interval` is the time in
    seconds after which a silent connection is pinged.
    """

    path = ""

    def __init__(self, transport: Transport, *, ping_interval: float = PING_INTERVAL) -> None:
        super().__init__()
        self.error: GafferClientError | None = None  # why the connection ended, None after `close`
        self._transport = transport
        self._ping_interval = ping_interval
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._transport.url

    def start(self) -> None:
        """Connect; raise the StatusError of an error response, or Unreachable without a response."""
        if self._connection is None:
            self._connection = Connection(self._transport, self.path, ping_interval=self._ping_interval)
            self._thread = threading.Thread(target=self._receive, name=f"{self.path} of {self.url}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Close the connection and wait for the end of the thread, unless called from that thread."""
        self._closing = True
        if self._connection is not None:
            self._connection.close()
        if self._thread is not threading.current_thread():
            self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for the connection to end; return whether it did. See `error` for the reason."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    # Overridden by subclasses

    def _handle(self, event: str, message: Mapping[str, Any]) -> None:
        """Handle a message; raise KeyError or TypeError if it is invalid."""
        self._listeners.deliver(event, message)

    def _ended(self) -> None:
        """Handle the end of the connection; called in the thread."""

    # Implementation

    def _receive(self) -> None:
        assert self._connection is not None
        try:
            while (text := self._connection.receive()) is not None:
                self._decode(text)
            if not self._closing:
                why = self._connection.close_reason or f"code {self._connection.close_code}"
                raise Unreachable(f"{self.url} closed the connection: {why}", url=self.url)
        except GafferClientError as error:
            self.error = self.error or error
        self._ended()

    def _decode(self, text: str | bytes) -> None:
        try:
            message = msgspec.json.decode(text)
            self._handle(str(message["event"]), message)
        except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
            raise MalformedAnswer(f"{self.url} sent an invalid message: {error!r}", url=self.url) from None


class LookupSocket(EventSocket):
    """The changes of one lookup from now on: `add_node`, `remove_job`...

    A lookup closes connections of clients that are too slow. See LiveLookup for a copy that detects missed changes.
    """

    path = "/lookup/websocket"
