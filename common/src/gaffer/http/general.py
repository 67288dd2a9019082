"""What the node says about itself: `/`, `/ping`, `/version`, `/health`."""

from gaffer import __version__
from gaffer.http.access import Scope
from gaffer.http.node import NodeHandler
from gaffer.http.routes import PUBLIC, Route


class Welcome(NodeHandler):
    """R-01: `{"welcome": "gaffer", "version"}`."""

    def get(self) -> None:
        self.reply({"welcome": "gaffer", "version": __version__})


class Ping(NodeHandler):
    """R-02: `OK`, for monitoring, open to everybody."""

    def get(self) -> None:
        self.reply_text("OK")


class Version(NodeHandler):
    """R-03: `{"name": "gaffer", "version"}`."""

    def get(self) -> None:
        self.reply({"name": "gaffer", "version": __version__})


class Health(NodeHandler):
    """`{"status": "ok"|"stopping", "version", "uptime", "jobs", "processes", "lookupds": [{"address", ...}]}`.

    `uptime` in seconds; `jobs` and `processes` are counts.
    """

    def get(self) -> None:
        manager = self.manager
        self.reply(
            {
                "status": "ok" if manager.active else "stopping",
                "version": __version__,
                "uptime": round(self.application.uptime, 3),
                "jobs": len(manager.jobs()),
                "processes": len(manager.running),
                "lookupds": list(self.application.lookupds()),
            }
        )


ROUTES = [
    Route("/", Welcome, {"GET": Scope.READ}),
    Route("/ping", Ping, {"GET": PUBLIC}),
    Route("/version", Version, {"GET": Scope.READ}),
    Route("/health", Health, {"GET": Scope.READ}),
]
