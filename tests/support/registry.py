"""A registry with a clock that the test turns, spoken to in the terms of the protocol."""

from collections.abc import Iterable
from typing import Any

import msgspec

from gaffer.schemas.common import ProcessState
from gaffer.schemas.messages import Identify, Process
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.lease import Lease
from gaffer_lookupd.queries import Queries
from gaffer_lookupd.registry import Identified, Registry

TTL, INTERVAL = 45.0, 15.0


def json(text: bytes | Iterable[bytes]) -> dict[str, Any]:
    """A JSON object, whole or in parts, decoded."""
    decoded: dict[str, Any] = msgspec.json.decode(text if isinstance(text, bytes) else b"".join(text))
    return decoded


def _flat(message: dict[str, Any]) -> tuple[Any, ...]:
    node = message.get("node", message)
    return (message["event"], node.get("name"), *(message[key] for key in ("job_name", "pid") if key in message))


class Lookup:
    """A registry whose ticks come in time as `now` advances; `closed` are the sessions that it ended."""

    def __init__(
        self, ttl: float = TTL, interval: float = INTERVAL, warmup: float = 0.0, settles: bool = False
    ) -> None:
        self.now = 1000.0
        self.changes = ChangeLog(warming=warmup > 0)
        self.registry = Registry(Lease(ttl, interval, warmup, settles), epoch="e", changes=self.changes, now=self.now)
        self.queries = Queries(self.registry)
        self.closed: list[int] = []

    @property
    def events(self) -> list[tuple[Any, ...]]:
        """The changes so far: event, node name, and job and pid where they belong to it."""
        return [_flat(message) for message in self.messages]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The changes so far as followers get them."""
        return [json(change.to_json()) for change in self.changes.read(0, self.changes.end).items]

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
        labels: dict[str, str] | None = None,
        proof: str | None = None,
        reconnect_window: float | None = None,
    ) -> int:
        """Identify a session, a new one unless it is given; returns the session."""
        session = self.connect() if session is None else session
        identity = Identify("m", name, origin or f"http://{name}:5000", "0.1", id, incarnation, labels or {}, proof)
        identity = msgspec.structs.replace(identity, reconnect_window=reconnect_window)
        outcome: Identified = self.registry.identify(session, identity, self.now)
        self.closed += outcome.close
        return session

    def legacy(self, name: str = "old", **more: Any) -> int:
        """Identify a new session as a peer of 0.5."""
        return self.identify(name=name, id=None, **more)

    def announce(self, session: int, job: str, *pids: int, seq: int = 1, state: ProcessState = "ready") -> None:
        """Send a snapshot of one job."""
        self.announce_table(session, {job: [Process(pid, state) for pid in pids]}, seq=seq)

    def announce_table(self, session: int, jobs: dict[str, list[Process]], *, seq: int = 1) -> None:
        """Send a snapshot."""
        self.registry.tables.replace(self.registry.identified(session), seq, jobs)

    def heard(self, *sessions: int) -> None:
        for session in sessions:
            self.registry.renew_lease(session, self.now)

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

    def ask(self, query: str, *args: str | None) -> dict[str, Any]:
        """The answer of a query as clients get it."""
        return json(getattr(self.queries, query)(*args, self.now))

    def snapshot(self) -> dict[str, Any]:
        """The whole map as followers get it first."""
        return json(self.queries.snapshot())

    def status(self, name: str = "n1") -> str | None:
        """The status of the node, None when it is not listed."""
        return next((node.status for node in self.registry.nodes if node.identity.name == name), None)

    def pids(self, job: str) -> dict[str, list[int]]:
        """The pids of the job on each node."""
        return {source["name"]: source["pids"] for source in self.ask("find_job", job)["sources"]}
