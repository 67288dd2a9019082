"""A client of HTTP/1.x that sends any bytes, and takes responses apart one by one (RFC 9112)."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Response(NamedTuple):
    """One response; names of headers are in lower case."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class RawConnection:
    """One connection. Whatever does not come within the timeout of the socket fails with TimeoutError."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def head(self) -> Response:
        """The head of the next response, whose body is still to come."""
        version, status, *_ = self._reader.readline().decode().split()
        headers: dict[str, str] = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Response(version, int(status), headers, b"")

    def response(self, *, to_head: bool = False) -> Response:
        """The next response; `to_head`: it answers HEAD. One without a length ends with the connection."""
        head = self.head()
        return head._replace(body=b"" if to_head or head.status in (100, 101, 204, 304) else self._body(head.headers))

    def line(self) -> bytes:
        """The next line of a body that is not taken apart."""
        return self._reader.readline()

    def ended(self) -> bool:
        """Whether the server closes the connection without sending more."""
        try:
            return self._reader.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._reader.read(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return self._reader.read()
        body = b""
        while size := int(self._reader.readline(), 16):
            body += self._reader.read(size)
            assert self._reader.readline() == b"\r\n"
        assert self._reader.readline() == b"\r\n"
        return body


@contextmanager
def raw_connection(port: int, timeout: float = 10.0) -> Iterator[RawConnection]:
    """A connection to a port of this host."""
    connection = RawConnection(socket.create_connection(("127.0.0.1", port), timeout))
    try:
        yield connection
    finally:
        connection.close()
