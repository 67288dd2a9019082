"""What the node says about itself: `/`, `/ping`, `/version`, `/health`, `/openapi.json`."""

from typing import Any, Literal

from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.operations import TEXT, operation
from gaffer.http.routes import PUBLIC, Route
from gaffer.runtime.version import __version__
from gaffer.schemas import bodies


class WelcomeHandler(NodeHandler):
    """The root."""

    @operation(bodies.NodeWelcome)
    def get(self) -> None:
        """`{"welcome": "gaffer", "version"}`."""
        self.reply({"welcome": "gaffer", "version": __version__})


class PingHandler(NodeHandler):
    """For monitoring."""

    @operation(Literal["OK"], media=TEXT)
    def get(self) -> None:
        """The text `OK`."""
        self.reply_text("OK")


class VersionHandler(NodeHandler):
    """The version of the node."""

    @operation(bodies.VersionInfo)
    def get(self) -> None:
        """`{"name": "gaffer", "version"}`."""
        self.reply({"name": "gaffer", "version": __version__})


class HealthHandler(NodeHandler):
    """How the node is."""

    @operation(bodies.HealthInfo)
    def get(self) -> None:
        """`{"status": "ok", "draining" or "stopping", "version", "uptime", "jobs", "processes", "lookupds"}`.

        `uptime` in seconds; `jobs` and `processes` are counts; `lookupds` lists `{"address", "connected", "error"}`.
        """
        manager = self.manager
        self.reply(
            {
                "status": "stopping" if not manager.active else "draining" if manager.draining else "ok",
                "version": __version__,
                "uptime": round(self.application.uptime, 3),
                "jobs": len(manager.jobs()),
                "processes": len(manager.running),
                "lookupds": list(self.application.lookupds()),
            }
        )


class OpenApiHandler(NodeHandler):
    """The description of this API for programs."""

    @operation(dict[str, Any])
    def get(self) -> None:
        """An OpenAPI 3.1 document."""
        self.finish(self.application.description)


ROUTES = [
    Route("/", WelcomeHandler, {"GET": Scope.READ}),
    Route("/ping", PingHandler, {"GET": PUBLIC}),
    Route("/version", VersionHandler, {"GET": Scope.READ}),
    Route("/health", HealthHandler, {"GET": Scope.READ}),
    Route("/openapi.json", OpenApiHandler, {"GET": Scope.READ}),
]
