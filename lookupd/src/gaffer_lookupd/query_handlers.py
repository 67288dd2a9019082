"""The queries over HTTP. Plain GETs are answered without Tornado's RequestHandler, which costs as much as all the rest.

The gate comes first, as for any request. Whatever is not plain goes to the handler: HTTP/1.0, HEAD, a request with a
body, one of a web page, one after which the connection shall close, and an answer of more than one part.
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
    """Parameters of `GET /findJob`: the name of a job, in any form."""

    name: str


class SessionQuery(Struct, kw_only=True):
    """Parameters of `GET /findSession`: the name of a session."""

    sessionid: str


class Question(NamedTuple):
    """A query: what is asked for, of whom, and when."""

    queries: Queries
    request: HTTPServerRequest
    params: Mapping[str, str]
    now: float

    def argument(self, name: str) -> str:
        """The value of a query parameter; raises BadRequest when it is missing or not UTF-8."""
        values = self.request.query_arguments.get(name)
        try:
            value = values[-1].decode() if values else ""
        except UnicodeDecodeError:
            raise BadRequest(f"the parameter `{name}` is not UTF-8") from None
        if not value:
            raise BadRequest(f"the parameter `{name}` is missing", hint=f"{self.request.path}?{name}=...")
        return value


class QueryHandler(LookupHandler):
    """A query, answered from bytes that are mostly there."""

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        """The JSON of the answer, in parts; raises GafferError."""
        raise NotImplementedError

    @classmethod
    def direct(
        cls, application: LookupApplication, request: HTTPServerRequest, params: Mapping[str, str]
    ) -> HTTPMessageDelegate | None:
        if not _is_plain(request):
            return None
        parts = cls.answer(Question(application.queries, request, params, time.monotonic()))
        body = next(parts, b"")
        return _Ready(request, body) if next(parts, None) is None else None

    async def get(self) -> None:
        await self.send_all(
            self.answer(Question(self.application.queries, self.request, self.params, time.monotonic()))
        )


class _Ready(HTTPMessageDelegate):
    """Writes an answer in one piece once the request has been read."""

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
        else:  # the next request is not read before the client has taken the answer
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
        """`{"nodes": [...]}`, those that are known and not expired."""
        await super().get()

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        return asked.queries.nodes(asked.now)


class NodeByIdHandler(QueryHandler):
    """One node, by its id."""

    @operation(AgedNodeInfo, errors=(404,))
    async def get(self) -> None:
        """The node as `/nodes` lists it; 404 when it is not known."""
        await super().get()

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        node_id = asked.params["node_id"]
        answer = asked.queries.node(node_id, asked.now)
        if answer is None:
            raise unknown_node(node_id)
        return iter((answer,))

    @operation(Done, errors=(404,))
    def delete(self) -> None:
        """Remove a node that will not come back, with its jobs: `{"ok": true}`.

        For one that is silent this need not wait for its lease, nor for the end of staleness. A node that still runs
        connects again and is back.
        """
        self.application.connections.delete(self.params["node_id"])
        self.reply({"ok": True})


class SessionsHandler(QueryHandler):
    """The sessions."""

    @operation(SessionsResponse)
    async def get(self) -> None:
        """`{"nb_sessions", "sessions": [{"sessionid", "jobs": {name: [source]}}]}`, of all nodes or of one."""
        await super().get()

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        return asked.queries.sessions(asked.params.get("node"), asked.now)


class JobsHandler(QueryHandler):
    """The jobs."""

    @operation(JobsResponse)
    async def get(self) -> None:
        """`{"nb_jobs", "jobs": [{"name", "sources"}]}`."""
        await super().get()

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        return asked.queries.jobs(asked.now)


class FindJobHandler(QueryHandler):
    """Who runs a job."""

    @operation(SourcesResponse, query=JobQuery)
    async def get(self) -> None:
        """`{"sources": [...]}` for `?name=session.job`; empty when nobody has it."""
        await super().get()

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        return asked.queries.find_job(canonical_job_name(asked.argument("name")), asked.now)


class FindSessionHandler(QueryHandler):
    """Who runs a session."""

    @operation(JobsResponse, query=SessionQuery)
    async def get(self) -> None:
        """`{"nb_jobs", "jobs": [{"name", "sources"}]}` for `?sessionid=`; empty when nobody has it."""
        await super().get()

    @staticmethod
    def answer(asked: Question) -> Iterator[bytes]:
        return asked.queries.find_session(asked.argument("sessionid"), asked.now)
