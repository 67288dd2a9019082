"""The HttpHandler application: controls a manager over HTTP on several endpoints (APP-06 to APP-08)."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tornado.httputil import HTTPServerConnectionDelegate
from tornado.wsgi import WSGIContainer

from gaffer.http import (
    channel,
    drain,
    general,
    groups,
    jobs,
    metrics,
    pids,
    processes,
    stats,
    streams,
    watch,
    websockets,
)
from gaffer.http.access import Policy, make_policy
from gaffer.http.limits import DEFAULT_LIMITS, Limits
from gaffer.http.node import LookupdStatus, NodeApplication
from gaffer.http.routes import Route
from gaffer.http.server import HttpEndpoint, Listeners, own_host_names

if TYPE_CHECKING:
    from gaffer.manager import Manager

__all__ = ["ROUTES", "HttpEndpoint", "HttpHandler"]

ROUTES = [
    *general.ROUTES,
    *metrics.ROUTES,
    *drain.ROUTES,
    *jobs.ROUTES,
    *pids.ROUTES,
    *processes.ROUTES,
    *groups.ROUTES,
    *streams.ROUTES,
    *watch.ROUTES,
    *stats.ROUTES,
    *websockets.ROUTES,
    *channel.ROUTES,
]
"""Every route of the node: what is routed, documented and tested for authorization."""

_WSGI_THREADS = 8
_FEED_PATIENCE = 1.0  # seconds that clients have to take the last of their feeds


class HttpHandler:
    """An application that serves the HTTP API of the manager it is started with.

    endpoints: where to listen, `HttpEndpoint()` alone when none is given. handlers: Tornado rules `(pattern, handler[,
    kwargs])` for paths the API doesn't have; the handler may be a WSGI application, which runs in threads and sees
    the whole path. They pass the same access rules as the API: reading needs the scope `read`, anything else `control`.
    routes: more of the API, for the route table. access: who may do what; the manager's own user and root on this host
    when not given. lookupds: the entries of /health for lookup servers. limits: of requests and connections. Other
    settings go to the Tornado application.
    """

    def __init__(
        self,
        endpoints: Sequence[HttpEndpoint] = (),
        handlers: Sequence[Sequence[Any]] | None = None,
        access: Policy | None = None,
        *,
        routes: Iterable[Route] = (),
        lookupds: LookupdStatus = list,
        socket_gid: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        **settings: Any,
    ) -> None:
        self._endpoints = endpoints or [HttpEndpoint()]
        self._handlers = handlers or ()
        self._routes = [*ROUTES, *routes]
        self._policy = access or make_policy(own_uid=os.geteuid(), own_names=own_host_names())
        self._lookupds = lookupds
        self._socket_gid = socket_gid
        self._limits = limits
        self._settings = settings
        self._threads: ThreadPoolExecutor | None = None
        self._application: NodeApplication | None = None
        self._listeners: Listeners | None = None

    @property
    def addresses(self) -> list[str]:
        """The URLs it listens on, `http://127.0.0.1:43211` or `unix:/path`; empty unless started."""
        return list(self._listeners.addresses) if self._listeners is not None else []

    def start(self, loop: asyncio.AbstractEventLoop, manager: "Manager") -> None:
        """Listen; raises GafferError when an endpoint can't be used. Called inside the running loop."""
        self._application = NodeApplication(
            self._routes,
            self._policy,
            manager,
            lookupds=self._lookupds,
            limits=self._limits,
            extra=[self._rule(rule) for rule in self._handlers],
            **self._settings,
        )
        listeners = Listeners(self._application, self._endpoints, self._socket_gid, self._limits)
        listeners.start()
        self._application.count_connections = lambda: listeners.traffic
        self._listeners = listeners

    async def leave(self) -> None:
        """Let the feeds end: no more output will come."""
        if self._application is not None:
            await self._application.end_feeds(_FEED_PATIENCE)

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._application is not None:
            channel.CHANNEL.close(self._application)
        if self._listeners is not None:
            self._listeners.stop()
            await self._listeners.close_connections()
            self._listeners = None
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def _rule(self, rule: Sequence[Any]) -> tuple[Any, ...]:
        pattern, handler, *rest = rule
        return (pattern, handler if _is_tornado(handler) else self._wsgi(handler), *rest)

    def _wsgi(self, application: Callable[..., Any]) -> WSGIContainer:
        self._threads = self._threads or ThreadPoolExecutor(_WSGI_THREADS, thread_name_prefix="gaffer-wsgi")
        return WSGIContainer(application, self._threads)


def _is_tornado(handler: Any) -> bool:
    return isinstance(handler, type | str | HTTPServerConnectionDelegate | WSGIContainer)
