"""Response times of the API."""

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
    """A histogram of finished requests by method, route and status, labels that are bounded by the route table.

    Unknown paths and methods count as `other`. Feeds and handlers outside the route table are not counted.
    """

    def __init__(self, routes: RouteTable) -> None:
        self.histogram = Histogram(
            "gaffer_http_request_duration_seconds",
            "Time from the head of a request to the end of its response; for a websocket, to the end of the handshake.",
            ("method", "route", "status"),
        )
        self._routes = routes

    def record(self, handler: RequestHandler) -> None:
        """Count the finished request of a handler."""
        if not isinstance(handler, Routed):
            return
        method, status = handler.request.method or "", handler.get_status()
        try:
            match = self._routes.match(handler.request.path)
        except BadRequest:
            match = None
        if match is not None and status < 400:
            described = operation_of(match.route.handler, method)
            if described is not None and described.endless:
                return
        labels = (
            method if method in _METHODS else _OTHER,
            match.route.pattern if match is not None else _OTHER,
            str(status),
        )
        self.histogram.observe(labels, time.monotonic() - handler.began)
