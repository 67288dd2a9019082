"""A lookupd that a test scripts: another program's, one of 0.5, or one that misbehaves."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


class OtherLookupd:
    """Answers each message with what `answer` says, None for nothing; keeps the messages of each connection."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections: list[list[dict[str, Any]]] = []
        self.url = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the latest connection."""
        return self.connections[-1] if self.connections else []

    def types(self) -> list[str]:
        """The types of the messages of the latest connection."""
        return [message["type"] for message in self.messages]


class _Socket(WebSocketHandler):
    def initialize(self, owner: OtherLookupd) -> None:
        self.owner = owner
        self.messages: list[dict[str, Any]] = []

    def open(self, *args: str, **kwargs: str) -> None:
        self.owner.connections.append(self.messages)

    async def on_message(self, text: str | bytes) -> None:
        message = json.loads(text)
        self.messages.append(message)
        reply = self.owner.answer(message)
        if reply is not None:
            await self.write_message(json.dumps({"msgid": message["msgid"], **reply}))


@asynccontextmanager
async def http_server(application: Application) -> AsyncIterator[str]:
    """Serve on a free loopback port of the running loop until the block ends; gives the URL."""
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application)
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def other_lookupd(answer: Answer) -> AsyncIterator[OtherLookupd]:
    """A lookupd of the test's own until the block ends."""
    lookupd = OtherLookupd(answer)
    async with http_server(Application([("/ws", _Socket, {"owner": lookupd})])) as lookupd.url:
        yield lookupd
