"""Sockets with a deadline, connected to a server at an http, https or unix URL."""

import math
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gaffer.http.authority import is_loopback
from gaffer_client.errors import UntrustedServer
from gaffer_client.transport import Transport, connection_lost, timed_out, tls_failed, unreachable

if TYPE_CHECKING:
    from concurrent.futures import Future

CONNECT_TIMEOUT = 5.0  # seconds, for the name, the connection and the TLS handshake together

_PORTS = {"http": 80, "https": 443}
_NEXT_ATTEMPT = 0.25  # seconds, the "Connection Attempt Delay" of RFC 8305, section 5

_AddressInfo = tuple[Any, ...]


class _Timed:
    """A socket whose calls all end at `deadline` (monotonic seconds).

    A timeout applies to each call separately: a server that sends single bytes could block its reader forever.
    """

    deadline: float = math.inf
    verified = False  # set by `proof.check_server`

    def recv(self, *args: Any) -> bytes:
        self._limit()
        return super().recv(*args)  # type: ignore[misc,no-any-return]

    def recv_into(self, *args: Any) -> int:
        self._limit()
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]

    def send(self, *args: Any) -> int:
        self._limit()
        return super().send(*args)  # type: ignore[misc,no-any-return]

    def sendall(self, *args: Any) -> None:
        self._limit()
        super().sendall(*args)  # type: ignore[misc]

    def _limit(self) -> None:
        assert isinstance(self, socket.socket)
        left = _left(self.deadline)
        timeout = self.gettimeout()
        if timeout is None or left < timeout:
            self.settimeout(None if left == math.inf else left)


class TimedSocket(_Timed, socket.socket):
    """A plain socket with a deadline."""


class TimedSSLSocket(_Timed, ssl.SSLSocket):
    """A TLS socket with a deadline."""


AnySocket = TimedSocket | TimedSSLSocket


def open_socket(transport: Transport, deadline: float = math.inf) -> AnySocket:
    """Connect to the server of a transport, with TLS for https, within its timeout and CONNECT_TIMEOUT.

    `deadline`, in monotonic seconds, can shorten this time.

    Raises Unreachable, and UntrustedServer for a loopback address if the transport does not allow it.
    """
    timeout = min(transport.timeout, CONNECT_TIMEOUT)
    deadline = min(deadline, time.monotonic() + timeout)
    path = transport.address.socket
    with translated_errors(transport.url, timeout):
        sock = _connect_to_host(transport, deadline) if path is None else _connect_to_path(path, deadline)
        sock.settimeout(transport.timeout)
        return sock


def _connect_to_host(transport: Transport, deadline: float) -> AnySocket:
    parts = urlsplit(transport.address.base)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        sock = _connect_to_any(_resolve(host, port, deadline), deadline)
    except UnicodeError:
        raise unreachable(transport.url, f"{host!r} is not a valid host name") from None
    try:
        if not transport.allow_loopback and is_loopback(sock.getpeername()[0]):
            raise UntrustedServer(
                f"{transport.url} is an address of this host, but a lookup on another host announces it",
                url=transport.url,
            )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "http":
            return sock
        sock.settimeout(_left(deadline))
        context = _tls_context(transport)
        context.sslsocket_class = TimedSSLSocket
        secured = context.wrap_socket(sock, server_hostname=host)
        assert isinstance(secured, TimedSSLSocket)
        return secured
    except BaseException:
        sock.close()
        raise


@contextmanager
def translated_errors(url: str, timeout: float) -> Iterator[None]:
    """Translate socket errors into Unreachable."""
    try:
        yield
    except ssl.SSLError as error:
        raise tls_failed(url, error) from None
    except TimeoutError:
        raise timed_out(url, timeout) from None
    except (ConnectionResetError, BrokenPipeError) as error:
        raise connection_lost(url, (error.strerror or str(error)).lower()) from None
    except OSError as error:
        raise unreachable(url, (error.strerror or str(error)).lower()) from None


def _resolve(host: str, port: int, deadline: float) -> list[_AddressInfo]:
    """Return the addresses of a host; raise OSError, TimeoutError, or UnicodeError for an invalid name."""
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    from concurrent.futures import Future

    found: Future[list[_AddressInfo]] = Future()
    # The resolver of the C library has no timeout: its thread is abandoned if it hangs.
    threading.Thread(target=_fill, args=(found, host, port), name=f"resolving {host}", daemon=True).start()
    return found.result(_left(deadline))


def _fill(found: "Future[list[_AddressInfo]]", host: str, port: int) -> None:
    try:
        found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        found.set_exception(error)


def _connect_to_any(addresses: Sequence[_AddressInfo], deadline: float) -> TimedSocket:
    """Connect to the first address that responds, with staggered attempts (RFC 8305, "Happy Eyeballs")."""
    waiting = _alternating(addresses)
    under_way: dict[int, TimedSocket] = {}
    failure = OSError("the host name has no addresses")
    poll = select.poll()
    try:
        while waiting or under_way:
            if waiting:
                family, kind, protocol, _, address = waiting.pop(0)
                try:
                    sock = _begin(family, kind, protocol, address)
                except OSError as error:  # address family not supported, or no route
                    failure = error
                    continue
                under_way[sock.fileno()] = sock
                poll.register(sock, select.POLLOUT)
            timeout = min(_NEXT_ATTEMPT if waiting else math.inf, _left(deadline))
            for descriptor, _ in poll.poll(timeout * 1000):
                poll.unregister(descriptor)
                sock = under_way.pop(descriptor)
                if not (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                    return sock
                sock.close()
                failure = OSError(code, os.strerror(code))
    finally:
        for sock in under_way.values():
            sock.close()
    raise failure


def _begin(family: int, kind: int, protocol: int, address: Any) -> TimedSocket:
    sock = TimedSocket(family, kind, protocol)
    sock.setblocking(False)
    try:
        with suppress(BlockingIOError):
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _alternating(addresses: Sequence[_AddressInfo]) -> list[_AddressInfo]:
    """Return the addresses with alternating families, starting with the one that the system prefers."""
    preferred = [info for info in addresses if info[0] == addresses[0][0]]
    others = [info for info in addresses if info[0] != addresses[0][0]]
    return [info for info in chain.from_iterable(zip_longest(preferred, others)) if info is not None]


def _connect_to_path(path: str, deadline: float) -> TimedSocket:
    sock = TimedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(deadline))
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _tls_context(transport: Transport) -> ssl.SSLContext:
    security = transport.security
    context = ssl.create_default_context(cafile=security.cacert or _public_cas())
    if security.certfile is not None:
        context.load_cert_chain(security.certfile, security.keyfile)
    return context


def _public_cas() -> str:
    import certifi  # slow

    return certifi.where()
