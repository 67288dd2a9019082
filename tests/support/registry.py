"""A registry with a clock that the test turns, spoken to in the terms of the protocol."""

from typing import Any

import msgspec

from gaffer.messages import Identify, Process
from gaffer_lookupd.changes import Change, MemoryChanges
from gaffer_lookupd.lease import Lease
from gaffer_lookupd.queries import Queries
from gaffer_lookupd.registry import Identified, Registry

TTL, INTERVAL = 45.0, 15.0


class Lookup:
    """A registry whose ticks come in time as `now` advances; `closed` are the sessions that it ended."""

    def __init__(self, ttl: float = TTL, interval: float = INTERVAL) -> None:
        self.now = 1000.0
        self.changes = MemoryChanges()
        self.registry = Registry(Lease(ttl, interval), epoch="e", changes=self.changes, now=self.now)
        self.closed: list[int] = []

    @property
    def events(self) -> list[tuple[Any, ...]]:
        """The changes so far: event, node name, and job and pid where they belong to it."""
        return [self._flat(change) for change in self.changes.since(0) or []]

    def _flat(self, change: Change) -> tuple[Any, ...]:
        rest = [change.job_name] if change.job_name else []
        if change.process is not None:
            rest.append(change.process.pid)
        return (change.event, change.node.name, *rest)

    def connect(self) -> int:
        return self.registry.connect(self.now)

    def identify(
        self,
        session: int | None = None,
        *,
        name: str = "n1",
        origin: str | None = None,
        id: str | None = "id1",
        incarnation: int = 1,
    ) -> int:
        """Identify a session, a new one unless it is given; returns the session."""
        session = self.connect() if session is None else session
        identity = Identify("m", name, origin or f"http://{name}:5000", "0.1", id, incarnation)
        outcome: Identified = self.registry.identify(session, identity, self.now)
        self.closed += outcome.close
        return session

    def legacy(self, name: str = "old", **more: Any) -> int:
        """Identify a new session as a peer of 0.5."""
        return self.identify(name=name, id=None, **more)

    def announce(self, session: int, job: str, *pids: int, seq: int = 1, state: str = "ready") -> None:
        """Send a snapshot of one job."""
        node = self.registry.identified(session)
        self.registry.tables.replace(node, seq, {job: [Process(pid, state) for pid in pids]})

    def heard(self, *sessions: int) -> None:
        for session in sessions:
            self.registry.heard(session, self.now)

    def disconnect(self, session: int) -> None:
        self.registry.disconnect(session, self.now)

    def wait(self, seconds: float, *alive: int) -> None:
        """Let time pass with ticks in time; the sessions `alive` are heard at each of them."""
        step = self.registry.lease.tick
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + step, end)
            self.heard(*alive)
            self.tick()

    def pause(self, seconds: float) -> None:
        """Let time pass during which lookupd does not run, and tick once."""
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        self.closed += self.registry.tick(self.now)

    @property
    def queries(self) -> Queries:
        return Queries(self.registry, self.now)

    def ask(self, query: str, *args: str) -> dict[str, Any]:
        """The answer of a query as clients get it."""
        answer: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(getattr(self.queries, query)(*args)))
        return answer

    def status(self, name: str = "n1") -> str | None:
        """The status of the node, None when it is not listed."""
        return next((node.status for node in self.registry.nodes if node.identity.name == name), None)

    def pids(self, job: str) -> dict[str, list[int]]:
        """The pids of the job on each node."""
        return {source["name"]: source["pids"] for source in self.ask("find_job", job)["sources"]}
