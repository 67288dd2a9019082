"""Responses and events of lookupd: those of 0.5, and later additions.

Lookup servers of 0.5 omit the `Later` fields. Responses that a client assembles from events have no `age_ms`.
"""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

from gaffer.schemas.common import EndpointInfo, Later, ProcessState
from gaffer.schemas.history import Kind, Outcome
from gaffer.schemas.paging import Found, FoundPage, Key, Removed

Status = Literal["alive", "suspect", "draining"]
Departure = Literal["left", "expired", "replaced", "deleted"]
NodeEvent = Literal["add_node", "identify", "update_node", "remove_node"]
JobEvent = Literal["add_job", "remove_job"]
JobStateEvent = Literal["update_job"]
ProcessEvent = Literal["add_process", "update_process", "remove_process"]


class _NodeState(TypedDict):
    id: Later[str | None]
    incarnation: Later[int | None]
    seq: Later[int | None]
    labels: Later[dict[str, str]]
    status: Later[Status]
    draining: Later[bool]
    conflict: Later[bool]


class NodeInfo(_NodeState):
    """A node in responses and events.

    `incarnation` and `seq` order the information about one `id`: `seq` numbers the changes within an incarnation; all
    three are null for nodes of 0.5. In `status`, `suspect` takes precedence over `draining`; the field `draining` is
    independent of it. `conflict` means that another connected node has the same name.
    """

    name: str
    origin: str
    version: str


class AgedNodeInfo(NodeInfo):
    """A node, and the milliseconds since its last message."""

    age_ms: Later[int]


class NodeProcess(TypedDict):
    """A process of a job as announced by a node; `pid` is Gaffer's, not the system's."""

    pid: int
    state: ProcessState
    endpoints: list[EndpointInfo]


class JobState(TypedDict):
    """The state of a job on a node, as the node derives it, and why; `expected` processes should run now.

    All are null if the node does not report them.
    """

    state: Later[str | None]
    reason: Later[str | None]
    expected: Later[int | None]


class NodeTable(NodeInfo):
    """A node with the processes of each of its jobs, and their states as far as it reports them."""

    jobs: dict[str, list[NodeProcess]]
    states: Later[dict[str, JobState]]


class JobSource(JobState):
    """A node that has a job: `pids` are the processes that accept work, `processes` all processes."""

    name: str
    pids: list[int]
    node_info: AgedNodeInfo
    status: Later[Status]
    age_ms: Later[int]
    processes: Later[list[NodeProcess]]


class JobSources(TypedDict):
    """A job and the nodes that have it."""

    name: str
    sources: list[JobSource]


class SessionJobs(TypedDict):
    """A session and the nodes that have each of its jobs."""

    sessionid: str
    jobs: dict[str, list[JobSource]]


class Tombstone(TypedDict):
    """A record of a removed node, kept for a while so that responses of several lookupds can be merged."""

    id: str
    incarnation: int
    seq: Later[int]
    reason: Later[Departure]


# Responses


class ResponseMeta(TypedDict):
    """The reliability of a response.

    stale: most nodes are silent, or lookupd is warming. warming: lookupd started recently, and nodes may not have
    reconnected yet. epoch: changes with each start of lookupd. seq: the number of the last change. tombstones: the
    recently removed nodes that the response would have included.
    """

    stale: Later[bool]
    warming: Later[bool]
    epoch: Later[str]
    seq: Later[int]
    tombstones: Later[list[Tombstone]]


class NodesResponse(ResponseMeta):
    """`GET /nodes`."""

    nodes: list[AgedNodeInfo]


class JobsResponse(ResponseMeta):
    """`GET /jobs` and `GET /findSession`."""

    nb_jobs: int
    jobs: list[JobSources]


class SessionsResponse(ResponseMeta):
    """`GET /sessions`."""

    nb_sessions: int
    sessions: list[SessionJobs]


class SourcesResponse(ResponseMeta):
    """`GET /findJob`."""

    sources: list[JobSource]


class LookupWelcome(TypedDict):
    """`GET /`."""

    welcome: str
    version: str


class LookupVersion(TypedDict):
    """`GET /version`."""

    version: str


class LookupHealth(TypedDict):
    """Health of lookupd: the sizes of its tables, and the load on it.

    `connections` are websockets of nodes, `lost` changes that slow followers missed, `followers` readers of
    long-running responses, `displaced` readers that were disconnected to make room for newer ones.
    """

    status: Literal["ok", "warming", "stale"]
    warming: bool
    version: str
    uptime: float
    connections: int
    nodes: int
    suspect: int
    jobs: int
    tombstones: int
    lost: int
    followers: int
    displaced: int


class TargetGroup(TypedDict):
    """Targets of one endpoint of a job on a node.

    The labels are `__meta_gaffer_session`, `_job`, `_node`, `_zone` and `_endpoint`.
    """

    targets: list[str]
    labels: dict[str, str]


# Searches


class NodeLink(TypedDict):
    """The connection of a node to one of its lookupds, as the node reports it; it is so `since`, in seconds since 1970.

    `epoch` is that of the lookupd when it last answered the node.
    """

    address: str
    connected: bool
    since: float
    epoch: str | None
    error: str | None


