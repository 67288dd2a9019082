"""A websocket on which a server tells what happens: `EventSocket`, and `LookupSocket` for the changes of a lookup."""

import threading
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from gaffer_client.connection import PING_INTERVAL, Connection
from gaffer_client.errors import GafferClientError, MalformedAnswer, Unreachable
from gaffer_client.listeners import Bindable
from gaffer_client.transport import Transport


class EventSocket(Bindable):
    """A websocket whose messages are JSON objects with an `event`; listeners are called in a thread of its own.

    A listener that takes long holds back the messages behind it. The connection is not made again once it is lost.
    `ping_interval` is the time in seconds after which a silent connection is tested.
    """

    path = ""

    def __init__(self, transport: Transport, *, ping_interval: float = PING_INTERVAL) -> None:
        super().__init__()
        self.error: GafferClientError | None = None  # what ended it, None when that was `close`
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
        """The server."""
        return self._transport.url

    def start(self) -> None:
        """Connect; raises the StatusError of a server that refuses, Unreachable without an answer."""
        if self._connection is None:
            self._connection = Connection(self._transport, self.path, ping_interval=self._ping_interval)
            self._thread = threading.Thread(target=self._receive, name=f"{self.path} of {self.url}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Close the connection, and wait for the end of the thread unless that is the calling one."""
        self._closing = True
        if self._connection is not None:
            self._connection.close()
        if self._thread is not threading.current_thread():
            self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the connection has ended, so many seconds at most; whether it has. `error` tells why."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    # What heirs change

    def _handle(self, event: str, message: Mapping[str, Any]) -> None:
        """A message came; raises KeyError or TypeError when it can't be."""
        self._listeners.deliver(event, message)

    def _ended(self) -> None:
        """No more messages come; called in the thread."""

    # How it works

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
    """What changes at one lookup, from now on (LP-40 to LP-44): listeners get `add_node`, `remove_job`...

    A lookup ends the connection of who is too slow. See LiveLookup for a copy that is never behind unnoticed.
    """

    path = "/lookup/websocket"
