"""The JSON documents that nodes and lookups answer with: the shapes that clients check them against.

A document may hold more than its shape names, and keeps it.
"""

from typing import Any, NotRequired, TypedDict


class Endpoint(TypedDict):
    """Where an instance listens."""

    name: str
    address: str
    port: int


# Answers of a node


class Instance(TypedDict):
    """One instance of a job; `uptime` is in seconds."""

    pid: int | None
    os_pid: int | None
    state: str
    slot: NotRequired[int]
    port: NotRequired[int | None]
    uptime: NotRequired[float | None]


class LastExit(TypedDict):
    """How a process ended; `uptime` is in seconds, `output` the end of what it wrote."""

    exit_code: int | None
    term_signal: int | None
    reason: str
    uptime: float
    output: str | None


class JobInfo(TypedDict):
    """A job (R-45); `processes` are the internal pids of its instances."""

    name: str
    active: bool
    running: int
    running_out: int
    max_processes: int
    processes: list[int]
    config: dict[str, Any]
    state: str
    reason: str | None
    restarts: NotRequired[int]
    instances: list[Instance]
    last_exit: NotRequired[LastExit | None]


class JobStats(TypedDict):
    """CPU and memory of a job, in per cent, or `"N/A"` when nothing runs (R-48)."""

    cpu: float | str
    mem: float | str
    stats: list[dict[str, Any]]


class JobStatus(TypedDict):
    """The short answer about a job (R-28)."""

    active: bool
    running: int
    numprocesses: int
    max_processes: int


class Drain(TypedDict):
    """Whether a node is out of service, whether nothing runs there any more, and how many processes have not ended."""

    draining: bool
    drained: bool
    processes: int


class LookupLink(TypedDict):
    """How a node fares with one lookup; `error` is why it is not connected."""

    address: str
    connected: bool
    error: str | None


class Health(TypedDict):
    """How a node is: `ok`, `draining` or `stopping`; what it has, and whether it reaches its lookups."""

    status: str
    version: str
    uptime: float
    jobs: int
    processes: int
    lookupds: list[LookupLink]


class Sessions(TypedDict):
    """The names of sessions."""

    sessions: list[str]


class Jobs(TypedDict):
    """The qualified names of jobs."""

    jobs: list[str]


class Pids(TypedDict):
    """Internal pids."""

    pids: list[int]


class Pid(TypedDict):
    """The internal pid of a new process."""

    pid: int


class NumProcesses(TypedDict):
    """How many processes a job is to have."""

    numprocesses: int


class Done(TypedDict):
    """An order was taken."""

    ok: bool


class Version(TypedDict):
    """The version of who answers."""

    version: str


class ProcessStats(TypedDict):
    """What a process uses."""

    stats: dict[str, Any]


# Answers of a lookup


class NodeInfo(TypedDict):
    """A node; `age_ms` is how long ago it was last heard. Nodes of gaffer 0.5 have no more than the first three."""

    name: str
    origin: str
    version: str
    id: NotRequired[str | None]
    incarnation: NotRequired[int | None]
    seq: NotRequired[int | None]
    labels: NotRequired[dict[str, str]]
    status: NotRequired[str]
    draining: NotRequired[bool]
    age_ms: NotRequired[float | None]
    conflict: NotRequired[bool]


class ProcessEntry(TypedDict):
    """A process of a node, by its internal pid, and where it listens."""

    pid: int
    state: str
    endpoints: list[Endpoint]


class Source(TypedDict):
    """What one node runs of a job; `pids` are its live processes that are not on their way out."""

    name: str
    pids: list[int]
    node_info: NodeInfo
    status: NotRequired[str]
    age_ms: NotRequired[float | None]
    processes: NotRequired[list[ProcessEntry]]


class Tombstone(TypedDict):
    """A node that is gone; `reason` is `left` when it said so."""

    id: str
    incarnation: int
    seq: NotRequired[int]
    reason: NotRequired[str]


class Agreement(TypedDict):
    """Addresses of lookups: those whose own answer is the merged one, and those that gave none."""

    agree: list[str]
    unreachable: list[str]


class KeyInfo(TypedDict):
    """An API key of a node; `sessions` is None for all, `created` in seconds since the epoch or None."""

    id: str
    scopes: list[str]
    sessions: list[str] | None
    created: int | None


class KeyList(TypedDict):
    """The API keys of a node."""

    keys: list[KeyInfo]


class NewKey(TypedDict):
    """An API key just made; the key itself is told only once."""

    id: str
    key: str


class _LookupAnswer(TypedDict):
    stale: NotRequired[bool]
    warming: NotRequired[bool]
    epoch: NotRequired[str | None]
    seq: NotRequired[int | None]
    tombstones: NotRequired[list[Tombstone]]
    lookups: NotRequired[Agreement]


class NodesAnswer(_LookupAnswer):
    """The nodes that a lookup knows."""

    nodes: list[NodeInfo]


class JobSources(TypedDict):
    """A job and the nodes that have it."""

    name: str
    sources: list[Source]


class JobsAnswer(_LookupAnswer):
    """Jobs and the nodes that have them."""

    nb_jobs: int
    jobs: list[JobSources]


class SessionJobs(TypedDict):
    """A session and the nodes that have each of its jobs."""

    sessionid: str
    jobs: dict[str, list[Source]]


class SessionsAnswer(_LookupAnswer):
    """Sessions with their jobs."""

    nb_sessions: int
    sessions: list[SessionJobs]


class JobAnswer(_LookupAnswer):
    """The nodes that have a job."""

    sources: list[Source]


# Events of a lookup


class NodeTable(NodeInfo):
    """A node with the processes of each of its jobs."""

    jobs: dict[str, list[ProcessEntry]]


class SnapshotEvent(TypedDict):
    """All that a lookup knows."""

    stale: bool
    warming: NotRequired[bool]
    tombstones: list[Tombstone]
    nodes: list[NodeTable]


class NodeEvent(TypedDict):
    """A node came, changed or went (LP-41); a connection that has not identified itself has no name."""

    name: str | None
    origin: str | None
    version: str | None
    id: NotRequired[str | None]
    incarnation: NotRequired[int | None]
    reason: NotRequired[str]


class JobEvent(TypedDict):
    """A node has a new job, or has it no more (LP-42)."""

    node: NodeInfo
    job_name: str


class ProcessEvent(JobEvent):
    """A process of a job started, changed or went (LP-43)."""

    pid: int
    state: str
    endpoints: list[Endpoint]


class StaleEvent(TypedDict):
    """The answers of a lookup became stale, or are no longer."""

    stale: bool
    warming: NotRequired[bool]
