"""Sends requests with the library requests, over our sockets: one way to connect for all URLs, one deadline each."""

import math
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from socket import SHUT_RDWR
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import HTTPResponse

from gaffer_client.proof import check_server
from gaffer_client.sockets import AnySocket, open_socket
from gaffer_client.transport import Exchange, Request, Transport

_CHUNK = 65536


class _Connection(HTTPConnection):
    sock: AnySocket | None

    def __init__(self, host: str, port: int | None = None, *, adapter: "_Adapter", timeout: Any, **_tls: Any) -> None:
        super().__init__(host, port, timeout=timeout)
        self._adapter = adapter

    def connect(self) -> None:
        self.sock = open_socket(self._adapter.transport, self._adapter.exchange.deadline)

    def request(self, *args: Any, **options: Any) -> None:
        exchange = self._adapter.exchange
        if self.sock is None:
            self.connect()
        assert self.sock is not None
        self._adapter.socket = weakref.ref(self.sock)
        if exchange.confidential:
            check_server(self.sock, self._adapter.transport)
        self.sock.deadline = exchange.deadline
        self.sock.settimeout(self._adapter.transport.timeout)
        super().request(*args, **options)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in the class above
        sock = self.sock
        response = super().getresponse()
        if self._adapter.exchange.streams and response.status == 200 and sock is not None:
            sock.deadline = math.inf
            sock.settimeout(self.timeout)
        return response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Sends every request to the server of a transport; `exchange` is the current one, on `socket`."""

    exchange: Exchange

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.socket: weakref.ref[AnySocket] | None = None
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        pool = partial(_Pool, adapter=self)
        self.poolmanager.pool_classes_by_scheme = {"http": pool, "https": pool}

    def close(self) -> None:
        """Close idle connections."""
        # urllib3 leaves this to garbage collection, which a stored exception can delay.
        pools = self.poolmanager.pools
        keys = pools.keys()  # a list; the container is not iterable
        for key in keys:
            pools[key].close()
        super().close()


class RequestsSender:
    """Sends the requests of a transport with the library requests."""

    errors: tuple[type[Exception], ...] = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._session = requests.Session()
        # A key must not leak to a proxy or be replaced by .netrc.
        self._session.trust_env = False
        self._adapter = _Adapter(transport)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._session.headers.update(transport.security.headers)

    def send(self, request: Request) -> "_Reply":
        """Send a request and return its response."""
        self._adapter.exchange = request.exchange
        return _Reply(
            self._session.request(
                request.method,
                self._transport.address.base + request.path,
                data=request.body,
                headers=dict(request.headers),
                timeout=(self._transport.timeout, request.read_timeout),
                allow_redirects=False,
                stream=True,
            )
        )

    def interrupt(self) -> None:
        """Abort the current request; thread-safe."""
        if self._adapter.socket is not None and (sock := self._adapter.socket()) is not None:
            with suppress(OSError):  # already closed
                sock.shutdown(SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def cause(self, error: Exception) -> BaseException:
        """Return the innermost cause of an error that requests and urllib3 wrapped."""
        cause = _innermost(error)
        return TimeoutError() if isinstance(cause, urllib3.exceptions.TimeoutError) else cause


class _Reply:
    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.content_type: str = response.headers.get("Content-Type", "")

    def read(self) -> bytes:
        return self._response.raw.read1(_CHUNK)

    def content(self) -> Iterator[bytes]:
        yield from self._response.iter_content(_CHUNK)

    def shutdown(self) -> None:
        self._response.raw.shutdown()

    def close(self) -> None:
        self._response.close()


def _innermost(error: BaseException) -> BaseException:
    seen = {id(error)}
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__ or _first_argument(error)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner


def _first_argument(error: BaseException) -> object:
    return next((argument for argument in error.args if isinstance(argument, BaseException)), None)
