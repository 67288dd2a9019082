"""The HTTP application of lookupd: what its handlers share."""

import time
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest

from gaffer.http.access import AuthRequired, Forbidden, Grant, Policy
from gaffer.http.base import Application, Handler
from gaffer.http.openapi import make_document
from gaffer.http.routes import Match, Route
from gaffer.messages import MAX_MESSAGE_SIZE
from gaffer_lookupd.changes import MemoryChanges
from gaffer_lookupd.connections import Connections
from gaffer_lookupd.queries import Queries


class LookupApplication(Application):
    """Serves one registry and its changes; `needs_key` tells whether nodes must know the cluster key."""

    def __init__(
        self,
        routes: Iterable[Route],
        policy: Policy,
        connections: Connections,
        changes: MemoryChanges,
        *,
        needs_key: bool,
    ) -> None:
        super().__init__(routes, policy, websocket_max_message_size=MAX_MESSAGE_SIZE)
        self.connections = connections
        self.registry = connections.registry
        self.changes = changes
        self.queries = Queries(self.registry)
        self.needs_key = needs_key
        self._started = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._started

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document of the API."""
        return msgspec.json.encode(make_document(self.routes, title="Gaffer registry"))

    def authorize(self, match: Match, method: str, grant: Grant) -> None:
        """As the base class; here the one key allows everything, so who may not do something has not shown it."""
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
