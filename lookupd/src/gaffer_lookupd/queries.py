"""Responses to queries, as JSON assembled from parts that are cached until their node changes.

Only ages change with time, so each cached part ends where an age follows. The schemas are in gaffer.schemas.lookup.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter

import msgspec

from gaffer.jobs.names import split_job_name
from gaffer.schemas.lookup import NodeInfo
from gaffer.schemas.messages import JobReport, Process
from gaffer_lookupd.changes import job_state
from gaffer_lookupd.records import Grave, Node
from gaffer_lookupd.registry import Registry

PART_SIZE = 64 * 1024  # bytes

_encode = msgspec.json.Encoder().encode


class _Ends(dict[Node, bytes]):
    """The ends of each node's sources at the time `now`: the node and its age."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self._now = now

    def __missing__(self, node: Node) -> bytes:
        age = _age(node, self._now)
        end = self[node] = b'%b,"age_ms":%b}' % (_node(node, age), age)
        return end


class Queries:
    """Queries of a registry, each with a response in parts of about 64 KiB; `now` is the registry's time.

    Parts are generated on demand, from the current state: a response that is received slowly costs no memory.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def nodes(self, now: float) -> Iterator[bytes]:
        """Return all identified nodes: `NodesResponse`."""
        registry = self._registry
        infos = (_node(node, _age(node, now)) for node in list(registry.nodes) if registry.find(node.key) is node)
        return self._answer(b'"nodes":[', separated(infos), b"]", registry.graves)

    def node(self, node_id: str, now: float) -> bytes | None:
        """Return the node with this id, `AgedNodeInfo`, or None."""
        node = self._registry.find(node_id)
        return None if node is None else _node(node, _age(node, now))

    def jobs(self, now: float) -> Iterator[bytes]:
        """Return all jobs with their nodes: `JobsResponse`."""
        graves = [grave for grave in self._registry.graves if grave.jobs]
        return self._jobs(list(self._registry.tables.jobs), graves, now)

    def find_session(self, sessionid: str, now: float) -> Iterator[bytes]:
        """Return the jobs of one session with their nodes: `JobsResponse`."""
        names = [name for name in self._registry.tables.jobs if _session(name) == sessionid]
        graves = [grave for grave in self._registry.graves if any(_session(name) == sessionid for name in grave.jobs)]
        return self._jobs(names, graves, now)

    def find_job(self, job_name: str, now: float) -> Iterator[bytes]:
        """Return the nodes that have the job, by its qualified name: `SourcesResponse`."""
        sources = _separated_groups(self._sources(job_name, _Ends(now)))
        return self._answer(b'"sources":[', sources, b"]", self._registry.graves_of(job_name))

    def sessions(self, node_name: str | None, now: float) -> Iterator[bytes]:
        """Return all sessions with their jobs, or those on nodes with this name: `SessionsResponse`."""
        registry, ends = self._registry, _Ends(now)
        if node_name is None:
            names: Iterable[str] = registry.tables.jobs
            graves = [grave for grave in registry.graves if grave.jobs]
        else:
            names = dict.fromkeys(name for node in registry.named(node_name) for name in node.jobs)
            graves = [grave for grave in registry.graves if grave.name == node_name]
        by_session: dict[str, list[str]] = {}
        for name in names:
            by_session.setdefault(_session(name), []).append(name)

        def session(sessionid: str, names: list[str]) -> Iterator[bytes]:
            yield b'{"sessionid":%b,"jobs":{' % _encode(sessionid)
            first = True
            for name in names:
                yield b"%b%b:[" % (b"" if first else b",", _encode(name))
                yield from _separated_groups(self._sources(name, ends, node_name))
                yield b"]"
                first = False
            yield b"}}"

        found = _separated_groups(session(sessionid, names) for sessionid, names in by_session.items())
        return self._answer(b'"nb_sessions":%d,"sessions":[' % len(by_session), found, b"]", graves)

    def snapshot(self) -> Iterator[bytes]:
        """Return the complete registry, `SnapshotMessage`, as of this call even if parts are generated later."""
        tables = [(node.info, *node.freeze()) for node in self._registry.nodes]
        head = b'{"event":"snapshot",%b,"nodes":[' % self._meta(self._registry.graves)
        return in_parts(chain((head,), _separated_groups(_table(*table) for table in tables), (b"]}",)))

    def _jobs(self, names: Sequence[str], graves: Iterable[Grave], now: float) -> Iterator[bytes]:
        ends = _Ends(now)

        def job(name: str) -> Iterator[bytes]:
            yield b'{"name":%b,"sources":[' % _encode(name)
            yield from _separated_groups(self._sources(name, ends))
            yield b"]}"

        head = b'"nb_jobs":%d,"jobs":[' % len(names)
        return self._answer(head, _separated_groups(map(job, names)), b"]", graves)

    def _sources(self, job_name: str, ends: _Ends, node_name: str | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the sources of a job, optionally only on nodes with this name, each in two pieces."""
        jobs = self._registry.tables.jobs
        for node in list(jobs.get(job_name, {}).values()):
            # The job may have been removed while earlier parts were sent.
            if node_name in (None, node.identity.name) and jobs.get(job_name, {}).get(node.key) is node:
                yield _source_head(node, job_name), ends[node]

    def _answer(self, head: bytes, pieces: Iterable[bytes], tail: bytes, graves: Iterable[Grave]) -> Iterator[bytes]:
        end = b"%b,%b}" % (tail, self._meta(graves))
        return in_parts(chain((b"{", head), pieces, (end,)), split=True)

    def _meta(self, graves: Iterable[Grave]) -> bytes:
        """Return the fields of `ResponseMeta`."""
        registry = self._registry
        fields = {
            "stale": registry.stale,
            "warming": registry.warming,
            "epoch": registry.epoch,
            "seq": registry.seq,
            "tombstones": [grave.tombstone for grave in graves],
        }
        return _encode(fields)[1:-1]


