"""The answers to queries, as JSON put together from parts that are kept until their node changes.

Only ages change with time, so each part ends where an age has to follow. The shapes are those of `shapes`.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter

import msgspec
from msgspec import structs

from gaffer.names import split_job_name
from gaffer_lookupd.records import Node
from gaffer_lookupd.registry import Registry
from gaffer_lookupd.shapes import NodeTable

_encode = msgspec.json.Encoder().encode


class _Ends(dict[Node, bytes]):
    """What the sources of each node end with at the time `now`: the node, and its age."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self._now = now

    def __missing__(self, node: Node) -> bytes:
        age = _age(node, self._now)
        end = self[node] = b'%b,"age_ms":%b}' % (_node(node, age), age)
        return end


class Queries:
    """Answers about a registry; `now` is the time, as the registry counts it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._trust = b""
        self._trust_seq = -1

    def nodes(self, now: float) -> bytes:
        """All identified nodes: `Nodes`."""
        return self._answer(
            b'"nodes":[%b]' % b",".join([_node(node, _age(node, now)) for node in self._registry.nodes])
        )

    def node(self, node_id: str, now: float) -> bytes | None:
        """The node of that id: `AgedNodeInfo`; None when there is none."""
        node = self._registry.find(node_id)
        return None if node is None else _node(node, _age(node, now))

    def jobs(self, now: float) -> bytes:
        """All jobs with their nodes: `Jobs`."""
        return self._jobs(self._registry.tables.jobs, now)

    def find_session(self, sessionid: str, now: float) -> bytes:
        """The jobs of one session with their nodes: `Jobs`."""
        return self._jobs([name for name in self._registry.tables.jobs if _session(name) == sessionid], now)

    def find_job(self, job_name: str, now: float) -> bytes:
        """The nodes that have the job, by its qualified name: `Sources`."""
        return self._answer(b'"sources":%b' % self._sources(job_name, _Ends(now)))

    def sessions(self, node_name: str | None, now: float) -> bytes:
        """All sessions with their jobs, or those of the nodes of that name: `Sessions`."""
        ends = _Ends(now)
        if node_name is None:
            jobs = {name: self._sources(name, ends) for name in self._registry.tables.jobs}
        else:
            holders: dict[str, list[Node]] = {}
            for node in self._registry.named(node_name):
                for job_name in node.jobs:
                    holders.setdefault(job_name, []).append(node)
            jobs = {name: _list_sources(nodes, name, ends) for name, nodes in holders.items()}
        by_session: dict[str, list[bytes]] = {}
        for job_name, sources in jobs.items():
            by_session.setdefault(_session(job_name), []).append(b"%b:%b" % (_encode(job_name), sources))
        sessions = [
            b'{"sessionid":%b,"jobs":{%b}}' % (_encode(sessionid), b",".join(found))
            for sessionid, found in by_session.items()
        ]
        return self._answer(b'"nb_sessions":%d,"sessions":[%b]' % (len(sessions), b",".join(sessions)))

    def snapshot(self) -> Iterator[bytes]:
        """All there is: `Snapshot`, in parts of which none is large, as of now however late they are asked for."""
        head = b'{"event":"snapshot",%b,"nodes":[' % self._trusted()
        tables = [_table(node) for node in self._registry.nodes]
        return in_parts(chain((head,), _separated(tables), (b"]}",)))

    def _jobs(self, names: Iterable[str], now: float) -> bytes:
        ends = _Ends(now)
        jobs = [b'{"name":%b,"sources":%b}' % (_encode(name), self._sources(name, ends)) for name in names]
        return self._answer(b'"nb_jobs":%d,"jobs":[%b]' % (len(jobs), b",".join(jobs)))

    def _sources(self, job_name: str, ends: _Ends) -> bytes:
        holders = self._registry.tables.jobs.get(job_name, {})
        return _list_sources(holders.values(), job_name, ends)

    def _answer(self, fields: bytes) -> bytes:
        return b"{%b,%b}" % (fields, self._trusted())

    def _trusted(self) -> bytes:
        """The fields of `Trust`, which change with the registry's seq alone."""
        registry = self._registry
        if self._trust_seq != registry.seq:
            self._trust_seq = registry.seq
            fields = {
                "stale": registry.stale,
                "epoch": registry.epoch,
                "seq": registry.seq,
                "tombstones": registry.tombstones,
            }
            self._trust = _encode(fields)[1:-1]
        return self._trust


def _age(node: Node, now: float) -> bytes:
    return b"%d" % max(0, round((now - node.heard) * 1000))


def _list_sources(nodes: Iterable[Node], job_name: str, ends: _Ends) -> bytes:
    return b"[%b]" % b",".join([_source_head(node, job_name) + ends[node] for node in nodes])


def _source_head(node: Node, job_name: str) -> bytes:
    head = node.parts.sources.get(job_name)
    if head is None:
        fields = {
            "name": node.identity.name,
            "pids": node.live_pids(job_name),
            "status": node.info.status,
            "processes": sorted(node.jobs[job_name].values(), key=attrgetter("pid")),
        }
        head = node.parts.sources[job_name] = b'%b,"node_info":' % _encode(fields)[:-1]
    return head


def _node(node: Node, age: bytes) -> bytes:
    parts = node.parts
    if parts.info is None:
        parts.info = _encode(node.info)[:-1]
    return b'%b,"age_ms":%b}' % (parts.info, age)


def _table(node: Node) -> bytes:
    parts = node.parts
    if parts.table is None:
        jobs = {name: list(processes.values()) for name, processes in node.jobs.items()}
        parts.table = _encode(NodeTable(jobs=jobs, **structs.asdict(node.info)))
    return parts.table


def in_parts(items: Iterable[bytes], size: int = 64 * 1024) -> Iterator[bytes]:
    """Join items to parts of about `size` bytes."""
    pending: list[bytes] = []
    length = 0
    for item in items:
        pending.append(item)
        length += len(item)
        if length >= size:
            yield b"".join(pending)
            pending, length = [], 0
    if pending:
        yield b"".join(pending)


def _separated(items: Iterable[bytes]) -> Iterator[bytes]:
    separator = b""
    for item in items:
        yield separator + item
        separator = b","


def _session(job_name: str) -> str:
    return split_job_name(job_name)[0]
