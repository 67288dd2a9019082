"""The map of a cluster that several lookups tell of: answers that are kept are what asking anew would give."""

from contextlib import suppress
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gaffer.errors import GafferError
from gaffer.schemas.messages import Process
from gaffer_client import composing
from gaffer_client.cluster import ClusterMap
from gaffer_client.merge import View, merge
from gaffer_client.topology import Topology
from support.registry import INTERVAL, Lookup, json
from support.registry_steps import JOBS, new_lookup, play, steps

URLS = ("one", "two")

scripts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["one", "two", "both"]), steps),
        st.tuples(st.sampled_from(["map", "lose", "silence"]), st.sampled_from(URLS)),
    ),
    min_size=1,
    max_size=8,
)


class World:
    """Two lookups, what each told, and the map that follows them while there is a connection."""

    def __init__(self) -> None:
        self.map = ClusterMap(URLS)
        self.lookups: dict[str, Lookup] = {}
        self.sessions: dict[str, list[int]] = {}
        for seq, url in enumerate(URLS, 2):
            self.lookups[url], self.sessions[url] = new_lookup()
            # The same nodes, of which the lookups have heard other things.
            for session in self.sessions[url][:2]:
                self.lookups[url].announce_table(session, {JOBS[0]: [Process(seq)], JOBS[seq - 1]: []}, seq=seq)
        self.told: dict[str, Topology] = {}
        self.connected: set[str] = set()
        self.seen = dict.fromkeys(URLS, 0)

    def do(self, what: str, with_what: Any) -> None:
        if what == "map":
            snapshot = self.lookups[with_what].snapshot()
            for take in (self.told.__setitem__, lambda url, topology: self.map.put(url, topology, "e:1")):
                topology = Topology()
                topology.handle("snapshot", snapshot)
                take(with_what, topology)
            self.seen[with_what] = self.lookups[with_what].changes.end
            self.connected.add(with_what)
            self.map.set_connected(with_what, True)
        elif what == "lose":
            self.connected.discard(with_what)
            self.map.set_connected(with_what, False)
        elif what == "silence":
            self.lookups[with_what].wait(2 * INTERVAL)
            self.follow(with_what)
        else:
            for url, step in product(URLS if what == "both" else [what], with_what):
                with suppress(GafferError):
                    play(self.lookups[url], self.sessions[url], step)
                if what != "two":  # of the second the map is behind at times, until it gets a new one
                    self.follow(url)
                    self.check()

    def fresh(self) -> ClusterMap:
        """Another map that was told the same and was not asked yet."""
        other = ClusterMap(URLS)
        for url, topology in self.told.items():
            other.put(url, topology, "e:1")
            other.set_connected(url, url in self.connected)
        return other

    def follow(self, url: str) -> None:
        if url not in self.connected:
            return
        changes = self.lookups[url].changes
        for change in changes.read(self.seen[url], changes.end - self.seen[url]).items:
            message = json(change.to_json())
            self.told[url].handle(message["event"], message)
            self.map.handle(url, message["event"], message, f"e:{change.seq}")
            for name in JOBS:
                self.map.find_job(name)
        self.seen[url] = changes.end

    def views(self) -> list[View]:
        """What counts: the lookups that are connected, or all when none is."""
        urls = [url for url in URLS if url in self.connected] or [url for url in URLS if url in self.told]
        return [self.told[url].view(url, stale=not self.connected) for url in urls]

    def check(self) -> None:
        merged, fresh = merge(self.views()), self.fresh()
        for name in JOBS:
            answer = self.map.find_job(name)
            assert answer == fresh.find_job(name)
            assert answer["sources"] == merged.jobs.get(name, [])
            assert answer["lookups"]["unreachable"] == [url for url in URLS if url not in self.connected]
            if not self.connected:
                assert answer["stale"]
                assert answer["lookups"]["agree"] == []
        assert self.map.nodes()["nodes"] == merged.nodes
        assert self.map.jobs()["jobs"] == composing.jobs_answer(merged, {})["jobs"]
        shop = self.map.find_session("shop")["jobs"]
        assert {job["name"]: job["sources"] for job in shop} == {
            name: found for name, found in merged.jobs.items() if name.startswith("shop.")
        }


@settings(max_examples=40)
@given(scripts)
def test_answers_are_what_asking_anew_would_give(script: list[tuple[str, Any]]) -> None:
    world = World()
    for url in URLS:
        world.do("map", url)
    for what, with_what in script:
        world.do(what, with_what)
        world.check()


def test_nothing_is_known_at_first() -> None:
    empty = ClusterMap(URLS)
    assert not empty.is_known
    assert empty.find_job("shop.web") == {
        "sources": [],
        "stale": True,
        "warming": False,
        "lookups": {"agree": [], "unreachable": ["one", "two"]},
    }


def _map(*tables: dict[str, Any], **state: Any) -> Topology:
    topology = Topology()
    topology.handle("snapshot", {"stale": False, "tombstones": [], "nodes": list(tables), **state})
    return topology


def _table(name: str, seq: int, *jobs: str) -> dict[str, Any]:
    processes = [{"pid": 1, "state": "ready", "endpoints": []}]
    info = {"name": name, "origin": f"http://{name}:5000", "version": "0.1", "status": "alive", "draining": False}
    return {**info, "id": name, "incarnation": 1, "seq": seq, "jobs": dict.fromkeys(jobs, processes)}


WARMING = {"stale": True, "warming": True}


def test_what_a_lookup_knew_counts_until_it_is_warm_again() -> None:
    cluster = ClusterMap(["one"])
    cluster.put("one", _map(_table("a", 1, "s.j"), _table("b", 1, "s.j"), _table("c", 1, "s.j")), "x:9")
    cluster.set_connected("one", True)

    def answer() -> tuple[list[str], bool, bool]:
        found = cluster.find_job("s.j")
        assert cluster.jobs()["nb_jobs"] == bool(found["sources"])
        return [source["name"] for source in found["sources"]], found["stale"], found.get("warming", False)

    assert answer() == (["a", "b", "c"], False, False)
    cluster.put("one", _map(**WARMING), "y:1")
    assert answer() == (["a", "b", "c"], True, True)
    # What it hears is newer: a comes back without the job.
    cluster.handle("one", "identify", {**_table("a", 2), "jobs": None}, "y:2")
    assert answer() == (["b", "c"], True, True)
    # It starts again: the last full map counts, and b has left since.
    cluster.put("one", _map(**WARMING, tombstones=[{"id": "b", "incarnation": 1, "seq": 2, "reason": "left"}]), "z:1")
    assert answer() == (["a", "c"], True, True)
    cluster.handle("one", "identify", {**_table("c", 1), "jobs": None}, "z:2")
    cluster.handle("one", "add_job", {"node": _table("c", 2), "job_name": "s.j"}, "z:3")
    cluster.handle("one", "stale", {"stale": False, "warming": False}, "z:4")
    assert answer() == (["c"], False, False)


def test_a_good_lookup_needs_no_help_of_a_warming_one() -> None:
    cluster = ClusterMap(URLS)
    for url in URLS:
        cluster.put(url, _map(_table("a", 1, "s.j"), _table("b", 1, "s.j")), "x:9")
        cluster.set_connected(url, True)
    cluster.put("one", _map(_table("a", 1, "s.j")), "x:10")
    cluster.put("two", _map(**WARMING), "y:1")
    answer = cluster.find_job("s.j")
    assert ([source["name"] for source in answer["sources"]], answer["stale"]) == (["a"], False)
