"""HttpHandler: an application that serves the HTTP API of a manager on one or more endpoints."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from tornado.httputil import HTTPServerConnectionDelegate
from tornado.websocket import WebSocketHandler
from tornado.wsgi import WSGIContainer

from gaffer.api import (
    actions,
    channel,
    drain,
    general,
    groups,
    jobs,
    logs,
    metrics,
    pids,
    processes,
    rollouts,
    search,
    stats,
    streams,
    watch,
    websockets,
)
from gaffer.api.changes import Changer
from gaffer.api.node import KeeperStatus, LookupdStatus, NodeApplication, WebhookStatus
from gaffer.http.access import Policy, make_policy
from gaffer.http.limits import DEFAULT_LIMITS, Limits
from gaffer.http.routes import Route, example_paths
from gaffer.http.server import HttpEndpoint, Listeners, SocketStore, own_host_names

if TYPE_CHECKING:
    from gaffer.manager import Manager

__all__ = ["ROUTES", "HttpEndpoint", "HttpHandler"]

ROUTES = [
    *general.ROUTES,
    *metrics.ROUTES,
    *drain.ROUTES,
    *jobs.ROUTES,
    *actions.ROUTES,
    *rollouts.ROUTES,
    *pids.ROUTES,
    *processes.ROUTES,
    *groups.ROUTES,
    *streams.ROUTES,
    *logs.ROUTES,
    *watch.ROUTES,
    *stats.ROUTES,
    *search.ROUTES,
    *websockets.ROUTES,
    *channel.ROUTES,
]
"""All routes of a node; the router, the reference and the authorization tests use this table."""

_NO_PATH_OF_THE_API = "/no-path-of-the-api/1/x"
_WSGI_THREADS = 8
_FEED_TIMEOUT = 1.0  # seconds allowed for sending the last data of feeds


class HttpHandler:
    """An application that serves the HTTP API of its manager.

    endpoints: where to listen, by default `[HttpEndpoint()]`. handlers: Tornado rules `(pattern, handler[, kwargs])`
    for paths outside the API; a handler may be a WSGI application, which runs in threads and gets the whole path. The
    access rules of the API apply to them: reading requires the scope `read`, anything else `control`. routes:
    additional API routes. access: the access policy, by default only the manager's own user and root on this host.
    changer: makes the changes of jobs, by default at once. lookupds, webhooks: return the entries of lookup servers and
    webhooks in /health, keeper that of the keeper. lost_history: returns the number of entries missing from the
    history, for /metrics. node_name: the name of the node, for /health. socket_store: keeps the listening sockets over
    a restart. limits: limits on requests and connections. Other settings are passed to the Tornado application. Raises
    TypeError for invalid endpoints or handlers, and ValueError for a handler that would never be called because its
    pattern matches only paths of the API.
    """

    def __init__(
        self,
        endpoints: Sequence[HttpEndpoint] = (),
        handlers: Sequence[Sequence[Any]] | None = None,
        access: Policy | None = None,
        *,
        routes: Iterable[Route] = (),
        changer: Changer | None = None,
        lookupds: LookupdStatus = list,
        webhooks: WebhookStatus = list,
        keeper: KeeperStatus = lambda: None,
        lost_history: Callable[[], int] | None = None,
        node_name: str | None = None,
        socket_gid: int | None = None,
        socket_store: SocketStore | None = None,
        limits: Limits = DEFAULT_LIMITS,
        **settings: Any,
    ) -> None:
        _check_endpoints(endpoints)
        self._endpoints = endpoints or [HttpEndpoint()]
        self._handlers = handlers or ()
        self._routes = [*ROUTES, *routes]
        _check_handlers(self._handlers, self._routes)
        self._policy = access or make_policy(own_uid=os.geteuid(), own_names=own_host_names())
        self._changer = changer
        self._lookupds = lookupds
        self._webhooks = webhooks
        self._keeper = keeper
        self._lost_history = lost_history
        self._node_name = node_name
        self._socket_gid = socket_gid
        self._socket_store = socket_store
        self._limits = limits
        self._settings = settings
        self._threads: ThreadPoolExecutor | None = None
        self._application: NodeApplication | None = None
        self._listeners: Listeners | None = None

    def __repr__(self) -> str:
        return f"<HttpHandler {', '.join(self.addresses) or 'not started'}>"

    @property
    def addresses(self) -> list[str]:
        """The URLs it listens on, such as `http://127.0.0.1:43211` or `unix:/path`; empty unless started."""
        return list(self._listeners.addresses) if self._listeners is not None else []

    def start(self, loop: asyncio.AbstractEventLoop, manager: "Manager") -> None:
        """Start listening; call it on the running loop. Raises GafferError if an endpoint can't be used."""
        self._application = NodeApplication(
            self._routes,
            self._policy,
            manager,
            changer=self._changer,
            lookupds=self._lookupds,
            webhooks=self._webhooks,
            keeper=self._keeper,
            lost_history=self._lost_history,
            node_name=self._node_name,
            limits=self._limits,
            extra=[self._rule(rule) for rule in self._handlers],
            **self._settings,
        )
        listeners = Listeners(self._application, self._endpoints, self._socket_gid, self._limits, self._socket_store)
        listeners.start()
        self._application.count_connections = lambda: listeners.traffic
        self._listeners = listeners

    def quiesce(self) -> None:
        """At a handover, stop accepting connections: they wait for the next server on the same sockets."""
        if self._listeners is not None and self._application is not None and self._application.manager.handing_over:
            self._listeners.pause()

    async def leave(self) -> None:
        """End the feeds once their last data is sent, after 1 second at the latest."""
        if self._application is not None:
            await self._application.end_feeds(_FEED_TIMEOUT)

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._application is not None:
            channel.CHANNEL.close(self._application)
            self._application.auditor.close()
            self._application.index.close()
        if self._listeners is not None:
            self._listeners.stop()
            await self._listeners.close_connections()
            self._listeners = None
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def _rule(self, rule: Sequence[Any]) -> tuple[Any, ...]:
        pattern, handler, *rest = rule
        if isinstance(handler, type) and issubclass(handler, WebSocketHandler):
            handler = _lasting(handler)
        return (pattern, handler if _is_tornado(handler) else self._wsgi(handler), *rest)

    def _wsgi(self, application: Callable[..., Any]) -> WSGIContainer:
        self._threads = self._threads or ThreadPoolExecutor(_WSGI_THREADS, thread_name_prefix="gaffer-wsgi")
        return WSGIContainer(application, self._threads)


