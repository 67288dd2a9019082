"""Checks of an address, once: connect, or send a GET."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import socket
import string
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

from gaffer.runtime.version import __version__
from gaffer.supervision.probes.failures import CheckFailed, OutOfResources
from gaffer.supervision.probes.names import Names, Targets

Report: TypeAlias = Callable[[str], None]

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_HEAD_SIZE = 16 * 1024  # bytes in which the status must have come, that of interim responses included
_BODY_SIZE = 64 * 1024  # bytes that are read of the rest, so that the server can finish
_BODY_TIMEOUT = 0.1  # seconds for that
_UNQUOTED = string.digits + string.ascii_letters + string.punctuation


class Check(Protocol):
    """A check of a process."""

    def attempt(self) -> bool:
        """Check without waiting: return True if it is good, False if `run` has to find out.

        Raises CheckFailed and OutOfResources.
        """

    async def run(self, report: Report) -> None:
        """Check, and call `report` once, with the error, or an empty text for a good result.

        Raises CheckFailed in place of a report, and OutOfResources.
        """


class Address:
    """A host, by name or address, and a port; `names` looks names up."""

    def __init__(self, host: str, port: int, names: Names) -> None:
        self._names = names
        self.host = host
        self.port = port
        self.is_local = host == "localhost"
        self.numeric: tuple[socket.AddressFamily, tuple[Any, ...]] | None = None
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return
        self.is_local = ip.is_loopback
        self.numeric = (
            (socket.AF_INET, (str(ip), port)) if ip.version == 4 else (socket.AF_INET6, (str(ip), port, 0, 0))
        )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def resolve(self) -> Targets:
        """Return the families and addresses. Raises OSError if the name is unknown, and OutOfResources."""
        return [self.numeric] if self.numeric is not None else await self._names.look_up(self.host, self.port)


class TcpCheck:
    """Connect and close."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def attempt(self) -> bool:
        """Connect to a loopback address, where that ends at once unless the backlog of the listener is full."""
        if self.address.numeric is None or not self.address.is_local:
            return False
        family, address = self.address.numeric
        try:
            with _open(family) as sock:
                code = sock.connect_ex(address)
                if code == errno.EINPROGRESS:
                    code = sock.connect_ex(address)
                if code in (errno.EINPROGRESS, errno.EALREADY):
                    return False
                if code:
                    raise OSError(code, os.strerror(code))
                _check_peer(sock)
        except OSError as error:
            raise _located(error, self.address) from None
        return True

    async def run(self, report: Report) -> None:
        """Connect to the first address of the host that accepts."""
        (await _connect(self.address)).close()
        report("")


class HttpCheck:
    """Send a GET for `path`; a status from 200 to 399 is good. Redirects are not followed."""

    def __init__(self, address: Address, path: str) -> None:
        self.address = address
        self.path = path or "/"
        self._request = (
            f"GET {quote(self.path, safe=_UNQUOTED)} HTTP/1.1\r\nHost: {address}\r\n"
            f"User-Agent: gaffer/{__version__}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode("ascii")

    def attempt(self) -> bool:
        """Return False: a response takes time."""
        return False

    async def run(self, report: Report) -> None:
        """Send the request and report its status, then read some of the body, so that the server can finish."""
        loop = asyncio.get_running_loop()
        with await _connect(self.address) as sock:
            try:
                await loop.sock_sendall(sock, self._request)
                status = await self._read_status(sock)
            except OSError as error:
                raise CheckFailed(f"{self._name}: {_reason(error)}") from None
            report("" if 200 <= status <= 399 else f"{self._name} answered {status}")
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(_BODY_TIMEOUT):
                    left = _BODY_SIZE
                    while left > 0 and (data := await loop.sock_recv(sock, left)):
                        left -= len(data)

    @property
    def _name(self) -> str:
        return f"GET {self.path} on {self.address}"

    async def _read_status(self, sock: socket.socket) -> int:
        """Read up to the final status and return it."""
        loop = asyncio.get_running_loop()
        received, left = b"", _HEAD_SIZE
        while left > 0 and (data := await loop.sock_recv(sock, left)):
            received += data
            left -= len(data)
            while (match := _STATUS_LINE.match(received)) is not None:
                status = int(match[1])
                if status == HTTPStatus.SWITCHING_PROTOCOLS or status >= HTTPStatus.OK:
                    return status
                end = _END_OF_HEAD.search(received)
                if end is None:
                    break
                received = received[end.end() :]  # after an interim response
            if match is None and b"\n" in received:
                break
        if not received:
            raise CheckFailed(f"{self._name}: the connection was closed without an answer")
        raise CheckFailed(f"{self._name} answered something that is not HTTP")


def _open(family: socket.AddressFamily) -> socket.socket:
    """Return a new socket, whose connection the kernel forgets soon after close(): probes are many."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if hasattr(socket, "TCP_LINGER2"):
        # Linux waits no longer than for the acknowledgement of the end, and keeps no TIME_WAIT.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, -1)
    return sock


async def _connect(address: Address) -> socket.socket:
    """Return a connected socket. Raises CheckFailed for the last address that was tried, and OutOfResources."""
    loop = asyncio.get_running_loop()
    try:
        targets = await address.resolve()
    except OSError as error:
        raise CheckFailed(f"can't resolve {address.host}: {_reason(error)}") from None
    failure = CheckFailed(f"{address.host} has no address")
    for family, target in targets:
        try:
            sock = _open(family)
            try:
                await loop.sock_connect(sock, target)
                _check_peer(sock)
            except BaseException:
                sock.close()
                raise
            return sock
        except OSError as error:
            failure = _located(error, address)
    raise failure


def _check_peer(sock: socket.socket) -> None:
    """Raise ConnectionRefusedError if `sock` is connected to itself.

    That happens when nobody listens on a port that the system then chooses for our end.
    """
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _located(error: OSError, address: Address) -> CheckFailed:
    """Return the failure to connect to `address`. Raises OutOfResources if the fault is ours."""
    if error.errno in _EXHAUSTED:
        raise OutOfResources(_reason(error)) from None
    return CheckFailed(f"{_reason(error)} on {address}", refused=error.errno == errno.ECONNREFUSED)


def _reason(error: OSError) -> str:
    # asyncio words its messages in its own way; the numbers of a failed lookup are negative.
    text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return text[:1].lower() + text[1:]
