"""One websocket to a server at an http, https or unix URL.

wsproto implements the protocol (RFC 6455); this module adds the socket, the key, limits and timeouts.
"""

import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import ConnectionState
from wsproto.utilities import ProtocolError

from gaffer_client.errors import GafferClientError, MalformedAnswer
from gaffer_client.proof import check_server
from gaffer_client.sockets import open_socket, translated_errors
from gaffer_client.transport import MAX_ANSWER, Answer, Transport, connection_lost, refusal, unreachable, with_query

PING_INTERVAL = 15.0  # seconds
CLOSE_TIMEOUT = 1.0  # seconds for the closing handshake

_READ_SIZE = 64 * 1024
_MAX_REFUSAL = 64 * 1024  # bytes of the body of an error response

_NORMAL, _TOO_BIG, _ABNORMAL = 1000, 1009, 1006


class Connection:
    """A websocket at `path` of the server of a transport; opened by the constructor, and to be closed with `close`.

    One thread may receive while others send or close. While a thread is receiving, a ping is sent after
    `ping_interval` seconds of silence, and after the same time again the connection counts as lost. Opening it takes at
    most the timeout of the transport, and ends at `deadline`, in monotonic seconds.

    Raises the StatusError of an error response, Unreachable without a response, UntrustedServer if the key may not be
    sent to the server, and MalformedAnswer if it is not a websocket or a message exceeds `max_message` bytes.
    """

    def __init__(
        self,
        transport: Transport,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        ping_interval: float = PING_INTERVAL,
        max_message: int = MAX_ANSWER,
        deadline: float = math.inf,
    ) -> None:
        self.url = transport.url
        self.close_code: int | None = None  # set once either side has closed the connection
        self.close_reason = ""
        self._timeout = transport.timeout
        self._ping_interval = ping_interval
        self._max_message = max_message
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._messages: deque[str | bytes] = deque()
        self._parts: list[Any] = []
        self._size = 0
        self._failure: GafferClientError | None = None
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._transport = transport
        deadline = min(deadline, time.monotonic() + self._timeout)
        self._socket = open_socket(transport, deadline)
        self._socket.deadline = deadline
        try:
            with self._guarded():
                if transport.security.api_key is not None:
                    self.check_server()
                self._handshake(transport, with_query(path, query))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def check_server(self) -> None:
        """Raise UntrustedServer unless keys and environments may be sent to the server."""
        check_server(self._socket, self._transport)

    def send(self, message: str | bytes) -> None:
        """Send a text or binary message; raise Unreachable if the connection is closed."""
        if isinstance(message, str):
            message.encode()  # an invalid text must not break the connection
            self._send(events.TextMessage(message))
        else:
            self._send(events.BytesMessage(message))

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Return the next message, or None once the connection is closed properly.

        Raises TimeoutError after `timeout` seconds without a message, and Unreachable if the connection is lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pinged = False
        with self._receiving:
            with suppress(GafferClientError), self._guarded():
                self._process_events()  # events may have arrived with the handshake
            while not self._messages:
                if self._failure is not None:
                    raise self._failure
                if self.close_code is not None:
                    return None
                left = self._ping_interval if deadline is None else max(0.0, deadline - time.monotonic())
                if self._readable(min(self._ping_interval, left)):
                    pinged = False
                    # An error is raised after the messages before it.
                    with suppress(GafferClientError), self._guarded():
                        self._process(self._socket.recv(_READ_SIZE))
                elif left < self._ping_interval:
                    raise TimeoutError(f"{self.url} sent nothing within {timeout} s")
                elif pinged:
                    self._fail(unreachable(self.url, f"silent for {2 * self._ping_interval:g} s"))
                else:
                    pinged = True
                    self._send(events.Ping())
            return self._messages.popleft()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the connection; wait up to `timeout` seconds for the server to process all messages."""
        deadline = time.monotonic() + timeout
        if self.close_code is None:
            try:
                self._send(events.CloseConnection(_NORMAL))
                self._await_close(deadline)
            except GafferClientError:
                pass  # closed anyway
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the receiving thread
        except OSError:
            pass  # already closed by the server
        with self._receiving:
            self._finish(_NORMAL, "")
            self._socket.close()

    def _handshake(self, transport: Transport, target: str) -> None:
        base = urlsplit(transport.address.base)
        headers = [(name.encode(), value.encode()) for name, value in transport.security.headers.items()]
        opening = events.Request(base.netloc, base.path + target, extra_headers=headers)
        self._socket.sendall(self._protocol.send(opening))
        refused: events.RejectConnection | None = None
        body = b""
        while True:
            data = self._socket.recv(_READ_SIZE)
            if not data and refused is None:
                raise connection_lost(self.url, "the connection was closed")
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                match event:
                    case events.AcceptConnection():
                        self._socket.deadline = math.inf
                        self._socket.settimeout(self._timeout)
                        return
                    case events.RejectConnection():
                        refused = event
                    case events.RejectData():
                        body += event.data
            ended = not data or self._protocol.state is ConnectionState.CLOSED or len(body) > _MAX_REFUSAL
            if refused is not None and ended:
                if refused.status_code < 300:
                    raise ProtocolError(f"no websocket at {target.partition('?')[0]}")
                raise refusal(Answer(refused.status_code, body), self.url)

    def _readable(self, seconds: float) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _send(self, event: events.Event) -> None:
        with self._sending:
            if self.close_code is not None or self._protocol.state is ConnectionState.LOCAL_CLOSING:
                raise self._failure or unreachable(self.url, "the connection is closed")
            with self._guarded():
                self._socket.sendall(self._protocol.send(event))

    def _process(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
            self._process_events()
        elif self._protocol.state is ConnectionState.LOCAL_CLOSING:
            self._finish(_NORMAL, "")
        elif self.close_code is None:
            raise connection_lost(self.url, "the connection was lost")

    def _process_events(self) -> None:
        for event in self._protocol.events():
            match event:
                case events.TextMessage() | events.BytesMessage():
                    self._add(event)
                case events.Ping() if self._protocol.state is ConnectionState.OPEN:
                    self._send(event.response())
                case events.CloseConnection() if self._protocol.state is ConnectionState.OPEN:
                    raise ProtocolError(event.reason)
                case events.CloseConnection():
                    if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                        self._send(event.response())
                    self._finish(int(event.code), event.reason or "")

    def _add(self, event: events.TextMessage | events.BytesMessage) -> None:
        self._parts.append(event.data)
        self._size += len(event.data)
        if self._size > self._max_message:
            self._send(events.CloseConnection(_TOO_BIG))
            raise MalformedAnswer(f"{self.url} sent a message of more than {self._max_message} bytes", url=self.url)
        if event.message_finished:
            text = isinstance(event, events.TextMessage)
            self._messages.append("".join(self._parts) if text else b"".join(self._parts))
            self._parts.clear()
            self._size = 0

    def _await_close(self, deadline: float) -> None:
        """Wait for the closing handshake of the server, by reading unless another thread reads."""
        if not self._receiving.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        try:
            while self.close_code is None and (left := deadline - time.monotonic()) > 0:
                if self._readable(left):
                    with self._guarded():
                        self._process(self._socket.recv(_READ_SIZE))
                    self._messages.clear()
        finally:
            self._receiving.release()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Translate errors into those of this package and mark the connection as lost."""
        try:
            with translated_errors(self.url, self._timeout):
                yield
        except ProtocolError as error:
            failure = MalformedAnswer(f"{self.url} violated the websocket protocol: {error}", url=self.url)
            self._fail(failure)
            raise failure from None
        except GafferClientError as error:
            self._fail(error)
            raise

    def _fail(self, error: GafferClientError) -> None:
        if self.close_code is None:
            self._failure = error
            self._finish(_ABNORMAL, error.message)

    def _finish(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
