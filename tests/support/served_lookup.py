"""The application of lookupd over a registry that a test changes itself."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gaffer.http.access import Scope, make_policy
from gaffer.login.logins import Logins
from gaffer.schemas.messages import Identify
from gaffer_lookupd.application import LookupApplication
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.connections import Connections
from gaffer_lookupd.handlers import make_routes
from gaffer_lookupd.lease import Lease
from gaffer_lookupd.readers import Readers
from gaffer_lookupd.records import Node
from gaffer_lookupd.registry import Registry


class ServedLookup:
    """Serve `application`, at `url`; `limit` changes are kept, and the clock of the registry stands at 0."""

    def __init__(self, limit: int = 1000, lease: Lease | None = None) -> None:
        self.url = ""
        self.changes = ChangeLog(limit)
        self.registry = Registry(lease or Lease(), epoch="e", changes=self.changes, now=0.0)
        policy = make_policy(own_uid=0, own_names=(), anonymous=(Scope.READ,))
        readers = Readers(100)
        connections = Connections(self.registry, self.changes, readers)
        self.application = LookupApplication(
            make_routes(),
            policy,
            connections,
            self.changes,
            readers=readers,
            logins=Logins("gaffer-lookupd"),
            verify_node=None,
        )

    def identify(self, name: str = "n1", node_id: str | None = "id1", **labels: str) -> Node:
        """A node that connects."""
        session = self.registry.connect(0.0)
        identity = Identify("m", name, f"http://{name}:5000", "0.1", node_id, 1, labels)
        self.registry.identify(session, identity, 0.0)
        return self.registry.identified(session)


@asynccontextmanager
async def slow_reader(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection with a small buffer for what comes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    host, port = url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def both_ways(writer: asyncio.StreamWriter) -> asyncio.Transport:
    """The transport of a writer's socket, which can pause reading, too."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    return transport
