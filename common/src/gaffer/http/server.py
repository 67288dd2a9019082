"""Listening on endpoints: TCP sockets with or without TLS, and unix sockets."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tornado.httputil import HTTPServerRequest
from tornado.netutil import ssl_options_to_context

from gaffer.errors import BadRequest, GafferError
from gaffer.http.access import Peer, PeerKind
from gaffer.http.connections import Acceptor, Context, ServedApplication, Shared, Traffic
from gaffer.http.limits import DEFAULT_LIMITS, Limits
from gaffer.http.peer import PeerFinder
from gaffer.runtime.sockets import address_of, bind_sockets, parse_address

MAX_SOCKET_PATH = 107  # bytes, see unix(7)

DEFAULT_URI = "127.0.0.1:5000"
DEFAULT_PORT = 5000

_STRANGER = Peer(PeerKind.REMOTE)


def peer_of(request: HTTPServerRequest) -> Peer:
    """Return the peer of the request's connection; an unknown remote peer if it was not accepted here."""
    context = getattr(request.connection, "context", None)
    return context.peer if isinstance(context, Context) else _STRANGER


def own_host_names() -> list[str]:
    """Return the names of this host without a DNS query."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]]


@dataclass(frozen=True)
class HttpEndpoint:
    """The addresses to listen on.

    uri: `host:port`, `[v6]:port` or `unix:/path`; several in a list or separated by commas. For port 0 the system
    chooses a port. ssl_options: an ssl.SSLContext, or a mapping with `certfile`, `keyfile` and other options of
    tornado.netutil; unix sockets do not use TLS. sockets: listening sockets to accept on instead of opening `uri`; the
    server closes them.
    """

    uri: str | Sequence[str] = DEFAULT_URI
    backlog: int = 128
    ssl_options: Mapping[str, Any] | ssl.SSLContext | None = None
    sockets: Sequence[socket.socket] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.uri, str) and not all(isinstance(uri, str) for uri in _items(self.uri)):
            raise TypeError(f"expected a URI such as {DEFAULT_URI!r}, or a list of URIs, got {self.uri!r}")

    @property
    def uris(self) -> list[str]:
        """The URIs as a list."""
        items = self.uri.split(",") if isinstance(self.uri, str) else self.uri
        return [item.strip() for item in items]

    def make_ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, None for plain HTTP; raises GafferError for an unusable certificate or key."""
        if self.ssl_options is None or isinstance(self.ssl_options, ssl.SSLContext):
            return self.ssl_options
        try:
            if "certfile" not in self.ssl_options:
                raise ValueError("certfile is missing")
            return ssl_options_to_context(dict(self.ssl_options), server_side=True)
        except (OSError, ValueError) as error:
            raise GafferError(
                f"can't use the certificate for {', '.join(self.uris)}: {error}",
                reason="bad_certificate",
                hint="set certfile and keyfile to PEM files that this user can read",
            ) from None


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and value else [None]