def _age(node: Node, now: float) -> bytes:
    return b"%d" % max(0, round((now - node.heard) * 1000))


def _source_head(node: Node, job_name: str) -> bytes:
    head = node.parts.sources.get(job_name)
    if head is None:
        fields = {
            "name": node.identity.name,
            "pids": node.live_pids(job_name),
            "status": node.info["status"],
            "processes": sorted(node.jobs[job_name].values(), key=attrgetter("pid")),
            **job_state(node.states.get(job_name)),
        }
        head = node.parts.sources[job_name] = b'%b,"node_info":' % _encode(fields)[:-1]
    return head


def _node(node: Node, age: bytes) -> bytes:
    parts = node.parts
    if parts.info is None:
        parts.info = _encode(node.info)[:-1]
    return b'%b,"age_ms":%b}' % (parts.info, age)


def _table(
    info: NodeInfo, jobs: Mapping[str, Mapping[int, Process]], states: Mapping[str, JobReport]
) -> Iterator[bytes]:
    """Yield the node with its jobs: `NodeTable`."""
    yield b'%b,"jobs":{' % _encode(info)[:-1]
    separator = b""
    for name, processes in jobs.items():
        yield b"%b%b:[" % (separator, _encode(name))
        yield from separated(map(_encode, processes.values()))
        yield b"]"
        separator = b","
    yield b'},"states":{'
    yield from separated(b"%b:%b" % (_encode(name), _encode(report)) for name, report in states.items())
    yield b"}}"


def in_parts(items: Iterable[bytes], *, split: bool = False) -> Iterator[bytes]:
    """Yield the items joined to parts of about PART_SIZE; larger items are kept whole unless `split`."""
    pending: list[bytes] = []
    length = 0
    for item in items:
        if split and len(item) > PART_SIZE:
            if pending:
                yield b"".join(pending)
            pending, length = [], 0
            # Slices, not a copy of the whole: the item is shared by all readers.
            yield from (item[start : start + PART_SIZE] for start in range(0, len(item), PART_SIZE))
            continue
        pending.append(item)
        length += len(item)
        if length >= PART_SIZE:
            yield b"".join(pending)
            pending, length = [], 0
    if pending:
        yield b"".join(pending)


def separated(items: Iterable[bytes]) -> Iterator[bytes]:
    separator = b""
    for item in items:
        yield separator + item
        separator = b","


def _separated_groups(groups: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield the pieces of all groups, with commas between groups."""
    separator = b""
    for group in groups:
        yield separator
        yield from group
        separator = b","


def _session(job_name: str) -> str:
    return split_job_name(job_name)[0]
