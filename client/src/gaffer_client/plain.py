"""Sends requests with http.client of the standard library, for commands, which should not wait for a large import."""

import math
import select
import weakref
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from socket import SHUT_RDWR
from urllib.parse import urlsplit

from gaffer_client.proof import check_server
from gaffer_client.sockets import AnySocket, open_socket
from gaffer_client.transport import Request, Transport

_CHUNK = 65536


class PlainSender:
    """Sends the requests of a transport over one connection."""

    errors: tuple[type[Exception], ...] = (OSError, HTTPException)

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        parts = urlsplit(transport.address.base)
        self._host, self._prefix = parts.netloc, parts.path
        self._connection: HTTPConnection | None = None
        self._socket: weakref.ref[AnySocket] | None = None

    def send(self, request: Request) -> "_Reply":
        """Send a request and return its response."""
        transport, exchange = self._transport, request.exchange
        connection, sock = self._connected(exchange.deadline)
        try:
            if exchange.confidential:
                check_server(sock, transport)
            sock.deadline = exchange.deadline
            sock.settimeout(transport.timeout)
            headers = {"Host": self._host, **transport.security.headers, **request.headers}
            connection.request(request.method, self._prefix + request.path, request.body, headers)
            response = connection.getresponse()
        except BaseException:
            self.close()
            raise
        if exchange.streams and response.status == 200:
            sock.deadline = math.inf
            sock.settimeout(request.read_timeout)
        return _Reply(self, response, sock)

    def _connected(self, deadline: float) -> tuple[HTTPConnection, AnySocket]:
        """Return the connection and its socket, which is a new one if the server has closed the last one."""
        sock = self._socket() if self._socket is not None else None
        if self._connection is not None and sock is not None and self._connection.sock is sock and not _readable(sock):
            return self._connection, sock
        self.close()
        sock = open_socket(self._transport, deadline)
        self._connection = HTTPConnection("localhost")  # the header Host is given
        self._connection.auto_open = False
        self._connection.sock = sock
        self._socket = weakref.ref(sock)
        return self._connection, sock

    def interrupt(self) -> None:
        """Abort the current request; thread-safe."""
        if self._socket is not None and (sock := self._socket()) is not None:
            with suppress(OSError):  # already closed
                sock.shutdown(SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cause(self, error: Exception) -> BaseException:
        """Return the error: nothing wraps it."""
        return error


class _Reply:
    def __init__(self, sender: PlainSender, response: HTTPResponse, sock: AnySocket) -> None:
        self._sender = sender
        self._response = response
        self._socket = sock
        self.status = response.status
        self.content_type: str = response.headers.get("Content-Type", "")

    def read(self) -> bytes:
        data = self._response.read1(_CHUNK)
        if not data and self._response.length:
            raise IncompleteRead(b"", self._response.length)
        return data

    def content(self) -> Iterator[bytes]:
        while data := self._response.read(_CHUNK):
            yield data
        if self._response.length:
            raise IncompleteRead(b"", self._response.length)

    def shutdown(self) -> None:
        with suppress(OSError):  # already closed
            self._socket.shutdown(SHUT_RDWR)

    def close(self) -> None:
        whole = self._response.isclosed()
        self._response.close()
        if not whole:
            self._sender.close()


def _readable(sock: AnySocket) -> bool:
    """Return whether an idle connection has data, which then is its end."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
