"""How long the answers of the API take."""

import time

from tornado.web import RequestHandler

from gaffer.errors import BadRequest
from gaffer.http.base import Routed
from gaffer.http.exposition import Histogram
from gaffer.http.operations import operation_of
from gaffer.http.routes import RouteTable

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OTHER = "other"


class Latencies:
    """A histogram of finished requests by method, route and status, whose values are bounded by the route table.

    What is no route or method of the API counts as `other`. Feeds are left out, handlers beside the API too.
    """

    def __init__(self, routes: RouteTable) -> None:
        self.histogram = Histogram(
            "gaffer_http_request_duration_seconds",
            "Time from the head of a request to the end of its answer; of a websocket, to the end of the handshake.",
            ("method", "route", "status"),
        )
        self._routes = routes

    def record(self, handler: RequestHandler) -> None:
        """Count the request that a handler has answered."""
        if not isinstance(handler, Routed):
            return
        method, status = handler.request.method or "", handler.get_status()
        try:
            match = self._routes.match(handler.request.path)
        except BadRequest:
            match = None
        if match is not None and status < 400:
            said = operation_of(match.route.handler, method)
            if said is not None and said.endless:
                return
        labels = (
            method if method in _METHODS else _OTHER,
            match.route.pattern if match is not None else _OTHER,
            str(status),
        )
        self.histogram.observe(labels, time.monotonic() - handler.began)