class FoundNode(AgedNodeInfo):
    """A node of the cluster: the numbers of its jobs, of those that are not ready, and of its processes.

    A job is not ready if fewer of its processes are than should run now: none of a job that is stopped, scaled to 0 or
    between its runs. One process should run if the node does not report the states of its jobs.

    `lookupds` are those it announces to, null if it does not report them.
    """

    key: Key
    lookupds: list[NodeLink] | None
    jobs: int
    not_ready: int
    processes: int


NodeJobState = Literal[
    "failed", "backoff", "none", "stopping", "starting", "waiting", "stopped", "completed", "running"
]


class FoundNodeJob(TypedDict):
    """A job on the node named `node`.

    `state` and `reason` are what the node reports, `ready` the number of its processes that are ready, and `expected`
    of those that should run now. If the node reports no states, `reason` and `expected` are null, and `state` is that
    of its processes: `starting` or `stopping` if none of them is ready, `none` if there are none.
    """

    key: Key
    name: str
    session: str
    state: NodeJobState
    reason: str | None
    ready: int
    expected: int | None
    node: str
    node_id: str | None
    origin: str
    status: Status
    processes: list[NodeProcess]


class MissingNode(TypedDict):
    """A node that is not connected to a lookupd."""

    name: str
    id: str | None
    since: float
    error: str | None
    age_ms: int


class LookupPeer(TypedDict):
    """A lookupd that nodes announce to, by its address in their configuration.

    own: it is the one that responds. epoch: its epoch, as most nodes know it. nodes: the nodes that announce to it.
    missing: up to 20 of those that are not `connected` to it, the latest first.
    """

    address: str
    own: bool
    epoch: str | None
    nodes: int
    connected: int
    missing: list[MissingNode]


class LookupPeers(TypedDict):
    """`GET /lookupds`; `silent` is the number of nodes that report none, `left_off` that of further addresses."""

    lookupds: list[LookupPeer]
    silent: int
    left_off: int
    epoch: str
    seq: int


class ClusterEntry(TypedDict):
    """An entry of the history of the cluster, as in the history of a node. Values that do not apply are null.

    `what` is what happened, in the words of the command line.
    """

    id: int
    at: float
    kind: Kind
    action: str
    what: str
    route: str | None
    outcome: Outcome
    caller: str | None
    node: str | None
    node_id: str | None
    job: str | None
    pid: int | None
    error: str | None
    count: int
    details: Mapping[str, Any]


class ClusterEntries(TypedDict):
    """The event `entries` of the history: oldest first."""

    entries: list[ClusterEntry]


class ClusterHistoryPage(ClusterEntries):
    """`GET /history` of lookupd: newest first.

    `next` is the `before` that continues the list, null at its end. `begun` is the start of lookupd, in seconds since
    1970; `dropped` is the number of older entries that are not kept.
    """

    next: int | None
    begun: float
    dropped: int
    epoch: str
    seq: int


class _Reliable(TypedDict):
    stale: bool
    warming: bool


class FoundNodes(FoundPage, _Reliable):
    """Nodes of the cluster; `stale` and `warming` as in other responses."""

    items: list[FoundNode]


class FoundNodeJobs(FoundPage, _Reliable):
    """Jobs of the nodes of the cluster; `stale` and `warming` as in other responses."""

    items: list[FoundNodeJob]


class ChangedNodes(Found, _Reliable):
    """The event `items`: the nodes that changed and match."""

    changed: list[FoundNode]
    removed: Removed


class ChangedNodeJobs(Found, _Reliable):
    """The event `items`: the jobs of nodes that changed and match."""

    changed: list[FoundNodeJob]
    removed: Removed


# Events


class SnapshotMessage(ResponseMeta):
    """The complete registry: the first event of `GET /events` unless a client resumes."""

    event: Later[Literal["snapshot"]]
    nodes: list[NodeTable]


class NodeMessage(_NodeState):
    """A node was added, changed or removed; `reason` is the reason for its removal.

    `add_node` precedes the `identify` of each connection, and has no name.
    """

    event: Later[NodeEvent]
    name: str | None
    origin: str | None
    version: str | None
    reason: NotRequired[Departure]


class JobMessage(TypedDict):
    """A job was added to a node or removed from it."""

    event: Later[JobEvent]
    node: NodeInfo
    job_name: str


class JobStateMessage(JobState):
    """The state of a job of a node has changed, or its reason."""

    event: Later[JobStateEvent]
    node: NodeInfo
    job_name: str


class ProcessMessage(TypedDict):
    """A process of a job was added, changed or removed."""

    event: Later[ProcessEvent]
    node: NodeInfo
    job_name: str
    pid: int
    state: ProcessState
    endpoints: list[EndpointInfo]


class ForgetMessage(Tombstone):
    """The tombstone of a removed node was discarded."""

    event: Later[Literal["forget_node"]]


class StaleMessage(TypedDict):
    """Responses became stale or are no longer stale, or lookupd has warmed up."""

    event: Later[Literal["stale"]]
    stale: bool
    warming: Later[bool]


Message = NodeMessage | JobMessage | JobStateMessage | ProcessMessage | ForgetMessage | StaleMessage
