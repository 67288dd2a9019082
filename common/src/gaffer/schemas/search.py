"""Schemas of searches and of the changes of what they found, on nodes and lookup servers."""

from typing import Annotated, Literal, NotRequired, TypedDict

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


NodeJobState = Literal["none", "starting", "draining", "ready"]


class FoundNodeJob(TypedDict):
    """A job on a node of the cluster.

    `state` is that of its processes: `starting` or `draining` if none of them is ready, `none` if there are none.
    """

    key: Key
    name: str
    session: str
    state: NodeJobState
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


class ChangedItems(_Found):
    """The event `items`: what changed in the result of a search."""

    changed: Annotated[
        list[FoundJob] | list[FoundProcess] | list[FoundNode] | list[FoundNodeJob],
        Meta(description="Items that are new or changed, and match."),
    ]
    removed: Annotated[list[str], Meta(description="Keys of items that are gone, or changed and do not match.")]
    stale: NotRequired[bool]
    warming: NotRequired[bool]
