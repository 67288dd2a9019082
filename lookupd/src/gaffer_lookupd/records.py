"""What the registry holds of a node."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from msgspec import Struct

from gaffer.schemas.lookup import NodeInfo, Status, Tombstone
from gaffer.schemas.messages import Identify, Process

NodeKey = str | int  # a node's id, or the session of a node without one


class Grave(Struct, frozen=True, gc=False):
    """What is kept with a tombstone: until when, the node's name and jobs, and whether it had proved its id."""

    tombstone: Tombstone
    until: float
    name: str
    jobs: tuple[str, ...]
    proved: bool


class Size(NamedTuple):
    """How many processes and endpoints a table has."""

    processes: int = 0
    endpoints: int = 0

    @classmethod
    def of(cls, processes: Iterable[Process]) -> Self:
        """The size of a table with these processes."""
        endpoints = [len(process.endpoints) for process in processes]
        return cls(len(endpoints), sum(endpoints))

    def plus(self, process: Process) -> "Size":
        """The size with one more process."""
        return Size(self.processes + 1, self.endpoints + len(process.endpoints))

    def minus(self, process: Process | None) -> "Size":
        """The size without that process."""
        return self if process is None else Size(self.processes - 1, self.endpoints - len(process.endpoints))


class CachedJson:
    """Parts of answers about a node as JSON, dropped when what they describe changes; made on demand.

    info: the node. sources: for each job how a source begins. targets: for each job the groups of targets, by the name
    of their endpoint.
    """

    __slots__ = ("info", "sources", "targets")

    def __init__(self) -> None:
        self.info: bytes | None = None
        self.sources: dict[str, bytes] = {}
        self.targets: dict[str, list[tuple[str, bytes]]] = {}

    def drop(self) -> None:
        """The node has changed."""
        self.info = None
        self.sources.clear()
        self.targets.clear()

    def drop_job(self, job_name: str) -> None:
        """A job has changed, and with it the node's seq."""
        self.info = None
        self.sources.pop(job_name, None)
        self.targets.pop(job_name, None)


class Node:
    """An identified node: who it is, its lease, its table of jobs and processes."""

    __slots__ = (
        "conflict",
        "draining",
        "frozen",
        "heard",
        "identity",
        "info",
        "jobs",
        "key",
        "overdue",
        "parts",
        "resync",
        "seq",
        "session",
        "silent_since",
        "size",
        "told_window",
    )

    def __init__(self, key: NodeKey, identity: Identify, session: int, now: float) -> None:
        self.key = key
        self.identity = identity
        self.session: int | None = session
        # When it was last heard, and since when its silence counts: later than that after a pause of lookupd.
        self.heard = now
        self.silent_since = now
        self.overdue = False
        self.draining = False
        self.conflict = False
        self.seq = 0
        self.resync = False
        self.told_window = 0.0  # the reconnect window as the node knows it
        self.jobs: dict[str, dict[int, Process]] = {}
        self.size = Size()
        self.frozen = False
        self.info = self.describe()  # as it was published last
        self.parts = CachedJson()

    @property
    def entries(self) -> int:
        """The size of its table: jobs, processes and endpoints."""
        return len(self.jobs) + sum(self.size)

    def reconnect(self, identity: Identify, session: int, now: float) -> None:
        """The same start of the node has a new connection; its next snapshot is the truth."""
        self.identity = identity
        self.session = session
        self.heard = self.silent_since = now
        self.overdue = False
        self.resync = True

    def freeze(self) -> Mapping[str, Mapping[int, Process]]:
        """The table as it is now, which later changes of the node leave as it is."""
        self.frozen = True
        return self.jobs

    def thaw(self) -> None:
        """Prepare for a change: leave a table that was handed out to its holders and go on with a copy."""
        if self.frozen:
            self.jobs = {name: dict(processes) for name, processes in self.jobs.items()}
            self.frozen = False

    @property
    def proved(self) -> bool:
        """Whether the node showed the secret that its id is made from."""
        return self.identity.proof is not None

    @property
    def connected(self) -> bool:
        return self.session is not None

    @property
    def silent(self) -> bool:
        """Connected, as far as lookupd knows, but an interval was missed."""
        return self.overdue and self.connected

    @property
    def status(self) -> Status:
        if self.overdue or not self.connected:
            return "suspect"
        return "draining" if self.draining else "alive"

    def describe(self) -> NodeInfo:
        """The node as it is now."""
        who = self.identity
        numbered = who.id is not None
        return {
            "name": who.name,
            "origin": who.origin,
            "version": who.version,
            "id": who.id,
            "incarnation": who.incarnation if numbered else None,
            "seq": self.seq if numbered else None,
            "labels": who.labels,
            "status": self.status,
            "draining": self.draining,
            "conflict": self.conflict,
        }

    def live_pids(self, job_name: str) -> list[int]:
        """The processes of the job that take work."""
        if self.draining:
            return []
        return [process.pid for process in self.jobs[job_name].values() if process.state != "draining"]
