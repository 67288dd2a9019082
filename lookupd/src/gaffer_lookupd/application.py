"""The HTTP application of lookupd: what its handlers share."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, cast

import msgspec
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import StreamClosedError

from gaffer.http.access import AuthRequired, Forbidden, Grant, Policy, Scope
from gaffer.http.base import Application, Handler
from gaffer.http.openapi import make_document
from gaffer.http.routes import Match, Route
from gaffer.runtime.version import __version__
from gaffer.schemas.messages import MAX_MESSAGE_SIZE
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.connections import Connections
from gaffer_lookupd.errors import Warming
from gaffer_lookupd.queries import Queries
from gaffer_lookupd.readers import Readers
from gaffer_lookupd.resolver import Resolver

SEND_TIMEOUT = 60.0  # seconds in which a client has to take one part of an answer


class LookupApplication(Application):
    """Serves one registry and its changes.

    `verify_node` tells whether a key is the cluster key, which nodes must present; None when they need none. `readers`
    bounds the readers whose answers take long.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        policy: Policy,
        connections: Connections,
        changes: ChangeLog,
        *,
        readers: Readers,
        verify_node: Callable[[str], bool] | None,
    ) -> None:
        super().__init__(routes, policy, websocket_max_message_size=MAX_MESSAGE_SIZE)
        self.readers = readers
        self.connections = connections
        self.registry = connections.registry
        self.changes = changes
        self.queries = Queries(self.registry)
        self.resolver = Resolver()
        self.verify_node = verify_node
        self._started = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._started

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document of the API."""
        return msgspec.json.encode(make_document(self.routes, title="Gaffer registry", version=__version__))

    def authorize(self, match: Match, method: str, grant: Grant) -> None:
        """As the base class; only the cluster key allows more than reading, so a caller without it is asked for it."""
        try:
            super().authorize(match, method, grant)
        except Forbidden:
            raise AuthRequired(
                "this needs the cluster key, or a caller on this host of lookupd's own user",
                hint="send the key as `Authorization: Bearer KEY`",
            ) from None

    def deliver(self, request: HTTPServerRequest, match: Match, grant: Grant) -> HTTPMessageDelegate:
        """As the base class, but some requests need no handler."""
        handler = match.route.handler
        if issubclass(handler, LookupHandler):
            direct = handler.direct(self, request, match.params)
            if direct is not None:
                return direct
        return super().deliver(request, match, grant)


class LookupHandler(Handler):
    """A Handler of the lookup application."""

    application: LookupApplication

    @classmethod
    def direct(
        cls, application: LookupApplication, request: HTTPServerRequest, params: Mapping[str, str]
    ) -> HTTPMessageDelegate | None:
        """What answers the request in place of a handler; None where it takes one."""
        return None

    async def send(self, data: bytes) -> None:
        """Send a part of the body; raises StreamClosedError when the client left, or did not take it in time."""
        self.write(data)
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self.flush()
        except TimeoutError:
            self.disconnect()
            raise StreamClosedError from None

    async def send_all(self, parts: Iterator[bytes]) -> None:
        """Answer with the parts. Each is made once the client took the one before, and others are served meanwhile."""
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
        """Count the client among the readers whose answers take long, until it is displaced or the handler leaves."""
        self.application.readers.admit(self, self.disconnect, known=Scope.CONTROL in self.grant.scopes)

    def warming_left(self) -> int:
        """Seconds until nodes should be back after a start, rounded up; 0 once they are."""
        return math.ceil(self.application.registry.warming_left(time.monotonic()))

    def check_warm(self) -> None:
        """Raise Warming while nodes may not be back yet."""
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
