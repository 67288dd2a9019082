"""`gaffer lookup:list` and `lookup:history`: what each lookup knows of the others, and what happened in the cluster."""

import json
import re
from collections.abc import Iterator

import pytest

from gaffer_client import Lookup
from support.client import Commands
from support.daemons import Daemon, lookupd
from support.peer import Peer, peer

HOSTILE = "\x1b[31m\u202ered"
EXIT = {"at": 95, "kind": "job", "action": "exit", "outcome": "failed", "job": "shop.web", "pid": 7}


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd("--warmup", "0") as running:
        yield running


@pytest.fixture(scope="module")
def node(registry: Daemon) -> Iterator[Peer]:
    with peer(registry.url) as connected:
        connected.identify("n1", id="a" * 32, incarnation=1)
        links = [
            {"address": registry.url, "connected": True, "since": 1, "epoch": "e"},
            {"address": "http://10.0.0.6:5010", "connected": False, "since": 1, "error": f"timed out{HOSTILE}"},
        ]
        load = {"at": 90, "kind": "call", "action": "POST", "route": "/drain", "caller": "key:ops"}
        events = [load, {**EXIT, "details": {"reason": f"exited{HOSTILE}", "exit_code": 3}}]
        connected.ask("REPORT", now=100, lookupds=links, events=events)
        yield connected


def test_lookups_are_listed_with_the_nodes_that_are_not_connected(
    gaffer: Commands, registry: Daemon, node: Peer, closed: str
) -> None:
    ran = gaffer("lookup:list", "-L", f"{registry.url},{closed}")
    assert ran.status == 0
    assert f"can't reach {closed}" in ran.err
    header, away, here = ran.out.splitlines()
    assert header.split() == ["LOOKUPD", "ACCORDING", "TO", "NODES", "NOT", "CONNECTED"]
    assert away.split()[:4] == ["http://10.0.0.6:5010", registry.url, "0/1", "n1"]
    assert here.split() == [registry.url, registry.url, "1/1", "-"]
    assert not {"\x1b", "\u202e"} & {*ran.out}
    document = json.loads(gaffer("lookup:list", "-L", f"{registry.url},{closed}", "--json").out)
    assert [(each["url"], each["error"] is None) for each in document["lookups"]] == [
        (registry.url, True),
        (closed, False),
    ]
    assert sorted(each["connected"] for each in document["lookups"][0]["lookupds"]) == [0, 1]
    assert gaffer("lookup:list", "-L", closed).status == 3


def test_the_history_of_the_cluster_is_listed_and_filtered(
    gaffer: Commands, registry: Daemon, node: Peer, closed: str
) -> None:
    def history(*words: str) -> list[str]:
        ran = gaffer("lookup:history", "-L", registry.url, *words)
        assert (ran.status, ran.err) == (0, "")
        assert not {"\x1b", "\u202e"} & {*ran.out}
        *lines, end = ran.out.splitlines()
        assert end.startswith(f"{registry.url} has been recording since ")
        return lines

    heading, *lines = history()
    assert heading.split() == ["WHEN", "NODE", "JOB", "WHAT", "CALLER", "RESULT", "DETAILS"]
    assert [line.split("  ")[1].strip() for line in lines] == ["n1", "n1", "n1"]
    assert "exit_code=3" in lines[0]
    assert re.search(r"n1 +- +drain +.*ok$", lines[1])
    assert "joined" in lines[2]
    assert history("--failed")[1:] == history("shop.web")[1:] == history("--match=exited")[1:] != []
    assert len(history("--about=n1", "--limit=2")) == 3
    assert history("--about=n2") == ["Nothing was recorded."]
    assert history("--since=1s") == ["Nothing was recorded."] or len(history("--since=1h")) == 4
    document = json.loads(gaffer("lookup:history", "-L", f"{closed},{registry.url}", "--json", "--failed").out)
    assert (document["url"], [entry["pid"] for entry in document["entries"]]) == (registry.url, [7])
    assert gaffer("lookup:history", "-L", closed).status == 3


def test_of_several_lookups_the_one_that_began_first_is_shown(gaffer: Commands, registry: Daemon, node: Peer) -> None:
    with lookupd("--warmup", "0") as later:
        found = json.loads(gaffer("lookup:history", "-L", f"{later.url},{registry.url}", "--json").out)
        assert found["url"] == registry.url
        with Lookup([later.url, registry.url]) as lookup:
            pages = lookup.history(failed=True)
            assert {url: len(page["entries"]) for url, page in pages.items()} == {later.url: 0, registry.url: 1}
            assert lookup.failures == {}
