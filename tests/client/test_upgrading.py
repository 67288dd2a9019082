"""`gaffer upgrade` and `gafferctl upgrade`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gaffer.runtime.version import __version__
from gaffer_client import Server
from support.client import Answering, Commands
from support.daemons import lookupd
from support.kept_node import kept_node
from support.poll import eventually

JOB = {"name": "web", "cmd": "sleep 1000", "numprocesses": 2}
STARTED = '{"version": "1.0", "pid": 7, "processes": 0, "checked": true}'
HEALTH = {
    "status": "ok",
    "version": "1.1",
    "pid": 7,
    "uptime": 1.0,
    "jobs": 0,
    "processes": 0,
    "lookupds": [],
    "webhooks": [],
    "state_error": None,
    "keeper": None,
}


def test_nodes_are_upgraded_one_after_the_other(
    gaffer: Commands, gafferctl: Commands, tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        lookupd() as registry,
        kept_node(tmp_path, "--lookupd-address", registry.url, "--node-name", "one") as node,
        Server(node.url) as server,
    ):
        monkeypatch.setenv("GAFFER_LOOKUPD", registry.url)
        server.load(JOB, "shop")
        eventually(lambda: len(server.pids()) == 2 and "one" in gaffer("lookup:nodes").out)
        first = server.health().get("pid")
        ran = gaffer("upgrade", "one", closed, "two")
        seconds = r"in [0-9]+\.[0-9] s"
        assert re.fullmatch(rf"one: {__version__} -> {__version__} {seconds}, 2 processes untouched\n", ran.out)
        assert ran.status == 5
        assert f"gaffer: {closed}: " in ran.err
        assert "gaffer: two: no node is named two" in ran.err
        assert server.health().get("pid") != first
        ran = gafferctl("upgrade", "--connect", node.url, "--json")
        found = json.loads(ran.out)
        assert (ran.status, found["node"], found["untouched"], found["processes"]) == (0, node.url, 2, 2)
        assert found["from"] == found["to"] == __version__


def test_nodes_that_can_not_be_upgraded(gaffer: Commands, answering: Callable[..., Answering], closed: str) -> None:
    node = answering()
    node.answer("/pids", '{"pids": [1, 2]}')
    ran = gaffer("upgrade", node.url)
    assert (ran.status, ran.out) == (1, "")
    assert "runs a version that can't be upgraded in place" in ran.err
    node.answer("/upgrade", '{"error": "no_keeper", "errno": 409, "message": "no", "path": null, "hint": "do"}', 409)
    ran = gaffer("upgrade", node.url)
    assert (ran.status, ran.err) == (1, "gaffer: no\n  do\n")
    assert [gaffer("upgrade", *nodes).status for nodes in ([closed], [closed, closed], ["-g", closed])] == [3, 3, 3]


def test_a_successor_that_does_not_come_and_processes_that_are_gone(
    gaffer: Commands, answering: Callable[..., Answering]
) -> None:
    node = answering()
    node.answer("/pids", '{"pids": [1, 2]}')
    node.answer("/upgrade", STARTED, 202)
    node.answer("/health", json.dumps(HEALTH))
    ran = gaffer("upgrade", node.url, "--force", "--timeout", "0.2")
    assert (ran.status, ran.out) == (1, "")
    assert f"{node.url} makes way for the installed gafferd, which does not answer" in ran.err
    assert "its processes keep running" in ran.err
    node.answer("/health", json.dumps({**HEALTH, "pid": 8}))
    ran = gaffer("upgrade", node.url, "--force")
    assert (ran.status, ran.out) == (0, f"{node.url}: 1.0 -> 1.1 in 0.0 s, 2 processes untouched\n")
    assert gaffer("upgrade", node.url, "--timeout", "soon").status == 2
