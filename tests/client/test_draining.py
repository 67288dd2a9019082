"""`gaffer drain` against a real cluster of one node or two."""

import json
from collections.abc import Iterator

import pytest

from gaffer_client import Server
from support.client import Commands
from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually

STUBBORN = {"name": "stubborn", "cmd": "sh -c \"trap '' TERM; while :; do sleep 0.1; done\"", "graceful_timeout": 1.5}


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd("--ttl", "2", "--interval", "0.5") as registry:
        yield registry


@pytest.fixture(scope="module")
def node(registry: Daemon) -> Iterator[Daemon]:
    with gafferd("--lookupd-address", registry.url, "--node-name", "one") as node:
        yield node


@pytest.fixture
def server(node: Daemon, registry: Daemon, monkeypatch: pytest.MonkeyPatch, gaffer: Commands) -> Iterator[Server]:
    """The node, with the job `web`, which `gaffer` finds by the lookup."""
    monkeypatch.setenv("GAFFER_LOOKUPD", registry.url)
    eventually(lambda: "one" in gaffer("lookup:nodes").out)
    with Server(node.url) as server:
        server.resume()
        server.load({"name": "web", "cmd": "sleep 1000"}, "shop")
        eventually(lambda: server.pids())
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids())


def test_a_node_is_drained_by_its_name_and_put_back(gaffer: Commands, server: Server) -> None:
    ran = gaffer("drain", "one", "--wait")
    assert (ran.status, ran.out) == (0, "one is drained\n")
    assert not server.pids()
    assert "draining" in gaffer("lookup:nodes").out
    ran = gaffer("drain", "one", "--undo")
    assert (ran.status, ran.out) == (0, "one is back in service\n")
    eventually(lambda: server.pids())
    eventually(lambda: "alive" in gaffer("lookup:nodes").out)


def test_a_node_is_drained_by_its_id_or_its_url_or_as_the_endpoint(gaffer: Commands, server: Server) -> None:
    node_id = json.loads(gaffer("lookup:nodes", "--json").out)["nodes"][0]["id"]
    for words in ([node_id], [server.url], ["-g", server.url]):
        ran = gaffer("drain", "--json", *words)
        assert (ran.status, json.loads(ran.out)["draining"]) == (0, True)
        ran = gaffer("drain", "--undo", "--json", *words)
        assert (ran.status, json.loads(ran.out)["draining"]) == (0, False)


def test_what_does_not_end_is_waited_for_as_long_as_told(gaffer: Commands, server: Server) -> None:
    server.load(STUBBORN, "shop")
    eventually(lambda: len(server.pids()) == 2)
    assert gaffer("drain", "one").status == 0
    eventually(lambda: server.drained()["processes"] == 1)
    ran = gaffer("drain", "one", "--wait", "--timeout", "0.3")
    assert (ran.status, ran.out) == (1, "")
    assert "one not drained within 0.3 s: 1 process left" in ran.err


def test_a_node_that_is_not_known(gaffer: Commands, server: Server) -> None:
    ran = gaffer("drain", "onee")
    assert (ran.status, ran.out) == (4, "")
    assert "no node is named onee" in ran.err
    assert "`one`" in ran.err or "'one'" in ran.err
    assert gaffer("drain", "one", "--timeout", "soon").status == 2
    assert not server.drained()["draining"]


def test_two_nodes_of_one_name_are_told_apart_by_their_urls(
    gaffer: Commands, server: Server, registry: Daemon, node: Daemon
) -> None:
    with gafferd("--lookupd-address", registry.url, "--node-name", "one") as other:
        eventually(lambda: other.url in gaffer("lookup:nodes").out)
        ran = gaffer("drain", "one")
        assert ran.status == 1
        assert node.url in ran.err
        assert other.url in ran.err
        assert gaffer("drain", other.url).status == 0
    assert not server.drained()["draining"]


def test_nobody_who_could_tell_where_the_node_is(gaffer: Commands) -> None:
    ran = gaffer("drain", "one", "-L", "http://127.0.0.1:9")
    assert (ran.status, ran.out) == (3, "")
    assert "the URL of the node" in ran.err
    ran = gaffer("drain", "http://127.0.0.1:9")
    assert (ran.status, ran.out) == (3, "")
