"""The application that announces the jobs and processes of this node to lookupds."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from ssl import SSLContext
from typing import Protocol
from urllib.parse import quote

from gaffer.jobs.names import JobName
from gaffer.runtime.version import __version__
from gaffer.schemas.bodies import LookupdState
from gaffer.schemas.history import AuditEntry
from gaffer.schemas.messages import (
    MAX_LINKS,
    PROTOCOL_VERSION,
    Identify,
    RegisterJob,
    UnregisterJob,
    check_labels,
    check_node_name,
    check_origin,
)
from gafferd.announce.job_states import AnnouncedJob, JobStates
from gafferd.announce.journal import Journal, Table
from gafferd.announce.link import Link, websocket_url
from gafferd.announce.reports import Reports
from gafferd.state.identity import Identity

DRAIN_TIMEOUT = 1.0  # seconds
LEAVE_TIMEOUT = 1.0
STATES_INTERVAL = 1.0  # seconds between reports of the states of jobs
STATES_DELAY = 0.1  # seconds from a change to its report: starting a job changes its state several times
STATES_REVIEW = 5.0  # seconds until jobs are looked at whose reason can end without an event


class AnnouncedManager(Protocol):
    """Interface of the manager for the announcer."""

    def announced(self, among: Collection[JobName] | None = None) -> Table: ...

    def announced_states(self, among: Collection[JobName] | None = None) -> Mapping[JobName, AnnouncedJob]: ...

    def on_change(self, callback: Callable[[], None]) -> None: ...

    def off_change(self, callback: Callable[[], None]) -> None: ...

    def on_job_change(self, callback: Callable[[JobName], None]) -> None: ...

    def off_job_change(self, callback: Callable[[JobName], None]) -> None: ...

    @property
    def handing_over(self) -> bool: ...


class Announcer:
    """Announces to the lookupds at `addresses` (http(s) URLs), over one connection each.

    `origin` is the public URL of the node, or a function that returns it once the node listens. `identity` comes from
    the state directory. `ssl` is used for https addresses. With `held` it connects only once `open` is called. Without
    addresses, it does nothing. Raises BadRequest for an invalid address, name, origin or set of labels.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        *,
        name: str,
        origin: str | Callable[[], str],
        identity: Identity,
        labels: Mapping[str, str] | None = None,
        version: str = PROTOCOL_VERSION,
        cluster_key: str | None = None,
        ssl: SSLContext | None = None,
        held: bool = False,
    ) -> None:
        self._held = held
        self._name = check_node_name(name)
        self._origin = origin if callable(origin) else check_origin(origin)
        self._identity = identity
        self._labels = check_labels(labels or {})
        self._version = version
        self._journal = Journal()
        self._changed: set[JobName] = set()
        self._states = JobStates()
        self._restated: set[JobName] = set()  # whose states are to be reported
        self._states_reported = 0.0  # loop time
        self._states_due: asyncio.TimerHandle | None = None
        self._source: AnnouncedManager | None = None
        headers = {"User-Agent": f"gafferd/{__version__} ({quote(name)})"}
        if cluster_key is not None:
            headers["Authorization"] = f"Bearer {cluster_key}"
        unique: dict[str, str] = {}
        for address in addresses:
            unique.setdefault(websocket_url(address), address)
        self._reports = Reports()
        self._links = [
            Link(
                address,
                self._journal,
                self._reports,
                self._states,
                self._identify,
                self._outgrow,
                self._report_links,
                headers,
                ssl,
            )
            for address in unique.values()
        ]

    def start(self, loop: asyncio.AbstractEventLoop, manager: AnnouncedManager) -> None:
        """Start announcing the jobs of `manager`, with `held` once `open` is called."""
        if not self._links:
            return
        self._source = manager
        self._journal.draining = False
        manager.on_job_change(self._changed.add)
        self._journal.update(manager.announced())
        self._states.update(manager.announced_states())
        manager.on_change(self._update)
        if not self._held:
            self.open()

    def open(self) -> None:
        """Connect to the lookupds, on the loop, unless it was stopped."""
        if self._source is not None:
            for link in self._links:
                link.start()

    def report(self, entry: AuditEntry) -> None:
        """Report an entry of the history to the lookupds, which list them for the whole cluster."""
        if self._reports.add(entry):
            for link in self._links:
                link.report()

    async def drain(self) -> None:
        """Take the node out of service; return once all lookupds have acknowledged it, or after DRAIN_TIMEOUT."""
        self._journal.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await asyncio.gather(*(link.drain() for link in self._links))

    async def quiesce(self) -> None:
        """Take the node out of service for good, unless another gafferd continues with its processes."""
        if not self._handing_over:
            await self.drain()

    def resume(self) -> None:
        """Undo `drain`."""
        self._journal.resume()
        for link in self._links:
            link.resume()

    async def leave(self) -> None:
        """Leave the cluster once all processes are gone; wait up to LEAVE_TIMEOUT for acknowledgements.

        At a handover, do nothing: the lookupds suspect the node for a moment, and then see its next incarnation.
        """
        if self._handing_over:
            return
        self._detach()
        self._journal.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await asyncio.gather(*(link.leave() for link in self._links))
        await self.stop()

    async def stop(self) -> None:
        """Close the connections."""
        self._detach()
        await asyncio.gather(*(link.close() for link in self._links))

    def status(self) -> list[LookupdState]:
        """Return the address, connection state and error of each lookupd."""
        return [link.status() for link in self._links]

    @property
    def _handing_over(self) -> bool:
        return self._source is not None and self._source.handing_over

    def _detach(self) -> None:
        if self._source is not None:
            self._source.off_change(self._update)
            self._source.off_job_change(self._changed.add)
            self._source = None
        if self._states_due is not None:
            self._states_due.cancel()
            self._states_due = None

    def _identify(self, msgid: str) -> Identify:
        origin = check_origin(self._origin()) if callable(self._origin) else self._origin
        own = self._identity
        return Identify(msgid, self._name, origin, self._version, own.id, own.incarnation, self._labels, own.secret)

    def _report_links(self) -> None:
        described = [each for link in self._links if (each := link.describe()) is not None]
        for link in self._links:
            link.report(described[:MAX_LINKS])

    def _outgrow(self, incarnation: int) -> bool:
        """Exceed a later incarnation of this node that a lookupd has seen, on all connections."""
        before = self._identity.incarnation
        if not self._identity.outgrow(incarnation):
            return False
        if self._identity.incarnation != before:
            for link in self._links:
                link.renew()
        return True

    def _update(self) -> None:
        if self._source is None:
            return
        among = set()
        while self._changed:  # other threads may add to it concurrently
            among.add(self._changed.pop())
        changes = self._journal.update(self._source.announced(among), {str(name) for name in among})
        for change in changes:
            if isinstance(change, RegisterJob | UnregisterJob):
                self._states.forget(change.job_name)  # as lookupds do
        for link in self._links:
            link.announce(changes)
        if among:
            self._restated |= among
            now = asyncio.get_running_loop().time()
            self._plan_states(max(now + STATES_DELAY, self._states_reported + STATES_INTERVAL))

    def _plan_states(self, at: float) -> None:
        """Report states at this loop time, if not earlier."""
        if self._states_due is not None:
            if self._states_due.when() <= at:
                return
            self._states_due.cancel()
        self._states_due = asyncio.get_running_loop().call_at(at, self._report_states)

    def _report_states(self) -> None:
        self._states_due = None
        if self._source is None:
            return
        among, self._restated = self._restated, set()
        self._states.update(self._source.announced_states(among), among)
        for link in self._links:
            link.report_jobs()
        self._states_reported = asyncio.get_running_loop().time()
        self._restated = self._states.unsettled
        if self._restated:
            self._plan_states(self._states_reported + STATES_REVIEW)
