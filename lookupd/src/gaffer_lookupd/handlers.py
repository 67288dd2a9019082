"""The resources of lookupd over HTTP."""

import time
from typing import Literal

from msgspec import Struct

from gaffer import __version__
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import PUBLIC, Route
from gaffer.names import split_job_name
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.channel import CHANNEL
from gaffer_lookupd.discovery_routes import PrometheusHandler, UpstreamHandler
from gaffer_lookupd.errors import unknown_node
from gaffer_lookupd.events import EventsHandler
from gaffer_lookupd.node_socket import NodeSocket


class WelcomeHandler(LookupHandler):
    """The root."""

    def get(self) -> None:
        """`{"welcome": "gaffer-lookupd", "version"}`."""
        self.reply({"welcome": "gaffer-lookupd", "version": __version__})


class PingHandler(LookupHandler):
    """For monitoring."""

    def get(self) -> None:
        """The text `OK`."""
        self.reply_text("OK")


class VersionHandler(LookupHandler):
    """The version of lookupd."""

    def get(self) -> None:
        """`{"version"}`."""
        self.reply({"version": __version__})


class Health(Struct):
    """How lookupd fares: counts, and `lost`, the changes that followers missed and got a snapshot for."""

    status: Literal["ok", "stale"]
    version: str
    uptime: float
    connections: int
    nodes: int
    suspect: int
    jobs: int
    tombstones: int
    lost: int


class HealthHandler(LookupHandler):
    """How lookupd is."""

    @operation(Health)
    def get(self) -> None:
        """`{"status": "ok" or "stale", "version", "uptime", "connections", "nodes", "suspect", "jobs", "tombstones",
        "lost"}`.

        `connections` are the websockets of nodes, `lost` counts the changes that slow followers missed; `uptime` is in
        seconds.
        """
        application = self.application
        registry = application.registry
        self.reply(
            Health(
                status="stale" if registry.stale else "ok",
                version=__version__,
                uptime=round(application.uptime, 3),
                connections=len(application.connections),
                nodes=len(registry.nodes),
                suspect=sum(node.status == "suspect" for node in registry.nodes),
                jobs=len(registry.tables.jobs),
                tombstones=len(registry.tombstones),
                lost=application.changes.dropped,
            )
        )


class NodesHandler(LookupHandler):
    """The nodes."""

    def get(self) -> None:
        """`{"nodes": [...]}`, those that are known and not expired."""
        self.finish(self.queries.nodes(time.monotonic()))


class NodeHandler(LookupHandler):
    """One node, by its id."""

    def get(self) -> None:
        """The node as `/nodes` lists it; 404 when it is not known."""
        answer = self.queries.node(self.params["id"], time.monotonic())
        if answer is None:
            raise unknown_node(self.params["id"])
        self.finish(answer)

    def delete(self) -> None:
        """Remove a node that will not come back, with its jobs: `{"ok": true}`.

        For one that is silent this need not wait for its lease, nor for the end of staleness. A node that still runs
        connects again and is back.
        """
        self.application.connections.delete(self.params["id"])
        self.reply({"ok": True})


class SessionsHandler(LookupHandler):
    """The sessions."""

    def get(self) -> None:
        """`{"nb_sessions", "sessions": [{"sessionid", "jobs": {name: [source]}}]}`, of all nodes or of one."""
        self.finish(self.queries.sessions(self.params.get("node"), time.monotonic()))


class JobsHandler(LookupHandler):
    """The jobs."""

    def get(self) -> None:
        """`{"nb_jobs", "jobs": [{"name", "sources"}]}`."""
        self.finish(self.queries.jobs(time.monotonic()))


class FindJobHandler(LookupHandler):
    """Who runs a job."""

    def get(self) -> None:
        """`{"sources": [...]}` for `?name=session.job`; empty when nobody has it."""
        name = ".".join(split_job_name(self.required("name")))
        self.finish(self.queries.find_job(name, time.monotonic()))


class FindSessionHandler(LookupHandler):
    """Who runs a session."""

    def get(self) -> None:
        """`{"nb_jobs", "jobs": [{"name", "sources"}]}` for `?sessionid=`; empty when nobody has it."""
        self.finish(self.queries.find_session(self.required("sessionid"), time.monotonic()))


def make_routes() -> list[Route]:
    """The route table of lookupd."""
    read = {"GET": Scope.READ}
    return [
        Route("/", WelcomeHandler, read),
        Route("/ping", PingHandler, {"GET": PUBLIC}),
        Route("/version", VersionHandler, read),
        Route("/health", HealthHandler, read),
        Route("/nodes", NodesHandler, read),
        Route("/nodes/{id}", NodeHandler, {"GET": Scope.READ, "DELETE": Scope.CONTROL}),
        Route("/sessions", SessionsHandler, read),
        Route("/sessions/{node}", SessionsHandler, read),
        Route("/jobs", JobsHandler, read),
        Route("/findJob", FindJobHandler, read),
        Route("/findSession", FindSessionHandler, read),
        Route("/prometheus/sd", PrometheusHandler, read),
        Route("/upstreams/{name}", UpstreamHandler, read),
        Route("/events", EventsHandler, read),
        *CHANNEL.routes(Scope.READ),
        Route("/ws", NodeSocket, {"GET": PUBLIC}),
    ]
