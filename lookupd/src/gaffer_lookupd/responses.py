"""The shapes of answers: those of 0.5 and what was added to them."""

from typing import Literal

from msgspec import Struct

from gaffer.schemas.messages import Process
from gaffer_lookupd.records import NodeInfo, Status, Tombstone


class AgedNodeInfo(NodeInfo, frozen=True, kw_only=True):
    """A node, and the milliseconds since it was last heard."""

    age_ms: int


class Source(Struct, frozen=True, kw_only=True):
    """A node that has a job: `pids` are the processes that take work, `processes` all of them."""

    name: str
    pids: list[int]
    node_info: AgedNodeInfo
    status: Status
    age_ms: int
    processes: list[Process]


class ResponseMeta(Struct, frozen=True, kw_only=True):
    """How far an answer is to be trusted.

    stale: most nodes are silent, or lookupd is warming. warming: lookupd started a short time ago, and nodes may not be
    back yet. epoch: new at each start of lookupd. seq: the number of the last change. tombstones: the nodes that went a
    short time ago and had what the answer is about.
    """

    stale: bool
    warming: bool
    epoch: str
    seq: int
    tombstones: list[Tombstone]


class Nodes(ResponseMeta, frozen=True, kw_only=True):
    """`GET /nodes`."""

    nodes: list[AgedNodeInfo]


class JobSources(Struct, frozen=True, kw_only=True):
    """A job and the nodes that have it."""

    name: str
    sources: list[Source]


class Jobs(ResponseMeta, frozen=True, kw_only=True):
    """`GET /jobs` and `GET /findSession`."""

    nb_jobs: int
    jobs: list[JobSources]


class Session(Struct, frozen=True, kw_only=True):
    """A session and the nodes that have each of its jobs."""

    sessionid: str
    jobs: dict[str, list[Source]]


class Sessions(ResponseMeta, frozen=True, kw_only=True):
    """`GET /sessions`."""

    nb_sessions: int
    sessions: list[Session]


class Sources(ResponseMeta, frozen=True, kw_only=True):
    """`GET /findJob`."""

    sources: list[Source]


class NodeTable(NodeInfo, frozen=True, kw_only=True):
    """A node with the processes of each of its jobs."""

    jobs: dict[str, list[Process]]


class Snapshot(ResponseMeta, frozen=True, kw_only=True):
    """All that lookupd knows: the first event of `GET /events`, where changes can't be resumed."""

    event: Literal["snapshot"]
    nodes: list[NodeTable]


class JobQuery(Struct, kw_only=True):
    """Parameters of `GET /findJob`: the name of a job, in any form."""

    name: str


class SessionQuery(Struct, kw_only=True):
    """Parameters of `GET /findSession`: the name of a session."""

    sessionid: str


class Welcome(Struct, kw_only=True):
    """`GET /`."""

    welcome: str
    version: str


class Version(Struct, kw_only=True):
    """`GET /version`."""

    version: str


class Done(Struct, kw_only=True):
    """An order was carried out."""

    ok: bool = True


class Health(Struct, kw_only=True):
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
