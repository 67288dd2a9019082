"""Listening on endpoints: TCP and unix sockets, a bound on connections, and the peer of each of them."""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerConnectionDelegate, HTTPServerRequest
from tornado.iostream import IOStream
from tornado.netutil import ssl_options_to_context

from gaffer.errors import BadRequest, GafferError
from gaffer.http.access import Peer, PeerKind
from gaffer.http.peer import PeerFinder
from gaffer.util import bind_sockets, parse_address

MAX_BODY = 8 * 1024 * 1024  # bytes of a request body that a handler gets

_IDLE_TIMEOUT = 120.0  # seconds a connection may be silent between two requests
_BODY_TIMEOUT = 300.0  # seconds a request body may take

_UNLIMITED = 1_000_000  # descriptors, where the system sets no limit

MAX_SOCKET_PATH = 107  # bytes, see unix(7)

DEFAULT_URI = "127.0.0.1:5000"
DEFAULT_PORT = 5000

logger = logging.getLogger(__name__)

_STRANGER = Peer(PeerKind.REMOTE)

_peers: WeakKeyDictionary[IOStream, Peer] = WeakKeyDictionary()


def peer_of(request: HTTPServerRequest) -> Peer:
    """The peer of the connection that the request came on; a remote stranger when it was not accepted here."""
    stream = getattr(request.connection, "stream", None)
    return _peers.get(stream, _STRANGER) if stream is not None else _STRANGER


def own_host_names() -> list[str]:
    """The names by which this host calls itself, without asking the DNS."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]]


@dataclass(frozen=True)
class HttpEndpoint:
    """Where to listen.

    uri: `host:port`, `[v6]:port` or `unix:/path`; several as a list or with commas. Port 0 lets the system choose.
    ssl_options: an ssl.SSLContext, or a mapping with `certfile`, `keyfile` and what else tornado.netutil knows.
    """

    uri: str | Sequence[str] = DEFAULT_URI
    backlog: int = 128
    ssl_options: Mapping[str, Any] | ssl.SSLContext | None = None

    @property
    def uris(self) -> list[str]:
        """One uri an item."""
        items = self.uri.split(",") if isinstance(self.uri, str) else self.uri
        return [item.strip() for item in items]

    def make_ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context; None for plain HTTP. Raises GafferError when a certificate or key can't be used."""
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
                hint="give certfile and keyfile in PEM form, which this user may read",
            ) from None


class _UnixSocketFile(NamedTuple):
    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Unlink the file unless another process has put its own there."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


class _Server(HTTPServer):
    """The server of one endpoint. Over `limit` connections it closes new ones: descriptors are needed for processes."""

    finder: PeerFinder
    limit: int
    _count = 0
    _full = False

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self._count >= self.limit:
            if not self._full:
                logger.warning("%d connections are open, more are refused", self._count)
            self._full = True
            stream.close()
            return
        self._full = False
        self._count += 1
        _peers[stream] = self.finder.find(stream.socket)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        self._count -= 1


class Listeners:
    """The listening sockets of a server and the connections accepted on them.

    `socket_gid` opens unix sockets to a group. `addresses` holds the actual URLs (`http://127.0.0.1:43211`,
    `unix:/path`) from `start` on.
    """

    def __init__(
        self,
        application: HTTPServerConnectionDelegate,
        endpoints: Sequence[HttpEndpoint],
        socket_gid: int | None = None,
    ) -> None:
        self.addresses: list[str] = []
        self._application = application
        self._endpoints = endpoints
        self._socket_gid = socket_gid
        self._finder: PeerFinder | None = None
        self._servers: list[_Server] = []
        self._files: list[_UnixSocketFile] = []

    def start(self) -> None:
        """Listen everywhere, or nowhere: raises GafferError for an address that can't be used. Call on the loop."""
        self._finder = PeerFinder()
        try:
            for endpoint in self._endpoints:
                self._listen(endpoint, self._finder)
        except GafferError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop listening; connections stay until `close_connections`."""
        for server in self._servers:
            server.stop()
        for file in self._files:
            file.remove()
        self._files.clear()
        if self._finder is not None:
            self._finder.close()

    async def close_connections(self) -> None:
        """Close every connection, whatever it is doing."""
        await asyncio.gather(*(server.close_all_connections() for server in self._servers))

    def _listen(self, endpoint: HttpEndpoint, finder: PeerFinder) -> None:
        context = endpoint.make_ssl_context()
        server = _Server(
            self._application,
            ssl_options=context,
            idle_connection_timeout=_IDLE_TIMEOUT,
            body_timeout=_BODY_TIMEOUT,
            max_body_size=MAX_BODY,
        )
        server.finder = finder
        server.limit = _descriptors() // (2 * len(self._endpoints))
        self._servers.append(server)
        for uri in endpoint.uris:
            address = _parse(uri)
            try:
                sockets = _bind(address, endpoint.backlog)
                server.add_sockets(sockets)
                if isinstance(address, str):
                    self._adopt_file(address)
            except (OSError, UnicodeError) as error:
                raise GafferError(
                    f"can't listen on {uri}: {getattr(error, 'strerror', None) or error}",
                    reason="cannot_listen",
                    hint=_what_to_do(address),
                ) from None
            self.addresses += [_url(sock, "https" if context else "http") for sock in sockets]

    def _adopt_file(self, path: str) -> None:
        found = os.stat(path)
        self._files.append(_UnixSocketFile(path, found.st_dev, found.st_ino))
        if self._socket_gid is not None:
            os.chown(path, -1, self._socket_gid)
            os.chmod(path, 0o660)


def _what_to_do(address: tuple[str, int] | str) -> str:
    if isinstance(address, str) and len(os.fsencode(address)) > MAX_SOCKET_PATH:
        return f"choose a shorter folder: the path of a unix socket has at most {MAX_SOCKET_PATH} bytes"
    return "stop what uses the address, or choose another one"


def _descriptors() -> int:
    """How many descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else _UNLIMITED


def _parse(uri: str) -> tuple[str, int] | str:
    """Host and port, or the absolute path of a unix socket."""
    try:
        address = parse_address(uri, DEFAULT_PORT)
        if address == "":
            raise RuntimeError("a unix socket needs a path")
    except RuntimeError as error:
        raise BadRequest(str(error), reason="bad_address", hint="write host:port, [v6]:port or unix:/path") from None
    return os.path.abspath(address) if isinstance(address, str) else address


def _bind(address: tuple[str, int] | str, backlog: int) -> list[socket.socket]:
    if isinstance(address, str):
        return bind_sockets(f"unix:{address}", backlog, allows_unix_socket=True)
    return bind_sockets(address, backlog)


def _url(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{scheme}://{host}:{name[1]}"