def _is_tornado(handler: Any) -> bool:
    return isinstance(handler, type | str | HTTPServerConnectionDelegate | WSGIContainer)


def _check_endpoints(endpoints: Any) -> None:
    if isinstance(endpoints, Sequence) and all(isinstance(each, HttpEndpoint) for each in endpoints):
        return
    raise TypeError(
        f"expected a list of HttpEndpoint, got {endpoints!r}: write HttpHandler([HttpEndpoint('host:port')])"
    )


def _check_handlers(handlers: Sequence[Any], routes: Sequence[Route]) -> None:
    """Raise TypeError for malformed rules, ValueError for patterns that match paths of the API but not any path."""
    for rule in handlers:
        if isinstance(rule, str) or not isinstance(rule, Sequence) or not 2 <= len(rule) <= 4:
            raise TypeError(f"expected a rule (pattern, handler[, kwargs]), got {rule!r}")
        if not isinstance(rule[0], str) or re.fullmatch(rule[0], _NO_PATH_OF_THE_API):
            continue
        for route in routes:
            if any(re.fullmatch(rule[0], path) for path in example_paths(route.pattern)):
                raise ValueError(
                    f"the handler for {rule[0]!r} would never be called: it is shadowed by the API's {route.pattern}; "
                    "choose a path outside the API"
                )


class _OpenSocket:
    """A websocket of the embedding program, ended like the application's own feeds when the manager stops."""

    def __init__(self, handler: WebSocketHandler) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handler = handler

    def end(self) -> None:
        """Begin the closing handshake."""
        self._handler.close(*cast(NodeApplication, self._handler.application).farewell())


def _lasting(handler: type[WebSocketHandler]) -> type[WebSocketHandler]:
    """Return a subclass of `handler` that registers its open websockets as feeds of the application."""

    class Lasting(handler):  # type: ignore[misc,valid-type]
        _gaffer_socket: _OpenSocket | None = None

        def open(self, *args: str, **kwargs: str) -> Awaitable[None] | None:
            self._gaffer_socket = _OpenSocket(self)
            self.application.feeds.add(self._gaffer_socket)
            return super().open(*args, **kwargs)  # type: ignore[no-any-return]

        def on_close(self) -> None:
            socket = self._gaffer_socket
            if socket is not None:
                self.application.feeds.discard(socket)
                if not socket.finished.done():
                    socket.finished.set_result(None)
            super().on_close()

    Lasting.__name__, Lasting.__qualname__ = handler.__name__, handler.__qualname__
    return Lasting
