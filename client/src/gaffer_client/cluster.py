"""What several lookups know, and the answers that follow from it. Pure: no I/O, no clock, no lock."""

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
    """What the lookup at `url` told; `position` is the id of its last event.

    While the lookup is warming, `earlier` is what it knew before it started again.
    """

    url: str
    topology: Topology | None = None
    earlier: Topology | None = None
    position: str = ""
    connected: bool = False


class ClusterMap:
    """Takes in the events of the lookups at `urls` and answers the questions of Lookup.

    A lookup that has just started is warming: while no other is good, what it knew before counts, too.

    The lookups that are connected count; when none is, what all of them told last, and the answers are stale. An answer
    about one job is kept until something changes about the nodes that have it.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._lookups = {url: _Known(url) for url in urls}
        self._answers: dict[str, JobAnswer] = {}

    @property
    def urls(self) -> list[str]:
        """The addresses of the lookups."""
        return list(self._lookups)

    @property
    def is_known(self) -> bool:
        """Whether there is any map to answer from."""
        return any(lookup.topology is not None for lookup in self._lookups.values())

    def has_map_of(self, url: str) -> bool:
        """Whether that lookup has sent its map."""
        return self._lookups[url].topology is not None

    def put(self, url: str, topology: Topology, position: str) -> None:
        """The lookup has sent a new map."""
        lookup = self._lookups[url]
        before = lookup.topology
        if not topology.warming:
            lookup.earlier = None
        elif before is not None and not (before.warming and lookup.earlier is not None):
            lookup.earlier = before
        lookup.topology, lookup.position = topology, position
        self._answers.clear()

    def handle(self, url: str, event: str, message: Any, position: str) -> None:
        """Take in an event of a lookup that has sent its map; raises OutOfStep."""
        lookup = self._lookups[url]
        if lookup.topology is None:
            raise OutOfStep(f"{event} arrived before a snapshot")
        touched = lookup.topology.handle(event, message)
        if not lookup.topology.warming:
            lookup.earlier = None
        lookup.position = position
        self._forget(touched)

    def set_connected(self, url: str, connected: bool) -> None:
        """The connection to a lookup came about, or was lost."""
        lookup = self._lookups[url]
        if lookup.connected != connected:
            lookup.connected = connected
            self._answers.clear()

    def kept_answer(self, name: str) -> JobAnswer | None:
        """The answer about a job, by its qualified name, if there is one already; from any thread."""
        return self._answers.get(name)

    def find_job(self, name: str) -> JobAnswer:
        """The nodes that have the job; no sources when it is unknown."""
        name = ".".join(split_job_name(name))
        answer = self._answers.get(name)
        if answer is None:
            answer = composing.job_answer(*self._merged([name]), name)
            if answer["sources"]:
                self._answers[name] = answer
        return answer

    def find_session(self, sessionid: str) -> JobsAnswer:
        """The jobs of a session and the nodes that have them."""
        names = {name for topology in self._topologies() for name in topology.job_names}
        return composing.jobs_answer(*self._merged([name for name in names if composing.session_of(name) == sessionid]))

    def jobs(self) -> JobsAnswer:
        """All jobs and the nodes that have them."""
        return composing.jobs_answer(*self._merged())

    def sessions(self, node: str | None = None) -> SessionsAnswer:
        """All sessions with their jobs, or those of the nodes with that name."""
        merged, rest = self._merged()
        if node is not None:
            jobs = {name: [each for each in found if each["name"] == node] for name, found in merged.jobs.items()}
            merged = merged._replace(jobs={name: found for name, found in jobs.items() if found})
        return composing.sessions_answer(merged, rest)

    def nodes(self) -> NodesAnswer:
        """All nodes."""
        return composing.nodes_answer(*self._merged())

    def _topologies(self) -> list[Topology]:
        known = [topology for lookup in self._lookups.values() for topology in (lookup.topology, lookup.earlier)]
        return [topology for topology in known if topology is not None]

    def _merged(self, job_names: Iterable[str] | None = None) -> tuple[Merged, dict[str, Any]]:
        """What they know of these jobs, or all they know, and the rest of an answer."""
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
        """Drop the answers that may not be true any more."""
        if touched.everything:
            self._answers.clear()
        elif touched.key is not None:
            # What one lookup tells of a node may make it the one to believe, for all jobs of that node.
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
