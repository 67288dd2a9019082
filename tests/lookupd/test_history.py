"""The history of the cluster: what lookupd sees of nodes and what they report, over real websockets."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from gaffer.schemas.messages import MAX_REPORTED
from support.daemons import Daemon, lookupd
from support.event_source import event_source
from support.peer import Peer, peer
from support.poll import eventually
from support.registry import Lookup

ID = "1" * 32


def report(node: Peer, **fields: Any) -> dict[str, Any]:
    """Report what happened 5 seconds ago by a clock that is wrong."""
    return node.ask("REPORT", **{"now": 105.0, **fields})


@pytest.fixture
def registry() -> Iterator[Daemon]:
    with lookupd() as running:
        yield running


@pytest.fixture
def node(registry: Daemon) -> Iterator[Peer]:
    with peer(registry.url) as connected:
        connected.identify("n1", id=ID, incarnation=1)
        yield connected


def event(action: str = "exit", **fields: Any) -> dict[str, Any]:
    return {"at": 100.0, "kind": "job", "action": action, "outcome": "failed", "job": "shop.web", **fields}


def history(registry: Daemon, **query: Any) -> dict[str, Any]:
    answer = requests.get(f"{registry.url}/history", params=query, timeout=10)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def actions(registry: Daemon, **query: Any) -> list[str]:
    return [entry["action"] for entry in history(registry, **query)["entries"]]


def test_what_a_node_reports_is_listed_once(registry: Daemon, node: Peer) -> None:
    assert report(node, events=[event(), event("flap")], first=0) == {"ok": True}
    assert report(node, events=[event("flap"), event("failed", details={"reason": "x"})], first=1)["ok"]
    assert actions(registry) == ["failed", "flap", "exit", "joined"]
    entry = history(registry)["entries"][0]
    assert (entry["node"], entry["node_id"], entry["job"]) == ("n1", ID, "shop.web")
    assert 5 <= time.time() - entry["at"] < 30
    assert entry["details"] == {"reason": "x"}
    assert report(node, events=[event("late")], first=7)["ok"]
    late, lost, *_ = history(registry)["entries"]
    assert (late["action"], lost["action"], lost["count"]) == ("late", "events lost", 4)


def test_the_states_of_nodes_are_listed(registry: Daemon, node: Peer) -> None:
    node.ask("DRAIN", seq=1)
    with peer(registry.url) as other:
        other.identify("n1", id="2" * 32, incarnation=1)
        assert actions(registry)[:3] == ["name conflict", "name conflict", "joined"]
        other.ask("LEAVE", seq=1)
    eventually(lambda: actions(registry)[:2] == ["name conflict ended", "left"])
    assert actions(registry, node=ID)[:2] == ["name conflict ended", "name conflict"]
    node.close()
    eventually(lambda: actions(registry)[0] == "silent")
    assert actions(registry, failed="true", q="N1") == ["silent", "name conflict", "name conflict"]


def test_after_a_start_nodes_that_return_are_one_entry() -> None:
    lookup = Lookup(warmup=5.0)
    lookup.identify(id="id1")
    lookup.wait(6)
    assert [entry["action"] for entry in lookup.changes.history.read(0).items] == ["warmed up"]
    lookup.identify(name="n2", id="id2")
    assert [entry["action"] for entry in lookup.changes.history.read(0).items] == ["warmed up", "joined"]


def test_a_page_continues_and_a_feed_resumes(registry: Daemon, node: Peer) -> None:
    report(node, events=[event(f"e{number}") for number in range(5)], first=0)
    page = history(registry, limit=2, job="shop.web")
    assert [entry["action"] for entry in page["entries"]] == ["e4", "e3"]
    assert actions(registry, limit=2, job="shop.web", before=page["next"]) == ["e2", "e1"]
    after = f"{page['epoch']}:{page['seq']}"
    report(node, events=[event("new"), event("other", job="shop.api")], first=5)
    with event_source(f"{registry.url}/history/changes?job=shop.web&after={after}") as feed:
        first = feed.next()
        assert (first.event, [each["action"] for each in first.data["entries"]]) == ("entries", ["new"])
        assert first.id == f"{page['epoch']}:{page['seq'] + 2}"
    with event_source(f"{registry.url}/history/changes?after=elsewhere:1") as feed:
        assert feed.next().event == "reset"


def test_who_called_is_shown_only_to_those_who_may_control(registry: Daemon, node: Peer) -> None:
    call = event("POST", kind="call", route="/jobs/{sid}/{job}/restart", caller="key:ops", outcome="ok")
    report(node, events=[call], first=0)
    [local] = history(registry, q="restart")["entries"]
    assert (local["what"], local["caller"]) == ("restart", "key:ops")
    forwarded = requests.get(f"{registry.url}/history?q=restart", headers={"X-Forwarded-For": "10.0.0.1"}, timeout=10)
    [entry] = forwarded.json()["entries"]
    assert (entry["what"], entry["caller"]) == ("restart", None)


def test_one_node_does_not_displace_the_others(registry: Daemon, node: Peer) -> None:
    for first in range(0, 50 * MAX_REPORTED, MAX_REPORTED):
        report(node, events=[event()] * MAX_REPORTED, first=first)
    page = history(registry, limit=5000)
    assert len(page["entries"]) < 1000
    assert page["entries"][-1]["action"] == "joined"
    assert sum(entry["count"] for entry in page["entries"] if entry["action"] == "events lost") > 1500


@pytest.mark.parametrize(
    "content",
    [
        {"events": [event(details={"a": "x" * 501})]},
        {"events": [event(at=-1)]},
        {"now": 1e12},
        {"events": [event()] * (MAX_REPORTED + 1)},
        {"events": [event(details={str(number): 1 for number in range(17)})]},
        {"lookupds": [{"address": "http://a", "connected": True, "since": 0}] * 17},
        {"lookupds": [{"address": "javascript:alert(1)", "connected": True, "since": 0}]},
    ],
)
def test_what_is_too_large_or_wrong_is_refused(registry: Daemon, node: Peer, content: dict[str, Any]) -> None:
    assert report(node, **content)["errno"] == 400
    assert actions(registry) == ["joined"]


def test_lookupds_as_nodes_report_them(registry: Daemon, node: Peer) -> None:
    epoch = history(registry)["epoch"]
    own = {"address": "http://a:5010", "connected": True, "since": 5.0, "epoch": epoch}
    other = {"address": "http://b:5010", "connected": False, "since": 45.0, "error": "timed out"}
    report(node, lookupds=[own, other])
    with peer(registry.url) as silent:
        silent.identify("n2", id="2" * 32, incarnation=1)
        found = requests.get(f"{registry.url}/lookupds", timeout=10).json()
    assert (found["silent"], found["left_off"]) == (1, 0)
    first, second = found["lookupds"]
    assert (first["address"], first["own"], first["connected"], first["missing"]) == ("http://a:5010", True, 1, [])
    assert (second["own"], second["nodes"], second["connected"]) == (False, 1, 0)
    [missing] = second["missing"]
    assert (missing["name"], missing["error"]) == ("n1", "timed out")
    assert 60 <= time.time() - missing["since"] < 90
    items = requests.get(f"{registry.url}/search?kind=nodes&q=n1", timeout=10).json()["items"]
    assert [each["address"] for each in items[0]["lookupds"]] == ["http://a:5010", "http://b:5010"]
