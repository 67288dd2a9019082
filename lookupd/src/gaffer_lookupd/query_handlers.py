"""The queries over HTTP. Plain GETs bypass Tornado's RequestHandler, which costs as much as everything else.

They are authorized like any other request. Requests that are not plain use the handler: HTTP/1.0, HEAD, requests with a
body or from a web page, those that close the connection, and responses of more than one part.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, cast

from msgspec import Struct
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest, format_timestamp
from tornado.iostream import StreamClosedError

from gaffer.errors import BadRequest
from gaffer.http.operations import operation
from gaffer.jobs.names import canonical_job_name
from gaffer.schemas.common import Done
from gaffer.schemas.lookup import AgedNodeInfo, JobsResponse, NodesResponse, SessionsResponse, SourcesResponse
from gaffer_lookupd.application import LookupApplication, LookupHandler
from gaffer_lookupd.errors import unknown_node
from gaffer_lookupd.queries import Queries

_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/json\r\n"
    b"Cache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Content-Security-Policy: frame-ancestors 'self'\r\n"
    b"Date: %b\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_NEED_A_HANDLER = frozenset(("Content-Length", "Origin", "Transfer-Encoding"))

logger = logging.getLogger(__name__)


class JobQuery(Struct, kw_only=True):
    """Parameters of `GET /findJob`: the name of a job in any form."""

    name: str


class SessionQuery(Struct, kw_only=True):
    """Parameters of `GET /findSession`: the name of a session."""

    sessionid: str


class Query(NamedTuple):
    """A query: the queries of the registry, the request, its path parameters and the time."""

    queries: Queries
    request: HTTPServerRequest
    params: Mapping[str, str]
    now: float

    def argument(self, name: str) -> str:
        """Return the value of a query parameter; raises BadRequest if it is missing or not UTF-8."""
        values = self.request.query_arguments.get(name)
        try:
            value = values[-1].decode() if values else ""
        except UnicodeDecodeError:
            raise BadRequest(f"the parameter `{name}` is not UTF-8") from None
        if not value:
            raise BadRequest(f"the parameter `{name}` is missing", hint=f"use {self.request.path}?{name}=...")
        return value


class QueryHandler(LookupHandler):
    """Base class of queries, whose responses are mostly cached."""

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        """Return the JSON of the response, in parts; raises GafferError."""
        raise NotImplementedError

    @classmethod
    def direct(
        cls, application: LookupApplication, request: HTTPServerRequest, params: Mapping[str, str]
    ) -> HTTPMessageDelegate | None:
        if not _is_plain(request):
            return None
        parts = cls.answer(Query(application.queries, request, params, time.monotonic()))
        body = next(parts, b"")
        return _Ready(request, body) if next(parts, None) is None else None

    async def get(self) -> None:
        await self.send_all(self.answer(Query(self.application.queries, self.request, self.params, time.monotonic())))


class _Ready(HTTPMessageDelegate):
    """A delegate that writes a response in one piece once the request has been read."""

    def __init__(self, request: HTTPServerRequest, body: bytes) -> None:
        self._request = request
        self._body = body

    def finish(self) -> None:
        connection = cast(HTTP1Connection, self._request.connection)
        try:
            written = connection.stream.write(_HEAD % (_date(int(time.time())), len(self._body), self._body))
        except StreamClosedError:
            return
        if written.done():
            connection.finish()
        else:  # the next request is not read until the client has received the response
            written.add_done_callback(lambda _: connection.finish())
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("200 GET %s (%.1f ms)", self._request.path, 1000 * self._request.request_time())


def _is_plain(request: HTTPServerRequest) -> bool:
    headers = request.headers
    return (
        request.method == "GET"
        and request.version == "HTTP/1.1"
        and headers.get("Connection", "keep-alive").lower() == "keep-alive"
        and _NEED_A_HANDLER.isdisjoint(headers)
    )


@lru_cache(1)
def _date(now: int) -> bytes:
    return format_timestamp(now).encode()


class NodesHandler(QueryHandler):
    """The nodes."""

    @operation(NodesResponse)
    async def get(self) -> None:
        """Return `{"nodes": [...]}`, all nodes that have not expired."""
        await super().get()

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        return query.queries.nodes(query.now)


class NodeByIdHandler(QueryHandler):
    """One node, by its id."""

    @operation(AgedNodeInfo, errors=(404,))
    async def get(self) -> None:
        """Return the node as in `/nodes`; 404 if unknown."""
        await super().get()

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        node_id = query.params["node_id"]
        answer = query.queries.node(node_id, query.now)
        if answer is None:
            raise unknown_node(node_id)
        return iter((answer,))

    @operation(Done, errors=(404,))
    def delete(self) -> None:
        """Remove a node that will not come back, with its jobs: `{"ok": true}`.

        This works even before the lease of a silent node has ended, or while responses are stale. A node that is still
        running reconnects and is listed again.
        """
        self.application.connections.delete(self.params["node_id"])
        self.reply({"ok": True})


class SessionsHandler(QueryHandler):
    """The sessions."""

    @operation(SessionsResponse)
    async def get(self) -> None:
        """Return `{"nb_sessions", "sessions": [{"sessionid", "jobs": {name: [source]}}]}` for all nodes or for one."""
        await super().get()

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        return query.queries.sessions(query.params.get("node"), query.now)


class JobsHandler(QueryHandler):
    """The jobs."""

    @operation(JobsResponse)
    async def get(self) -> None:
        """Return `{"nb_jobs", "jobs": [{"name", "sources"}]}`."""
        await super().get()

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        return query.queries.jobs(query.now)


class FindJobHandler(QueryHandler):
    """The nodes that have a job."""

    @operation(SourcesResponse, query=JobQuery)
    async def get(self) -> None:
        """Return `{"sources": [...]}` for `?name=session.job`; empty if no node has the job."""
        await super().get()

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        return query.queries.find_job(canonical_job_name(query.argument("name")), query.now)


class FindSessionHandler(QueryHandler):
    """The nodes that have the jobs of a session."""

    @operation(JobsResponse, query=SessionQuery)
    async def get(self) -> None:
        """Return `{"nb_jobs", "jobs": [{"name", "sources"}]}` for `?sessionid=`; empty if no node has the session."""
        await super().get()

    @staticmethod
    def answer(query: Query) -> Iterator[bytes]:
        return query.queries.find_session(query.argument("sessionid"), query.now)
