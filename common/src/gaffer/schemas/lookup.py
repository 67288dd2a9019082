"""Responses and events of lookupd: those of 0.5, and later additions.

Lookups of 0.5 leave out the `Later` fields. What a client composes from events has no `age_ms`.
"""

from typing import Literal, NotRequired, TypedDict

from gaffer.schemas.common import EndpointInfo, Later, ProcessState

Status = Literal["alive", "suspect", "draining"]
Departure = Literal["left", "expired", "replaced", "deleted"]
NodeEvent = Literal["add_node", "identify", "update_node", "remove_node"]
JobEvent = Literal["add_job", "remove_job"]
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
    """A node as answers and events show it.

    `incarnation` and `seq` order what is known of one `id`: `seq` numbers the changes within an incarnation; all three
    are null for nodes of 0.5. `status` shows silence before draining; `draining` tells of that alone. `conflict` means
    that another connected node has the same name.
    """

    name: str
    origin: str
    version: str


class AgedNodeInfo(NodeInfo):
    """A node, and the milliseconds since it was last heard."""

    age_ms: Later[int]


class NodeProcess(TypedDict):
    """A process of a job as a node announced it; `pid` is the node's number for it, not the system's."""

    pid: int
    state: ProcessState
    endpoints: list[EndpointInfo]


class NodeTable(NodeInfo):
    """A node with the processes of each of its jobs."""

    jobs: dict[str, list[NodeProcess]]


class JobSource(TypedDict):
    """A node that has a job: `pids` are the processes that take work, `processes` all of them."""

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
    """A node that is gone, kept for a while so that answers of several lookupds can be merged."""

    id: str
    incarnation: int
    seq: Later[int]
    reason: Later[Departure]


# Answers


class ResponseMeta(TypedDict):
    """How far an answer is to be trusted.

    stale: most nodes are silent, or lookupd is warming. warming: lookupd started a short time ago, and nodes may not be
    back yet. epoch: new at each start of lookupd. seq: the number of the last change. tombstones: the nodes that went a
    short time ago and had what the answer is about.
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
    """Health of lookupd: its websockets of nodes, what it knows, and `lost`, the changes that slow followers missed.

    `followers` are the readers whose answers take long, `displaced` those that were closed in favour of newer ones.
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
    """Targets of one endpoint of a job on a node: `__meta_gaffer_session`, `_job`, `_node`, `_zone`, `_endpoint`."""

    targets: list[str]
    labels: dict[str, str]


# Events


class SnapshotMessage(ResponseMeta):
    """All that lookupd knows: the first event of `GET /events`, where changes can't be resumed."""

    event: Later[Literal["snapshot"]]
    nodes: list[NodeTable]


class NodeMessage(_NodeState):
    """A node came, changed or went (LP-41); `reason` says why it went.

    The `add_node` of a connection comes just before its `identify`, without a name.
    """

    event: Later[NodeEvent]
    name: str | None
    origin: str | None
    version: str | None
    reason: NotRequired[Departure]


class JobMessage(TypedDict):
    """A node has a new job, or has it no more (LP-42)."""

    event: Later[JobEvent]
    node: NodeInfo
    job_name: str


class ProcessMessage(TypedDict):
    """A process of a job started, changed or went (LP-43)."""

    event: Later[ProcessEvent]
    node: NodeInfo
    job_name: str
    pid: int
    state: ProcessState
    endpoints: list[EndpointInfo]


class ForgetMessage(Tombstone):
    """The tombstone of a node that went is gone too."""

    event: Later[Literal["forget_node"]]


class StaleMessage(TypedDict):
    """Answers became stale or are no longer, or lookupd is no longer warming."""

    event: Later[Literal["stale"]]
    stale: bool
    warming: Later[bool]


Message = NodeMessage | JobMessage | ProcessMessage | ForgetMessage | StaleMessage
