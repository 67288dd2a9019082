"""The HTTP resources of lookupd."""

from typing import Any

from gaffer.http.access import Scope
from gaffer.http.operations import TEXT, operation
from gaffer.http.routes import PUBLIC, Route
from gaffer.login import routes as login_routes
from gaffer.runtime.version import __version__
from gaffer.schemas.lookup import LookupHealth, LookupVersion, LookupWelcome
from gaffer.ui.routes import make_ui_routes
from gaffer_lookupd import query_handlers as ask
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.channel import CHANNEL
from gaffer_lookupd.dashboard import ClusterDashboardFile
from gaffer_lookupd.discovery_routes import PrometheusHandler, UpstreamHandler
from gaffer_lookupd.events import EventsHandler
from gaffer_lookupd.history_handlers import ClusterHistoryChangesHandler, ClusterHistoryHandler
from gaffer_lookupd.metrics import MetricsHandler
from gaffer_lookupd.node_socket import NodeSocket
from gaffer_lookupd.peers import PeersHandler
from gaffer_lookupd.search_handlers import SearchChangesHandler, SearchHandler


class WelcomeHandler(LookupHandler):
    """The root resource."""

    @operation(LookupWelcome)
    def get(self) -> None:
        """Return `{"welcome": "gaffer-lookupd", "version"}`."""
        self.reply(LookupWelcome(welcome="gaffer-lookupd", version=__version__))


class PingHandler(LookupHandler):
    """A check for monitoring."""

    @operation(str, media=TEXT)
    def get(self) -> None:
        """Return the text `OK`."""
        self.reply_text("OK")


class VersionHandler(LookupHandler):
    """The version of lookupd."""

    @operation(LookupVersion)
    def get(self) -> None:
        """Return `{"version"}`."""
        self.reply(LookupVersion(version=__version__))


class HealthHandler(LookupHandler):
    """Health of lookupd."""

    @operation(LookupHealth)
    def get(self) -> None:
        """Return `{"status": "ok", "warming" or "stale", "warming", "version", "uptime", "connections", "nodes",
        "suspect", "jobs", "tombstones", "lost", "followers", "displaced"}`.

        `connections` are the websockets of nodes; `lost` counts changes that slow followers missed; `followers` are
        readers of long-running responses and unidentified peers, `displaced` those disconnected to make room for newer
        ones; `uptime` is in seconds.
        """
        application = self.application
        registry = application.registry
        self.reply(
            LookupHealth(
                status="stale" if registry.preserving else "warming" if registry.warming else "ok",
                warming=registry.warming,
                version=__version__,
                uptime=round(application.uptime, 3),
                connections=len(application.connections),
                nodes=len(registry.nodes),
                suspect=sum(node.status == "suspect" for node in registry.nodes),
                jobs=len(registry.tables.jobs),
                tombstones=len(registry.graves),
                lost=application.changes.dropped,
                followers=len(application.readers),
                displaced=application.readers.displaced,
            )
        )


class OpenApiHandler(LookupHandler):
    """The description of this API."""

    @operation(dict[str, Any])
    def get(self) -> None:
        """Return the OpenAPI 3.1 document."""
        self.finish(self.application.openapi)


def make_routes(*, ui: bool = True) -> list[Route]:
    """Return the route table of lookupd, with the dashboard if `ui`."""
    read = {"GET": Scope.READ}
    return [
        Route("/", WelcomeHandler, read),
        Route("/ping", PingHandler, {"GET": PUBLIC}),
        Route("/version", VersionHandler, read),
        Route("/openapi.json", OpenApiHandler, read),
        Route("/health", HealthHandler, read),
        Route("/metrics", MetricsHandler, read),
        Route("/nodes", ask.NodesHandler, read),
        Route("/nodes/{node_id}", ask.NodeByIdHandler, {"GET": Scope.READ, "DELETE": Scope.CONTROL}),
        Route("/sessions", ask.SessionsHandler, read),
        Route("/sessions/{node}", ask.SessionsHandler, read),
        Route("/jobs", ask.JobsHandler, read),
        Route("/findJob", ask.FindJobHandler, read),
        Route("/findSession", ask.FindSessionHandler, read),
        Route("/search", SearchHandler, read),
        Route("/search/changes", SearchChangesHandler, read),
        Route("/history", ClusterHistoryHandler, read),
        Route("/history/changes", ClusterHistoryChangesHandler, read),
        Route("/lookupds", PeersHandler, read),
        Route("/prometheus/sd", PrometheusHandler, read),
        Route("/upstreams/{name}", UpstreamHandler, read),
        Route("/events", EventsHandler, read),
        *login_routes.ROUTES,
        *CHANNEL.routes(Scope.READ),
        Route("/ws", NodeSocket, {"GET": PUBLIC}),
        *(make_ui_routes(ClusterDashboardFile) if ui else ()),
    ]
