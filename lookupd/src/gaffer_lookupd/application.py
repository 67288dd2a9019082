"""The HTTP application of lookupd and the base class of its handlers."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, cast

import msgspec
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import StreamClosedError

from gaffer.http.access import AuthRequired, Forbidden, Grant, Policy, Scope, TokenRequired
from gaffer.http.base import Application, Handler
from gaffer.http.openapi import make_document
from gaffer.http.routes import Match, Route
from gaffer.login.logins import Logins
from gaffer.runtime.version import __version__
from gaffer.schemas.messages import MAX_MESSAGE_SIZE
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.connections import Connections
from gaffer_lookupd.errors import Warming
from gaffer_lookupd.node_index import NodeIndex
from gaffer_lookupd.queries import Queries
from gaffer_lookupd.readers import Readers
from gaffer_lookupd.resolver import Resolver

SEND_TIMEOUT = 60.0  # seconds that a client has to receive one part of a response


class LookupApplication(Application):
    """The application that serves a registry and its changes.

    `verify_node` returns whether a key is the cluster key, which nodes must present; None if they need none. `readers`
    limits the readers of long-running responses; `logins` are those of web pages.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        policy: Policy,
        connections: Connections,
        changes: ChangeLog,
        *,
        readers: Readers,
        logins: Logins,
        verify_node: Callable[[str], bool] | None,
    ) -> None:
        super().__init__(routes, policy, websocket_max_message_size=MAX_MESSAGE_SIZE, logins=logins)
        self.readers = readers
        self.connections = connections
        self.registry = connections.registry
        self.changes = changes
        self.history = changes.history
        self.queries = Queries(self.registry)
        self.index = NodeIndex(self.registry, changes)
        self.resolver = Resolver()
        self.verify_node = verify_node
        self._started = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since it was created."""
        return time.monotonic() - self._started

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document of the API."""
        document = make_document(self.routes, title="Gaffer registry", version=__version__, cookie=self.policy.cookie)
        return msgspec.json.encode(document)

    def authorize(self, match: Match, method: str, grant: Grant) -> None:
        """Like the base class, but responds 401 instead of 403: more than reading requires the cluster key."""
        try:
            super().authorize(match, method, grant)
        except TokenRequired:
            raise
        except Forbidden:
            raise AuthRequired(
                "this requires the cluster key, or a caller on this host with lookupd's own user",
                hint="send the key as `Authorization: Bearer KEY`",
            ) from None

    def deliver(self, request: HTTPServerRequest, match: Match, grant: Grant) -> HTTPMessageDelegate:
        """Like the base class, but some requests bypass the handler."""
        handler = match.route.handler
        if issubclass(handler, LookupHandler):
            direct = handler.direct(self, request, match.params)
            if direct is not None:
                return direct
        return super().deliver(request, match, grant)


class LookupHandler(Handler):
    """Base class of the handlers of lookupd."""

    application: LookupApplication

    @classmethod
    def direct(
        cls, application: LookupApplication, request: HTTPServerRequest, params: Mapping[str, str]
    ) -> HTTPMessageDelegate | None:
        """Return a delegate that responds instead of the handler, or None."""
        return None

    async def send(self, data: bytes) -> None:
        """Send a part of the body; raises StreamClosedError if the client disconnected or is too slow."""
        self.write(data)
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self.flush()
        except TimeoutError:
            self.disconnect()
            raise StreamClosedError from None

    async def send_all(self, parts: Iterator[bytes]) -> None:
        """Send a response in parts, each generated once the client has received the previous one."""
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            self.finish(first)
            return
        if self.request.method == "HEAD":
            length = len(first) + len(second)
            for part in parts:
                length += len(part)
                await asyncio.sleep(0)
            self.set_header("Content-Length", str(length))
            self.finish()
            return
        self.follow()
        try:
            await self.send(first)
            await self.send(second)
            for part in parts:
                await self.send(part)
                await asyncio.sleep(0)
        except StreamClosedError:
            return
        finally:
            self.application.readers.leave(self)
        self.finish()

    def follow(self) -> None:
        """Add the client to the readers of long-running responses, until it is displaced or the handler removes it."""
        self.application.readers.admit(self, self.disconnect, known=Scope.CONTROL in self.grant.scopes)

    def warming_left(self) -> int:
        """Return the seconds until nodes should have reconnected after a start, rounded up; 0 afterwards."""
        return math.ceil(self.application.registry.warming_left(time.monotonic()))

    def check_warm(self) -> None:
        """Raise Warming while nodes may not have reconnected yet."""
        if left := self.warming_left():
            raise Warming(left)

    def disconnect(self) -> None:
        """Close the connection at once."""
        connection = cast(Any, self.request.connection)
        if connection is not None and connection.stream is not None:
            connection.stream.close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["error"]
        if isinstance(error, Warming):
            self.set_header("Retry-After", str(error.seconds))
        super().write_error(status_code, **kwargs)