class _UnixSocketFile(NamedTuple):
    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Unlink the file unless another process has replaced it."""
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


class SocketStore(Protocol):
    """Keeps listening sockets open while a server restarts, so that connections wait in their backlog."""

    @property
    def handing_over(self) -> bool:
        """Whether the server stops for another one that continues with the sockets."""

    def take(self, uri: str) -> list[socket.socket]:
        """Return the sockets that an earlier server opened for `uri`."""

    def keep(self, uri: str, sockets: Sequence[socket.socket]) -> None:
        """Keep the sockets just opened for `uri`."""

    def close_unused(self) -> None:
        """Close those that were not taken."""


class Listeners:
    """The listening sockets of a server and the connections accepted on them.

    `socket_gid` gives a group access to unix sockets; `limits` apply to each connection; `store` keeps the sockets.
    After `start`, `addresses` holds the actual URLs (`http://127.0.0.1:43211`, `unix:/path`).
    """

    def __init__(
        self,
        application: ServedApplication,
        endpoints: Sequence[HttpEndpoint],
        socket_gid: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        store: SocketStore | None = None,
    ) -> None:
        self.addresses: list[str] = []
        self._application = application
        self._endpoints = endpoints
        self._socket_gid = socket_gid
        self._limits = limits
        self._store = store
        self._shared = Shared()
        self._finder: PeerFinder | None = None
        self._servers: list[Acceptor] = []
        self._files: list[_UnixSocketFile] = []

    def start(self) -> None:
        """Listen on all endpoints, or on none if an address can't be used: raises GafferError. Call it on the loop."""
        self._finder = PeerFinder()
        try:
            for endpoint in self._endpoints:
                self._listen(endpoint, self._finder)
            if self._store is not None:
                self._store.close_unused()
        except GafferError:
            self.stop()
            raise

    def pause(self) -> None:
        """Stop accepting connections, so that they wait in the backlog of sockets that the store keeps."""
        for server in self._servers:
            server.stop()

    def stop(self) -> None:
        """Stop listening; connections stay until `close_connections`."""
        for server in self._servers:
            server.stop()
        for file in self._files if self._store is None or not self._store.handing_over else ():
            file.remove()
        self._files.clear()
        if self._finder is not None:
            self._finder.close()

    async def close_connections(self) -> None:
        """Close every connection, including busy ones."""
        await asyncio.gather(*(server.close_connections() for server in self._servers))

    @property
    def traffic(self) -> Traffic:
        """Numbers of connections over all endpoints."""
        of_each = [server.traffic for server in self._servers]
        return Traffic(*map(sum, zip(*of_each, strict=True))) if of_each else Traffic(0, 0, 0)

    def _listen(self, endpoint: HttpEndpoint, finder: PeerFinder) -> None:
        context = endpoint.make_ssl_context()
        allowed = self._limits.connections(len(self._endpoints))
        server = Acceptor(self._application, finder.find, self._limits, allowed, self._shared, context)
        self._servers.append(server)
        scheme = "https" if context else "http"
        for sock in endpoint.sockets:
            server.listen(sock)
            self.addresses.append(_url(sock, scheme))
        for uri in endpoint.uris if not endpoint.sockets else ():
            address = _parse(uri)
            try:
                sockets = self._open(uri, address, endpoint.backlog)
                for sock in sockets:
                    server.listen(sock)
                if isinstance(address, str):
                    self._adopt_file(address)
            except (OSError, UnicodeError) as error:
                raise GafferError(
                    f"can't listen on {uri}: {getattr(error, 'strerror', None) or error}",
                    reason="cannot_listen",
                    hint=listen_hint(address, error),
                ) from None
            self.addresses += [_url(sock, scheme) for sock in sockets]

    def _open(self, uri: str, address: tuple[str, int] | str, backlog: int) -> list[socket.socket]:
        """Return the kept sockets of an address, or bind new ones."""
        kept = self._store.take(uri) if self._store is not None else []
        if kept and isinstance(address, str) and not os.path.exists(address):  # nobody can connect any more
            for sock in kept:
                sock.close()
            kept = []
        for sock in kept:
            sock.listen(backlog)
        if kept:
            return kept
        sockets = _bind(address, backlog)
        if self._store is not None:
            self._store.keep(uri, sockets)
        return sockets

    def _adopt_file(self, path: str) -> None:
        found = os.lstat(path)
        self._files.append(_UnixSocketFile(path, found.st_dev, found.st_ino))
        if self._socket_gid is not None:
            os.chown(path, -1, self._socket_gid, follow_symlinks=False)
            os.chmod(path, 0o660)


def listen_hint(address: tuple[str, int] | str, error: Exception) -> str:
    """Return the hint for an `error` that occurred while listening on `address`."""
    if isinstance(address, str) and len(os.fsencode(address)) > MAX_SOCKET_PATH:
        return f"choose a shorter path: that of a unix socket has at most {MAX_SOCKET_PATH} bytes"
    match error:
        case socket.gaierror() | UnicodeError():
            return "use the name or an IP address of this host"
        case PermissionError() if not isinstance(address, str):
            return "choose a port of at least 1024, or grant CAP_NET_BIND_SERVICE (capabilities(7))"
        case PermissionError() | FileNotFoundError() | NotADirectoryError():
            return "choose an existing folder that this user can write to"
        case OSError(errno=errno.EADDRNOTAVAIL):
            return "choose an address of this host, or 0.0.0.0 for all of its addresses"
        case _:
            return "stop the program that uses the address, or choose another address"


def _parse(uri: str) -> tuple[str, int] | str:
    """Return host and port, or the absolute path of a unix socket."""
    try:
        address = parse_address(uri, DEFAULT_PORT)
        if address == "":
            raise RuntimeError("the path of the unix socket is missing")
    except RuntimeError as error:
        raise BadRequest(str(error), reason="bad_address", hint="use host:port, [v6]:port or unix:/path") from None
    return os.path.abspath(address) if isinstance(address, str) else address


def _bind(address: tuple[str, int] | str, backlog: int) -> list[socket.socket]:
    if isinstance(address, str):
        return bind_sockets(f"unix:{address}", backlog, allows_unix_socket=True)
    return bind_sockets(address, backlog)


def _url(sock: socket.socket, scheme: str) -> str:
    address = address_of(sock)
    return address if sock.family == socket.AF_UNIX else f"{scheme}://{address}"
