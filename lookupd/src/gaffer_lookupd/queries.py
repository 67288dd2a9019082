"""The answers to queries, made from the registry: the shapes of 0.5 and what was added to them.

Each answer also says how far to trust it: `stale` (most nodes are silent), `epoch` (new at each start of lookupd),
`seq` (the number of the last change), and `tombstones`, the nodes that went a short time ago.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from msgspec import Struct, structs

from gaffer.messages import Process
from gaffer.names import split_job_name
from gaffer_lookupd.records import Node, NodeInfo, Status, Tombstone
from gaffer_lookupd.registry import Registry


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


class Trust(Struct, kw_only=True):
    """How far an answer is to be trusted."""

    stale: bool
    epoch: str
    seq: int
    tombstones: list[Tombstone]


class Nodes(Trust, kw_only=True):
    """`GET /nodes`."""

    nodes: list[AgedNodeInfo]


class JobSources(Struct, frozen=True):
    """A job and the nodes that have it."""

    name: str
    sources: list[Source]


class Jobs(Trust, kw_only=True):
    """`GET /jobs` and `GET /findSession`."""

    nb_jobs: int
    jobs: list[JobSources]


class Session(Struct, frozen=True):
    """A session and the nodes that have each of its jobs."""

    sessionid: str
    jobs: dict[str, list[Source]]


class Sessions(Trust, kw_only=True):
    """`GET /sessions`."""

    nb_sessions: int
    sessions: list[Session]


class Sources(Trust, kw_only=True):
    """`GET /findJob`."""

    sources: list[Source]


class Queries:
    """Answers about the registry at one moment."""

    def __init__(self, registry: Registry, now: float) -> None:
        self._registry = registry
        self._now = now

    def nodes(self) -> Nodes:
        """All identified nodes."""
        return Nodes(nodes=[self._info(node) for node in self._registry.nodes], **self._trust())

    def jobs(self) -> Jobs:
        """All jobs with their nodes."""
        return self._jobs(self._registry.tables.jobs)

    def find_session(self, sessionid: str) -> Jobs:
        """The jobs of one session with their nodes."""
        return self._jobs(name for name in self._registry.tables.jobs if _session(name) == sessionid)

    def find_job(self, job_name: str) -> Sources:
        """The nodes that have the job, by its qualified name."""
        return Sources(sources=self._sources(job_name), **self._trust())

    def sessions(self, node_name: str | None = None) -> Sessions:
        """All sessions with their jobs, or those of the nodes of that name."""
        if node_name is None:
            sources = {name: self._sources(name) for name in self._registry.tables.jobs}
        else:
            sources = {}
            for node in self._registry.named(node_name):
                for job_name in node.jobs:
                    sources.setdefault(job_name, []).append(self._source(node, job_name))
        by_session: dict[str, dict[str, list[Source]]] = {}
        for job_name, found in sources.items():
            by_session.setdefault(_session(job_name), {})[job_name] = found
        sessions = [Session(sessionid, jobs) for sessionid, jobs in by_session.items()]
        return Sessions(nb_sessions=len(sessions), sessions=sessions, **self._trust())

    def _jobs(self, names: Iterable[str]) -> Jobs:
        jobs = [JobSources(name, self._sources(name)) for name in names]
        return Jobs(nb_jobs=len(jobs), jobs=jobs, **self._trust())

    def _sources(self, job_name: str) -> list[Source]:
        holders = self._registry.tables.jobs.get(job_name, {})
        return [self._source(node, job_name) for node in holders.values()]

    def _source(self, node: Node, job_name: str) -> Source:
        info = self._info(node)
        return Source(
            name=node.identity.name,
            pids=node.live_pids(job_name),
            node_info=info,
            status=info.status,
            age_ms=info.age_ms,
            processes=sorted(node.jobs[job_name].values(), key=attrgetter("pid")),
        )

    def _info(self, node: Node) -> AgedNodeInfo:
        age = max(0, round((self._now - node.heard) * 1000))
        return AgedNodeInfo(age_ms=age, **structs.asdict(node.info))

    def _trust(self) -> dict[str, Any]:
        registry = self._registry
        return {
            "stale": registry.stale,
            "epoch": registry.epoch,
            "seq": registry.seq,
            "tombstones": registry.tombstones,
        }


def _session(job_name: str) -> str:
    return split_job_name(job_name)[0]
