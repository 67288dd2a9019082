"""The registry's records of a node."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from msgspec import Struct

from gaffer.schemas.lookup import NodeInfo, Status, Tombstone
from gaffer.schemas.messages import Identify, JobReport, LookupLink, Process

REPORT_ROOM = 200.0  # events that a node can report at once; a second makes room for another one

NodeKey = str | int  # a node's id, or the session of a node without one


class Grave(Struct, frozen=True, gc=False):
    """A tombstone with its expiry, the node's name and jobs, and whether the node had proved its id."""

    tombstone: Tombstone
    until: float
    name: str
    jobs: tuple[str, ...]
    proved: bool


class Size(NamedTuple):
    """The number of processes and endpoints in a table."""

    processes: int = 0
    endpoints: int = 0

    @classmethod
    def of(cls, processes: Iterable[Process]) -> Self:
        """Return the size of a table with these processes."""
        endpoints = [len(process.endpoints) for process in processes]
        return cls(len(endpoints), sum(endpoints))

    def plus(self, process: Process) -> "Size":
        """Return the size with an additional process."""
        return Size(self.processes + 1, self.endpoints + len(process.endpoints))

    def minus(self, process: Process | None) -> "Size":
        """Return the size without that process."""
        return self if process is None else Size(self.processes - 1, self.endpoints - len(process.endpoints))


class CachedJson:
    """A cache of JSON parts of responses about a node, created on demand and dropped on changes.

    info: the node. sources: the start of a source for each job. targets: the groups of targets for each job, with the
    names of their endpoints.
    """

    __slots__ = ("info", "sources", "targets")

    def __init__(self) -> None:
        self.info: bytes | None = None
        self.sources: dict[str, bytes] = {}
        self.targets: dict[str, list[tuple[str, bytes]]] = {}

    def drop(self) -> None:
        """Drop everything, because the node has changed."""
        self.info = None
        self.sources.clear()
        self.targets.clear()

    def drop_job(self, job_name: str) -> None:
        """Drop what depends on a job that has changed, and on the node's seq."""
        self.info = None
        self.sources.pop(job_name, None)
        self.targets.pop(job_name, None)


class Node:
    """An identified node: its identity, its lease, and its table of jobs and processes."""

    __slots__ = (
        "conflict",
        "draining",
        "frozen",
        "heard",
        "identity",
        "info",
        "jobs",
        "key",
        "links",
        "links_time",
        "overdue",
        "parts",
        "report_room",
        "report_time",
        "reported",
        "resync",
        "sent_window",
        "seq",
        "session",
        "silent_since",
        "size",
        "states",
    )

    def __init__(self, key: NodeKey, identity: Identify, session: int, now: float) -> None:
        self.key = key
        self.identity = identity
        self.session: int | None = session
        # The time of its last message, and from when its silence counts, which is later after a pause of lookupd.
        self.heard = now
        self.silent_since = now
        self.overdue = False
        self.draining = False
        self.conflict = False
        self.seq = 0
        self.resync = False
        self.sent_window = 0.0  # the reconnect window last sent to the node
        self.links: list[LookupLink] | None = None  # to its lookupds, as it reported
        self.links_time = now, 0.0  # when it did, and what its own clock said then
        self.reported = 0  # events
        self.report_room = REPORT_ROOM
        self.report_time = now
        self.jobs: dict[str, dict[int, Process]] = {}
        self.states: dict[str, JobReport] = {}  # of its jobs, as far as it reported them
        self.size = Size()
        self.frozen = False
        self.info = self.describe()  # as last published
        self.parts = CachedJson()

    @property
    def entries(self) -> int:
        """The size of its table: jobs, processes and endpoints in total."""
        return len(self.jobs) + sum(self.size)

    def reconnect(self, identity: Identify, session: int, now: float) -> None:
        """Bind the node to a new connection, which must send a snapshot next: until then its table is the old one."""
        if identity.incarnation != self.identity.incarnation:
            self.seq, self.draining, self.reported = 0, False, 0
        self.identity = identity
        self.session = session
        self.heard = self.silent_since = now
        self.overdue = False
        self.resync = True

    def link_ages(self, now: float) -> list[float]:
        """Return how long each of its links has been as it is, in seconds."""
        reported, clock = self.links_time
        return [max(0.0, now - reported + clock - link.since) for link in self.links or ()]

    def admit_reports(self, count: int, now: float) -> int:
        """Return how many of `count` events of the node are recorded, so that one node does not displace the others."""
        self.report_room = min(REPORT_ROOM, self.report_room + now - self.report_time)
        self.report_time = now
        admitted = min(count, int(self.report_room))
        self.report_room -= admitted
        return admitted

    def freeze(self) -> tuple[Mapping[str, Mapping[int, Process]], Mapping[str, JobReport]]:
        """Return the current table and the states of its jobs, which later changes of the node do not modify."""
        self.frozen = True
        return self.jobs, self.states

    def thaw(self) -> None:
        """Prepare for a change: replace a frozen table by a copy."""
        if self.frozen:
            self.jobs = {name: dict(processes) for name, processes in self.jobs.items()}
            self.states = self.states.copy()
            self.frozen = False

    @property
    def proved(self) -> bool:
        """Whether the node presented the secret that its id is derived from."""
        return self.identity.proof is not None

    @property
    def connected(self) -> bool:
        return self.session is not None

    @property
    def silent(self) -> bool:
        """Whether it missed an interval although its connection looks open."""
        return self.overdue and self.connected

    @property
    def status(self) -> Status:
        if self.overdue or not self.connected:
            return "suspect"
        return "draining" if self.draining else "alive"

    def describe(self) -> NodeInfo:
        """Return the current description of the node."""
        identity = self.identity
        numbered = identity.id is not None
        return {
            "name": identity.name,
            "origin": identity.origin,
            "version": identity.version,
            "id": identity.id,
            "incarnation": identity.incarnation if numbered else None,
            "seq": self.seq if numbered else None,
            "labels": identity.labels,
            "status": self.status,
            "draining": self.draining,
            "conflict": self.conflict,
        }

    def live_pids(self, job_name: str) -> list[int]:
        """Return the pids of the job's processes that accept work."""
        if self.draining:
            return []
        return [process.pid for process in self.jobs[job_name].values() if process.state != "draining"]
