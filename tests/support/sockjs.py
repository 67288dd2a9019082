"""A server on the test's own loop with a web page, and two SockJS: `/echo` sends back, `/close` closes at once."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tornado.httpclient import HTTPRequest
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClientConnection, websocket_connect

from gaffer.http.access import Policy, Scope, make_policy
from gaffer.http.base import Application
from gaffer.http.server import HttpEndpoint, Listeners
from gaffer.http.sockjs import Connection, SockJS
from support.http_node import Answer, Exchange, open_exchange


class Echo:
    """Sends every message back, unless it is not `going`.

    It remembers what happened: `connections`, `heard` and `ended` in their order.
    """

    def __init__(self, _application: Application) -> None:
        self.connections: list[Connection] = []
        self.heard: list[str] = []
        self.ended: list[Connection] = []
        self.going = asyncio.Event()
        self.going.set()

    def opened(self, connection: Connection) -> None:
        self.connections.append(connection)

    async def received(self, connection: Connection, text: str) -> None:
        self.heard.append(text)
        await self.going.wait()
        if connection.open:
            await connection.send(text)

    def closed(self, connection: Connection) -> None:
        self.ended.append(connection)


class Close(Echo):
    """Closes every connection when it is opened."""

    def opened(self, connection: Connection) -> None:
        super().opened(connection)
        connection.close()


class Page(RequestHandler):
    """A web page that has the SockJS client from `?client=URL`."""

    def get(self) -> None:
        self.finish(f"""<!DOCTYPE html><script src="{self.get_query_argument("client")}"></script>""")


@dataclass
class SockJSServer:
    """The running server; `url` is where it listens, `http://127.0.0.1:PORT`."""

    url: str
    application: Application
    echo: SockJS
    _exchanges: list[Exchange] = field(default_factory=list)

    @property
    def service(self) -> Echo:
        """What `/echo` serves."""
        service = self.echo.router(self.application).service
        assert isinstance(service, Echo)
        return service

    def is_polled(self, session: str) -> bool:
        """Whether a request waits for the messages of the session."""
        found = self.echo.router(self.application).get_session(session.rpartition("/")[2])
        return found is not None and found.handler is not None

    async def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, its answer read to the end. A POST without body is an empty one."""
        async with asyncio.timeout(10):
            body = b"" if body is None and method == "POST" else body
            exchange = await open_exchange(self.url, method, path, body, headers)
            try:
                content = b"" if method == "HEAD" or exchange.status == 204 else await exchange.read_all()
            finally:
                exchange.close()
        return Answer(exchange.status, exchange.headers, content)

    async def poll(self, session: str, headers: Mapping[str, str] | None = None) -> str:
        """The next frame of a session by `xhr`."""
        answer = await self.call("POST", f"{session}/xhr", headers=headers)
        assert answer.status == 200, answer
        return answer.body.decode().removesuffix("\n")

    async def send(self, session: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Messages for a session by `xhr_send`."""
        return await self.call("POST", f"{session}/xhr_send", body, headers)

    async def start(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Exchange:
        """A request whose answer comes bit by bit."""
        exchange = await open_exchange(self.url, method, path, b"" if method == "POST" else None, headers)
        self._exchanges.append(exchange)
        return exchange

    @asynccontextmanager
    async def socket(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[WebSocketClientConnection]:
        """A client on a websocket."""
        request = HTTPRequest(f"ws{self.url.removeprefix('http')}{path}", headers=dict(headers or {}))
        socket = await websocket_connect(request)
        try:
            yield socket
        finally:
            socket.close()

    def close_exchanges(self) -> None:
        for exchange in self._exchanges:
            exchange.close()


def new_session(service: str = "/echo") -> str:
    """The path of a session that nobody has used."""
    return f"{service}/000/{uuid4()}"


@asynccontextmanager
async def running_server(
    policy: Policy | None = None, uri: str = "127.0.0.1:0", **settings: Any
) -> AsyncIterator[SockJSServer]:
    """The server; `settings` go to the SockJS of `/echo` and `/close`."""
    echo, close = SockJS("/echo", Echo, **settings), SockJS("/close", Close, **settings)
    policy = policy or make_policy(own_uid=os.getuid(), own_names=[])
    routes = [*echo.routes(Scope.READ), *close.routes(Scope.READ)]
    application = Application(routes, policy, [("/page", Page)])
    listeners = Listeners(application, [HttpEndpoint(uri)])
    listeners.start()
    server = SockJSServer(listeners.addresses[0], application, echo)
    try:
        yield server
    finally:
        server.close_exchanges()
        listeners.stop()
        for sockjs in (echo, close):
            sockjs.close(application)
        await listeners.close_connections()
