"""A copy of what a lookup knows: a snapshot, and the events after it, wherever one begins."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaffer.errors import GafferError
from gaffer_client.merge import merge, node_key
from gaffer_client.topology import OutOfStep, Topology, Touched
from support.registry import Lookup, json
from support.registry_steps import JOBS, new_lookup, play, steps


def without_ages(answer: Any) -> Any:
    """An answer without what only a lookup can tell: since when it has not heard of a node."""
    if isinstance(answer, dict):
        return {key: without_ages(value) for key, value in answer.items() if key != "age_ms"}
    return [without_ages(each) for each in answer] if isinstance(answer, list) else answer


def by_node(nodes: list[Any]) -> dict[Any, Any]:
    return {node_key(node.get("node_info", node)): node for node in nodes}


def check(topology: Topology, lookup: Lookup) -> None:
    """It says what the lookup itself answers."""
    view = topology.view("u")
    asked = without_ages(lookup.ask("jobs"))
    assert {name: by_node(list(found)) for name, found in view.jobs.items()} == {
        job["name"]: by_node(job["sources"]) for job in asked["jobs"]
    }
    assert by_node(list(view.nodes)) == by_node(without_ages(lookup.ask("nodes"))["nodes"])
    assert sorted(view.tombstones, key=lambda grave: grave["id"]) == sorted(
        lookup.ask("nodes")["tombstones"], key=lambda grave: grave["id"]
    )
    assert view.stale == asked["stale"]


@settings(max_examples=200)
@given(steps, st.integers(0, 5))
def test_a_snapshot_and_any_events_after_it_are_what_the_lookup_answers(taken: list[Any], begin: int) -> None:
    lookup, sessions = new_lookup()
    topology, seen = Topology(), 0
    for number, step in enumerate(taken):
        if number <= begin:
            topology.handle("snapshot", lookup.snapshot())
            seen = lookup.changes.end
        with suppress(GafferError):
            play(lookup, sessions, step)
        for change in lookup.changes.read(seen, lookup.changes.end - seen).items:
            message = json(change.to_json())
            before = {name: topology.view("u").jobs[name] for name in topology.job_names}
            touched = topology.handle(message["event"], message)
            after = topology.view("u").jobs
            if not touched.everything:
                changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
                assert changed <= touched.jobs
        seen = lookup.changes.end
        check(topology, lookup)


@given(steps)
def test_a_part_says_of_a_job_what_the_whole_says(taken: list[Any]) -> None:
    lookup, sessions = new_lookup()
    for step in taken:
        with suppress(GafferError):
            play(lookup, sessions, step)
    topology = Topology()
    topology.handle("snapshot", lookup.snapshot())
    whole = merge([topology.view("u")])
    for name in JOBS:
        part = merge([topology.part("u", [name], list(topology.holders(name)))])
        assert part.jobs.get(name) == whole.jobs.get(name)
        assert name not in part.jobs or part.agree == ["u"]


def node(**more: Any) -> dict[str, Any]:
    info = {"name": "n", "origin": "http://n:5000", "version": "0.1", "id": "a", "incarnation": 1, "seq": 1}
    return {**info, "status": "alive", **more}


SNAPSHOT = {
    "stale": False,
    "tombstones": [],
    "nodes": [node(jobs={"s.j": [{"pid": 1, "state": "ready", "endpoints": []}]})],
}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("snapshot", {}),
        ("snapshot", {**SNAPSHOT, "nodes": [{"name": "n"}]}),
        ("update_node", node(id="b")),
        ("remove_node", node(id="b")),
        ("remove_node", []),
        ("add_job", {"node": node(id="b"), "job_name": "s.j"}),
        ("remove_job", {"node": node(), "job_name": "s.other"}),
        ("add_job", {"node": node()}),
        ("update_job", {"node": node(), "job_name": "s.other", "state": "failed", "reason": None, "expected": 1}),
        ("add_process", {"node": node(), "job_name": "s.other", "pid": 1, "state": "ready", "endpoints": []}),
        ("remove_process", {"node": node(), "job_name": "s.j", "pid": 2, "state": "ready", "endpoints": []}),
        ("remove_process", {"node": node(), "job_name": "s.j", "pid": "1", "state": "ready", "endpoints": []}),
        ("forget_node", {"id": "a", "incarnation": 1, "seq": 1, "reason": "left"}),
        ("stale", {"stale": "yes"}),
    ],
)
def test_events_that_can_not_be(event: str, message: Any) -> None:
    topology = Topology()
    topology.handle("snapshot", SNAPSHOT)
    with pytest.raises(OutOfStep, match=event):
        topology.handle(event, message)


def test_states_of_a_snapshot_last_until_they_change() -> None:
    topology = Topology()
    state = {"state": "backoff", "reason": "why", "expected": 1}
    topology.handle("snapshot", {**SNAPSHOT, "nodes": [{**SNAPSHOT["nodes"][0], "states": {"s.j": state}}]})  # type: ignore
    [source] = topology.view("u").jobs["s.j"]
    assert (source["state"], source["reason"], source["expected"]) == ("backoff", "why", 1)
    assert "states" not in source["node_info"]
    topology.handle("remove_job", {"node": node(), "job_name": "s.j"})
    topology.handle("add_job", {"node": node(), "job_name": "s.j"})
    [source] = topology.view("u").jobs["s.j"]
    assert (source["state"], source["reason"], source["expected"]) == (None, None, None)


def test_events_of_later_versions_and_of_strangers_change_nothing() -> None:
    topology = Topology()
    topology.handle("snapshot", SNAPSHOT)
    before = topology.view("u")
    assert topology.handle("sing", {"song": 1}) == Touched()
    nobody = {"name": None, "origin": None, "version": None}
    for event in ("add_node", "identify", "remove_node"):
        assert topology.handle(event, nobody) == Touched()
    assert topology.view("u") == before


def test_nodes_of_an_older_version() -> None:
    old = {"name": "old", "origin": "http://old:5000", "version": "0.1"}
    topology = Topology()
    topology.handle("identify", old)
    topology.handle("add_job", {"node": old, "job_name": "s.j"})
    topology.handle("add_process", {"node": old, "job_name": "s.j", "pid": 1, "state": "ready", "endpoints": []})
    [source] = topology.view("u").jobs["s.j"]
    assert (source["pids"], source["status"]) == ([1], "alive")
    topology.handle("remove_node", old)
    assert topology.view("u").jobs == {}
    assert topology.tombstones == {}
