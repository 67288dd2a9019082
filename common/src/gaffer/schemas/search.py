"""Schemas of searches and of the changes of what they found, on nodes and lookup servers."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from gaffer.schemas.lookup import AgedNodeInfo, NodeProcess, Status
from gaffer.schemas.views import Instance, JobSummary

Key = Annotated[str, Meta(description="Identifies the item among those of its kind.")]


class _Used(TypedDict):
    cpu: Annotated[float | None, Meta(description="Percent of a processor since the previous measurement.")]
    memory: Annotated[int | None, Meta(description="Resident memory in bytes.")]


class FoundJob(JobSummary, _Used):
    """A job of the node; `cpu` and `memory` are sums over its processes, without their children."""

    key: Key


class FoundProcess(Instance, _Used):
    """A running process of the node; `name` is the qualified name of its job."""

    key: Key
    name: str
    session: str


class FoundNode(AgedNodeInfo):
    """A node of the cluster: the numbers of its jobs, of those without a ready process, and of its processes."""

    key: Key
    jobs: int
    not_ready: int
    processes: int


class FoundNodeJob(TypedDict):
    """A job on a node of the cluster.

    `state` is that of its processes: `starting` or `draining` if none of them is ready, `none` if there are none.
    """

    key: Key
    name: str
    session: str
    state: Literal["none", "starting", "draining", "ready"]
    node: Annotated[str, Meta(description="The name of the node.")]
    node_id: str | None
    origin: str
    status: Status
    processes: list[NodeProcess]


class _Found(TypedDict):
    total: Annotated[int, Meta(description="The items that match.")]
    counts: Annotated[dict[str, int], Meta(description="The items that match all but `state`, by their state.")]


class _Answer(_Found):
    cursor: Annotated[str | None, Meta(description="For the next page; null on the last one.")]
    epoch: Annotated[str, Meta(description="With `seq` the position, `EPOCH:SEQ`, from which to follow changes.")]
    seq: int


class FoundJobs(_Answer):
    """Jobs of a node."""

    items: list[FoundJob]


class FoundProcesses(_Answer):
    """Processes of a node."""

    items: list[FoundProcess]


class _ClusterAnswer(_Answer):
    stale: Annotated[bool, Meta(description="Most nodes are silent, or lookupd is warming.")]
    warming: Annotated[bool, Meta(description="lookupd started recently, and nodes may not have reconnected yet.")]


class FoundNodes(_ClusterAnswer):
    """Nodes of the cluster."""

    items: list[FoundNode]


class FoundNodeJobs(_ClusterAnswer):
    """Jobs of the nodes of the cluster."""

    items: list[FoundNodeJob]
