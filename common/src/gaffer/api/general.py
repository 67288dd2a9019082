"""Information about the node: `/`, `/ping`, `/version`, `/health`, `/openapi.json`."""

import os
from typing import Any, Literal

from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.operations import TEXT, operation
from gaffer.http.routes import PUBLIC, Route
from gaffer.runtime.version import __version__
from gaffer.schemas import bodies


class WelcomeHandler(NodeHandler):
    """The root of the API."""

    @operation(bodies.NodeWelcome)
    def get(self) -> None:
        """Return `{"welcome": "gaffer", "version"}`."""
        self.reply({"welcome": "gaffer", "version": __version__})


class PingHandler(NodeHandler):
    """Liveness check for monitoring."""

    @operation(Literal["OK"], media=TEXT)
    def get(self) -> None:
        """Return the text `OK`."""
        self.reply_text("OK")


class VersionHandler(NodeHandler):
    """The version of the node."""

    @operation(bodies.VersionInfo)
    def get(self) -> None:
        """Return `{"name": "gaffer", "version"}`."""
        self.reply({"name": "gaffer", "version": __version__})


class HealthHandler(NodeHandler):
    """Health of the node."""

    @operation(bodies.HealthInfo)
    def get(self) -> None:
        """Return `{"status", "name", "version", "pid", "uptime", "jobs", "processes", "lookupds", "webhooks",
        "state_error", "keeper"}`.

        `status` is `ok`, `draining` or `stopping`; `name` is that of the node in lookupds, null if it has none; `pid`
        is the process id of gafferd; `uptime` is in seconds; `jobs` and `processes` are counts;
        `lookupds` lists the lookup servers as `{"address", "connected", "error"}`; `webhooks`
        lists the URLs of webhooks as `{"url", "pending", "dropped", "delivered", "failed", "unsaved", "last_error"}`;
        `state_error` says why changes of jobs can't be stored, so that they are refused, and is null otherwise;
        `keeper` is `{"pid", "since", "error"}`, or null without a keeper.
        """
        manager = self.manager
        self.reply(
            {
                "status": "stopping" if not manager.active else "draining" if manager.draining else "ok",
                "name": self.application.node_name,
                "version": __version__,
                "pid": os.getpid(),
                "uptime": round(self.application.uptime, 3),
                "jobs": len(manager.jobs()),
                "processes": len(manager.running),
                "lookupds": list(self.application.lookupds()),
                "webhooks": list(self.application.webhooks()),
                "state_error": self.application.changer.error,
                "keeper": self.application.keeper(),
            }
        )


class OpenApiHandler(NodeHandler):
    """Machine-readable description of this API."""

    @operation(dict[str, Any])
    def get(self) -> None:
        """Return the OpenAPI 3.1 document."""
        self.finish(self.application.description)


ROUTES = [
    Route("/", WelcomeHandler, {"GET": Scope.READ}),
    Route("/ping", PingHandler, {"GET": PUBLIC}),
    Route("/version", VersionHandler, {"GET": Scope.READ}),
    Route("/health", HealthHandler, {"GET": Scope.READ}),
    Route("/openapi.json", OpenApiHandler, {"GET": Scope.READ}),
]
