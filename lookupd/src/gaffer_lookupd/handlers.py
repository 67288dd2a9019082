"""The resources of lookupd over HTTP: the queries, and the websocket that nodes announce themselves on."""

import time

from tornado.websocket import WebSocketHandler

from gaffer import __version__
from gaffer.errors import BadRequest
from gaffer.http.access import AuthRequired, Facts, Policy, Scope, check_host, check_origin
from gaffer.http.base import Application, Handler
from gaffer.http.routes import PUBLIC, Route
from gaffer.http.server import peer_of
from gaffer.messages import MAX_MESSAGE_SIZE
from gaffer.names import split_job_name
from gaffer_lookupd.connections import Connections
from gaffer_lookupd.queries import Queries


class LookupApplication(Application):
    """The queries and the websocket over one registry; `needs_key` tells whether nodes must know the cluster key."""

    def __init__(self, connections: Connections, policy: Policy, *, needs_key: bool) -> None:
        super().__init__(make_routes(), policy, websocket_max_message_size=MAX_MESSAGE_SIZE)
        self.connections = connections
        self.needs_key = needs_key


class LookupHandler(Handler):
    """A Handler of the lookup application."""

    application: LookupApplication

    @property
    def queries(self) -> Queries:
        """Answers about the registry as it is now."""
        return Queries(self.application.connections.registry, time.monotonic())

    def required(self, name: str) -> str:
        """The value of a query parameter; raises BadRequest when it is missing."""
        value = self.get_query_argument(name, None)
        if not value:
            raise BadRequest(f"the parameter `{name}` is missing", hint=f"{self.request.path}?{name}=...")
        return value


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


class NodesHandler(LookupHandler):
    """The nodes."""

    def get(self) -> None:
        """`{"nodes": [...]}`, those that are known and not expired."""
        self.reply(self.queries.nodes())


class SessionsHandler(LookupHandler):
    """The sessions."""

    def get(self) -> None:
        """`{"nb_sessions", "sessions": [{"sessionid", "jobs": {name: [source]}}]}`, of all nodes or of one."""
        self.reply(self.queries.sessions(self.params.get("node")))


class JobsHandler(LookupHandler):
    """The jobs."""

    def get(self) -> None:
        """`{"nb_jobs", "jobs": [{"name", "sources"}]}`."""
        self.reply(self.queries.jobs())


class FindJobHandler(LookupHandler):
    """Who runs a job."""

    def get(self) -> None:
        """`{"sources": [...]}` for `?name=session.job`; empty when nobody has it."""
        name = ".".join(split_job_name(self.required("name")))
        self.reply(self.queries.find_job(name))


class FindSessionHandler(LookupHandler):
    """Who runs a session."""

    def get(self) -> None:
        """`{"nb_jobs", "jobs": [{"name", "sources"}]}` for `?sessionid=`; empty when nobody has it."""
        self.reply(self.queries.find_session(self.required("sessionid")))


class NodeSocket(LookupHandler, WebSocketHandler):
    """The connection of a node. Where there is a cluster key, only its holders get one."""

    session: int | None = None

    def prepare(self) -> None:
        super().prepare()
        request = self.request
        facts = Facts.from_headers(request.method or "", request.protocol, request.headers, peer_of(request))
        check_origin(self.application.policy, facts)
        if self.application.needs_key:
            self._check_key(facts.key)
        elif facts.from_browser:
            # Nodes may know lookupd by any name; a page behind such a name is a page of a DNS rebinder.
            check_host(self.application.policy, facts)
        if request.method != "GET" or request.headers.get("Upgrade", "").lower() != "websocket":
            raise BadRequest(f"{request.path} is a websocket", hint="connect with ws:// or wss://")

    def _check_key(self, key: str | None) -> None:
        if key is not None and self.application.policy.verify(key) is not None:
            return
        what = "without the cluster key" if key is None else "with a wrong cluster key"
        self.application.connections.complain(self, f"a node came {what} and was refused")
        raise AuthRequired(
            f"nodes need the cluster key here; this one came {what}",
            hint="give gafferd the key file of the cluster: --cluster-key-file",
        )

    def check_origin(self, origin: str) -> bool:
        return True  # done by prepare()

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self.session = self.application.connections.add(self)

    async def on_message(self, message: str | bytes) -> None:
        if self.session is not None:
            # Awaited, so that no more is read from a peer that doesn't read its replies.
            await self.application.connections.receive(self.session, message)

    def on_close(self) -> None:
        if self.session is not None:
            self.application.connections.closed(self.session)


def make_routes() -> list[Route]:
    """The route table of lookupd."""
    read = {"GET": Scope.READ}
    return [
        Route("/", WelcomeHandler, read),
        Route("/ping", PingHandler, {"GET": PUBLIC}),
        Route("/version", VersionHandler, read),
        Route("/nodes", NodesHandler, read),
        Route("/sessions", SessionsHandler, read),
        Route("/sessions/{node}", SessionsHandler, read),
        Route("/jobs", JobsHandler, read),
        Route("/findJob", FindJobHandler, read),
        Route("/findSession", FindSessionHandler, read),
        Route("/ws", NodeSocket, {"GET": PUBLIC}),
    ]
