"""Adapter to use requests with our sockets: one way to connect for all URLs, and one deadline per exchange."""

import math
import weakref
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import HTTPResponse

from gaffer_client.proof import check_server
from gaffer_client.sockets import AnySocket, open_socket
from gaffer_client.transport import Exchange, Transport


class _Connection(HTTPConnection):
    sock: AnySocket | None

    def __init__(self, host: str, port: int | None = None, *, adapter: "Adapter", timeout: Any, **_tls: Any) -> None:
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


class Adapter(HTTPAdapter):
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
