"""The answers to queries: the shapes of 0.5 and their additions."""

from typing import Any

import msgspec
import pytest

from gaffer.schemas import lookup as documents
from gaffer.schemas.messages import Endpoint, Process
from support.registry import Lookup, json

pytestmark = pytest.mark.pure


@pytest.fixture
def lookup() -> Lookup:
    """Two nodes: n1 has web.http and web.api, n2, which is suspect, has web.http and db.main."""
    lookup = Lookup()
    first, second = lookup.identify(), lookup.identify(name="n2", id="id2")
    tables = lookup.registry.tables
    process = Process(1, "ready", (Endpoint("http", "10.0.0.7", 8000),))
    tables.replace(lookup.registry.identified(first), 3, {"web.http": [process], "web.api": []})
    tables.replace(lookup.registry.identified(second), 1, {"web.http": [Process(5)], "db.main": [Process(6)]})
    lookup.connect()
    lookup.now += 2.5
    lookup.disconnect(second)
    return lookup


def names(jobs: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {job["name"]: [source["name"] for source in job["sources"]] for job in jobs}


@pytest.mark.row("LP-33")
def test_nodes_are_listed_once_they_are_identified(lookup: Lookup) -> None:
    answer = lookup.ask("nodes")
    assert answer["nodes"][0] == {
        "name": "n1",
        "origin": "http://n1:5000",
        "version": "0.1",
        "id": "id1",
        "incarnation": 1,
        "seq": 3,
        "labels": {},
        "status": "alive",
        "draining": False,
        "age_ms": 2500,
        "conflict": False,
    }
    assert [node["status"] for node in answer["nodes"]] == ["alive", "suspect"]


def test_a_0_5_peer_has_no_id(lookup: Lookup) -> None:
    lookup.legacy()
    node = lookup.ask("nodes")["nodes"][-1]
    assert (node["name"], node["id"], node["incarnation"], node["status"]) == ("old", None, None, "alive")


@pytest.mark.row("LP-36")
def test_jobs(lookup: Lookup) -> None:
    answer = lookup.ask("jobs")
    assert answer["nb_jobs"] == 3
    assert names(answer["jobs"]) == {"web.http": ["n1", "n2"], "web.api": ["n1"], "db.main": ["n2"]}


@pytest.mark.row("LP-37")
def test_find_job(lookup: Lookup) -> None:
    first, second = lookup.ask("find_job", "web.http")["sources"]
    assert first["node_info"] == lookup.ask("nodes")["nodes"][0]
    assert {key: first[key] for key in ("name", "pids", "status", "age_ms", "processes")} == {
        "name": "n1",
        "pids": [1],
        "status": "alive",
        "age_ms": 2500,
        "processes": [
            {"pid": 1, "state": "ready", "endpoints": [{"name": "http", "address": "10.0.0.7", "port": 8000}]}
        ],
    }
    assert (second["status"], second["pids"]) == ("suspect", [5])
    assert lookup.ask("find_job", "web.nothing")["sources"] == []


@pytest.mark.row("LP-38")
def test_find_session(lookup: Lookup) -> None:
    answer = lookup.ask("find_session", "web")
    assert answer["nb_jobs"] == 2
    assert names(answer["jobs"]) == {"web.http": ["n1", "n2"], "web.api": ["n1"]}
    assert lookup.ask("find_session", "we") == {**answer, "nb_jobs": 0, "jobs": []}


@pytest.mark.row("LP-34", "LP-35")
def test_sessions(lookup: Lookup) -> None:
    answer = lookup.ask("sessions", None)
    assert answer["nb_sessions"] == 2
    found = {session["sessionid"]: session["jobs"] for session in answer["sessions"]}
    assert found["db"] == {"db.main": lookup.ask("find_job", "db.main")["sources"]}
    assert set(found["web"]) == {"web.http", "web.api"}
    of_node = {session["sessionid"]: session["jobs"] for session in lookup.ask("sessions", "n2")["sessions"]}
    assert of_node == {"db": found["db"], "web": {"web.http": found["web"]["web.http"][1:]}}
    assert lookup.ask("sessions", "nobody")["sessions"] == []


@pytest.mark.parametrize(
    ("query", "args"),
    [("nodes", ()), ("jobs", ()), ("find_job", ("s.j",)), ("find_session", ("s",)), ("sessions", (None,))],
)
def test_every_answer_says_how_far_to_trust_it(lookup: Lookup, query: str, args: tuple[str | None, ...]) -> None:
    answer = lookup.ask(query, *args)
    assert (answer["stale"], answer["epoch"], answer["tombstones"]) == (False, "e", [])
    assert answer["seq"] == lookup.registry.seq == len(lookup.events)


@pytest.mark.parametrize(
    ("query", "args", "shape"),
    [
        ("nodes", (), documents.NodesResponse),
        ("node", ("id1",), documents.AgedNodeInfo),
        ("jobs", (), documents.JobsResponse),
        ("find_job", ("web.http",), documents.SourcesResponse),
        ("find_session", ("web",), documents.JobsResponse),
        ("sessions", (None,), documents.SessionsResponse),
        ("sessions", ("n1",), documents.SessionsResponse),
        ("snapshot", (), documents.SnapshotMessage),
    ],
)
def test_answers_have_the_shapes_that_are_documented(
    lookup: Lookup, query: str, args: tuple[str | None, ...], shape: Any
) -> None:
    lookup.registry.leave(lookup.identify(name="gone", id="id3"), lookup.now)
    answer = lookup.snapshot() if query == "snapshot" else lookup.ask(query, *args)
    assert json(msgspec.json.encode(msgspec.convert(answer, shape))) == answer


def test_a_node_by_its_id(lookup: Lookup) -> None:
    assert lookup.ask("node", "id1") == lookup.ask("nodes")["nodes"][0]
    assert lookup.queries.node("nobody", lookup.now) is None
