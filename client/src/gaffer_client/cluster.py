"""The state of several lookups, and responses built from it. Pure: no I/O, no clock, no lock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gaffer.jobs.names import split_job_name
from gaffer_client import composing
from gaffer_client.merge import Merged, View, bridged, merge
from gaffer_client.responses import JobAnswer, JobsAnswer, NodesAnswer, SessionsAnswer
from gaffer_client.topology import OutOfStep, Topology, Touched


@dataclass
class _Known:
    """The state of the lookup at `url`; `position` is the id of its last event.

    While the lookup is warming, `earlier` is its state from before the restart.
    """

    url: str
    topology: Topology | None = None
    earlier: Topology | None = None
    position: str = ""
    connected: bool = False


class ClusterMap:
    """Processes the events of the lookups at `urls` and answers the queries of Lookup.

    A lookup that has just started is warming: while no other one is good, its earlier state is used as well.

    Only connected lookups are used; if none is connected, the last state of all is used and marked stale. Responses
    about single jobs are cached until the nodes with the job change.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._lookups = {url: _Known(url) for url in urls}
        self._answers: dict[str, JobAnswer] = {}

    @property
    def urls(self) -> list[str]:
        """The URLs of the lookups."""
        return list(self._lookups)

    @property
    def is_known(self) -> bool:
        """Whether any lookup has sent its snapshot."""
        return any(lookup.topology is not None for lookup in self._lookups.values())

    def has_map_of(self, url: str) -> bool:
        """Return whether the lookup has sent its snapshot."""
        return self._lookups[url].topology is not None

    def put(self, url: str, topology: Topology, position: str) -> None:
        """Store a new snapshot of a lookup."""
        lookup = self._lookups[url]
        before = lookup.topology
        if not topology.warming:
            lookup.earlier = None
        elif before is not None and not (before.warming and lookup.earlier is not None):
            lookup.earlier = before
        lookup.topology, lookup.position = topology, position
        self._answers.clear()

    def handle(self, url: str, event: str, message: Any, position: str) -> None:
        """Process an event of a lookup that has sent its snapshot; raise OutOfStep."""
        lookup = self._lookups[url]
        if lookup.topology is None:
            raise OutOfStep(f"{event} arrived before a snapshot")
        touched = lookup.topology.handle(event, message)
        if not lookup.topology.warming:
            lookup.earlier = None
        lookup.position = position
        self._forget(touched)

    def set_connected(self, url: str, connected: bool) -> None:
        """Record whether a lookup is connected."""
        lookup = self._lookups[url]
        if lookup.connected != connected:
            lookup.connected = connected
            self._answers.clear()

    def kept_answer(self, name: str) -> JobAnswer | None:
        """Return the cached response about a job, by its qualified name, or None; thread-safe."""
        return self._answers.get(name)

    def find_job(self, name: str) -> JobAnswer:
        """Return the nodes that have the job; `sources` is empty if it is unknown."""
        name = ".".join(split_job_name(name))
        answer = self._answers.get(name)
        if answer is None:
            answer = composing.job_answer(*self._merged([name]), name)
            if answer["sources"]:
                self._answers[name] = answer
        return answer

    def find_session(self, sessionid: str) -> JobsAnswer:
        """Return the jobs of a session and the nodes that have them."""
        names = {name for topology in self._topologies() for name in topology.job_names}
        return composing.jobs_answer(*self._merged([name for name in names if composing.session_of(name) == sessionid]))

    def jobs(self) -> JobsAnswer:
        """Return all jobs and the nodes that have them."""
        return composing.jobs_answer(*self._merged())

    def sessions(self, node: str | None = None) -> SessionsAnswer:
        """Return all sessions with their jobs, or those of the nodes named `node`."""
        merged, rest = self._merged()
        if node is not None:
            jobs = {name: [each for each in found if each["name"] == node] for name, found in merged.jobs.items()}
            merged = merged._replace(jobs={name: found for name, found in jobs.items() if found})
        return composing.sessions_answer(merged, rest)

    def nodes(self) -> NodesAnswer:
        """Return all nodes."""
        return composing.nodes_answer(*self._merged())

    def _topologies(self) -> list[Topology]:
        known = [topology for lookup in self._lookups.values() for topology in (lookup.topology, lookup.earlier)]
        return [topology for topology in known if topology is not None]

    def _merged(self, job_names: Iterable[str] | None = None) -> tuple[Merged, dict[str, Any]]:
        """Return the merged state of these jobs, or of everything, and the other fields of a response."""
        known = [lookup for lookup in self._lookups.values() if lookup.topology is not None]
        connected = [lookup for lookup in known if lookup.connected]
        merged = merge(_views(connected or known, job_names, stale=not connected))
        unreachable = [lookup.url for lookup in self._lookups.values() if lookup not in connected]
        warming = [lookup for lookup in connected if lookup.topology is not None and lookup.topology.warming]
        rest: dict[str, Any] = {
            "stale": merged.stale or not connected,
            "warming": bool(connected) and warming == connected,
            "lookups": {"agree": merged.agree if connected else [], "unreachable": unreachable},
        }
        if len(self._lookups) == 1:
            [only] = self._lookups.values()
            epoch, _, seq = only.position.partition(":")
            rest |= {"epoch": epoch or None, "seq": int(seq) if seq.isdecimal() else None}
        return merged, rest

    def _forget(self, touched: Touched) -> None:
        """Drop cached responses that may be outdated."""
        if touched.everything:
            self._answers.clear()
        elif touched.key is not None:
            # An event may make its lookup the most recent source for all jobs of the node.
            others = (topology.jobs_of(touched.key) for topology in self._topologies())
            for name in touched.jobs.union(*others):
                self._answers.pop(name, None)


def _views(lookups: Sequence[_Known], job_names: Iterable[str] | None, *, stale: bool) -> list[View]:
    topologies = [(lookup.url, lookup.topology) for lookup in lookups if lookup.topology is not None]
    earlier = [(lookup.url, lookup.earlier) for lookup in lookups if lookup.earlier is not None]
    if job_names is None:
        views = [[topology.view(url, stale=stale) for url, topology in known] for known in (topologies, earlier)]
    else:
        names = list(job_names)
        keys = {key for _, topology in topologies + earlier for name in names for key in topology.holders(name)}
        views = [
            [topology.part(url, names, keys, stale=stale) for url, topology in known] for known in (topologies, earlier)
        ]
    return bridged(*views)
