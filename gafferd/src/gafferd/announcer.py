"""The application that tells lookupds which jobs and processes this node has."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from ssl import SSLContext
from typing import Protocol
from urllib.parse import quote

from gaffer import __version__
from gaffer.messages import PROTOCOL_VERSION, Identify
from gafferd.announcing_journal import Journal, Table
from gafferd.announcing_link import Link, LinkStatus, websocket_url

DRAIN_PATIENCE = 1.0  # seconds that lookupds have to take the node out of their answers


class Source(Protocol):
    """What the announcer needs of a manager."""

    def announced(self) -> Table: ...

    def on_change(self, callback: Callable[[], None]) -> None: ...

    def off_change(self, callback: Callable[[], None]) -> None: ...


class Announcer:
    """Announces to the lookupds at `addresses` (http(s) URLs), each by a connection of its own.

    `origin` is the public URL of the node, or a function that gives it when the announcer starts. `node_id` and
    `incarnation` come from the state directory. `ssl` serves https addresses. Raises BadRequest for an address
    that is none.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        *,
        name: str,
        origin: str | Callable[[], str],
        node_id: str,
        incarnation: int,
        labels: Mapping[str, str] | None = None,
        version: str = PROTOCOL_VERSION,
        cluster_key: str | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        self._name = name
        self._origin = origin
        self._node_id = node_id
        self._incarnation = incarnation
        self._labels = dict(labels or {})
        self._version = version
        self._journal = Journal()
        self._source: Source | None = None
        headers = {"User-Agent": f"gafferd/{__version__} ({quote(name)})"}
        if cluster_key is not None:
            headers["Authorization"] = f"Bearer {cluster_key}"
        unique: dict[str, str] = {}
        for address in addresses:
            unique.setdefault(websocket_url(address), address)
        self._links = [Link(address, self._journal, self._identify, headers, ssl) for address in unique.values()]

    def start(self, loop: asyncio.AbstractEventLoop, manager: Source) -> None:
        """Begin to announce what `manager` has."""
        self._source = manager
        self._journal.draining = False
        self._update()
        manager.on_change(self._update)
        for link in self._links:
            link.start()

    async def drain(self) -> None:
        """Tell clients to go elsewhere: returns when no lookupd answers with this node's processes any more.

        A lookupd that does not say so in time is not waited for.
        """
        self._journal.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_PATIENCE):
                await asyncio.gather(*(link.drain() for link in self._links))

    quiesce = drain

    def resume(self) -> None:
        """Undo `drain`."""
        self._journal.draining = False
        for link in self._links:
            link.resume()

    async def leave(self) -> None:
        """All processes are gone: say goodbye."""
        self._detach()
        await asyncio.gather(*(link.leave() for link in self._links))

    async def stop(self) -> None:
        """Close the connections."""
        self._detach()
        await asyncio.gather(*(link.close() for link in self._links))

    def status(self) -> list[LinkStatus]:
        """For each lookupd its address, whether it is connected, and if not, why."""
        return [link.status() for link in self._links]

    def _detach(self) -> None:
        if self._source is not None:
            self._source.off_change(self._update)
            self._source = None

    def _identify(self, msgid: str) -> Identify:
        origin = self._origin() if callable(self._origin) else self._origin
        return Identify(msgid, self._name, origin, self._version, self._node_id, self._incarnation, self._labels)

    def _update(self) -> None:
        if self._source is None:
            return
        changes = self._journal.update(self._source.announced())
        for link in self._links:
            link.announce(changes)
