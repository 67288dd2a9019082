"""`/ws`: the websocket that nodes announce themselves on."""

import asyncio
from collections.abc import Callable
from typing import Any

from tornado.websocket import WebSocketClosedError

from gaffer.errors import BadRequest
from gaffer.http.access import AuthRequired, Facts, check_host, check_origin
from gaffer.http.http1 import list_items
from gaffer.http.rfc6455 import ServerSocket
from gaffer.http.server import peer_of
from gaffer.schemas.messages import MAX_FIRST_MESSAGE_SIZE, MAX_MESSAGE_SIZE
from gaffer_lookupd.application import LookupHandler

_AGENT_LIMIT = 200  # characters


class NodeSocket(LookupHandler, ServerSocket):
    """The websocket of a node, which must present the cluster key if there is one."""

    session: int | None = None

    def prepare(self) -> None:
        super().prepare()
        request = self.request
        facts = Facts.from_headers(request.method or "", request.protocol, request.headers, peer_of(request))
        check_origin(self.application.policy, facts)
        if self.application.verify_node is not None:
            self._check_key(facts.key, self.application.verify_node)
        elif facts.from_browser:
            # Nodes may use any host name; a browser page that does so indicates DNS rebinding.
            check_host(self.application.policy, facts)
        if "websocket" not in list_items(request.headers, "Upgrade"):
            raise BadRequest(f"{request.path} is a websocket", hint="connect with ws:// or wss://")

    def _check_key(self, key: str | None, verify: Callable[[str], bool]) -> None:
        if key is not None and verify(key):
            return
        fault = "no cluster key" if key is None else "wrong cluster key"
        # It has not sent its name yet, but gafferd includes it in the User-Agent.
        agent = self.request.headers.get("User-Agent", "")[:_AGENT_LIMIT]
        peer = f"node {agent!r}" if agent else "a node"
        self.application.connections.warn(self, f"rejected {peer}: {fault}")
        raise AuthRequired(
            f"nodes must present the cluster key: {fault}",
            hint="set --cluster-key-file of gafferd to the key file of the cluster",
        )

    @property
    def max_message_size(self) -> int:
        """The limit in bytes, which is small until the peer has identified itself."""
        identified = self.session is not None and self.application.connections.is_identified(self.session)
        return MAX_MESSAGE_SIZE if identified else MAX_FIRST_MESSAGE_SIZE

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self.session = self.application.connections.add(self, known=self.application.verify_node is not None)

    def on_message(self, message: str | bytes) -> "asyncio.Future[None] | None":
        if self.session is None:
            return None
        # Awaited, so that we stop reading from a peer that doesn't read its replies.
        return self.application.connections.receive(self.session, message)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, WebSocketClosedError):  # the peer disconnected before its reply
            super().log_exception(typ, value, tb)

    def on_close(self) -> None:
        if self.session is not None:
            self.application.connections.closed(self.session)
