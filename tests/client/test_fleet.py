"""`gaffer --cluster`: commands on several nodes, against a real cluster of three nodes of which some fail."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from gaffer_client import Server, errors
from gaffer_client.fleet import ask_all
from gaffer_client.spreading import spread
from gaffer_client.transport import Transport
from support.client import Commands, answering_server
from support.console import Terminal
from support.daemons import Daemon, clean_env, command_path, gafferd, lookupd
from support.following import following
from support.poll import eventually

NAMES = ["node1", "node2", "node3"]
TALK = "sh -c 'while :; do echo tick; sleep 0.1; done'"


class Cluster:
    """A lookupd and its nodes."""

    def __init__(self, folder: Path, registry: Daemon) -> None:
        self.nodes: dict[str, Daemon] = {}
        self.registry = registry
        self._folder = folder

    @contextmanager
    def node(self, name: str, port: int = 0) -> Iterator[Daemon]:
        """A node; of one name, they have the same state."""
        options = ("--lookupd-address", self.registry.url, "--node-name", name, "--bind", f"127.0.0.1:{port}")
        config = self._folder / f"{name}.ini"
        config.write_text(f"[gaffer]\nlabels = zone={'a' if name == 'node1' else 'b'}\n")
        with gafferd(str(config), *options, state_dir=self._folder / name) as node:
            self.nodes[name] = node
            yield node

    def server(self, name: str) -> Server:
        return Server(self.nodes[name].url)

    @contextmanager
    def silent(self, name: str) -> Iterator[None]:
        """A node does not answer."""
        self.nodes[name].signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.nodes[name].signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        registry = stack.enter_context(lookupd("--ttl", "60", "--interval", "20"))
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), registry)
        for name in NAMES:
            stack.enter_context(cluster.node(name))
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster, gaffer: Commands, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three nodes without jobs, which `gaffer` finds."""
    monkeypatch.setenv("GAFFER_LOOKUPD", whole_cluster.registry.url)
    eventually(lambda: gaffer("lookup:nodes").out.count("alive") == 3)
    yield whole_cluster
    eventually(lambda: gaffer("lookup:nodes").out.count("alive") == 3)
    for name in NAMES:
        with whole_cluster.server(name) as server:
            for job in server.jobs():
                server.unload(job)
            eventually(partial(has_stopped, server))
    eventually(lambda: "no node has a job" in gaffer("lookup:jobs").err)


@pytest.fixture
def web(cluster: Cluster, gaffer: Commands) -> Cluster:
    """The job shop.web runs on all nodes."""
    return with_job(cluster, gaffer, "sleep 1000")


def with_job(cluster: Cluster, gaffer: Commands, cmd: str) -> Cluster:
    for name in NAMES:
        with cluster.server(name) as server:
            server.load({"name": "web", "cmd": cmd, "ready": "exec:true"}, "shop")  # sooner than without a probe
    eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 3)
    return cluster


def numbers(cluster: Cluster, job: str = "shop.web", names: list[str] = NAMES) -> list[int]:
    found = []
    for name in names:
        with cluster.server(name) as server:
            found.append(server.get_job(job).numprocesses)
    return found


def has_stopped(server: Server) -> bool:
    return not server.pids()


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


def test_an_order_goes_to_all_nodes_with_the_job(gaffer: Commands, web: Cluster) -> None:
    ran = gaffer("scale", "shop.web=2", "--cluster")
    assert (ran.status, ran.err) == (0, "")
    assert lines(ran.out) == [f"{name}: shop.web: now running 2" for name in NAMES]
    assert numbers(web) == [2, 2, 2]
    ran = gaffer("--cluster", "disable", "shop.web", "--reason", "moving", "--yes")
    assert lines(ran.out) == [f"{name}: shop.web: disabled" for name in NAMES]
    ran = gaffer("--cluster", "enable", "shop.*", "--json")
    documents = [json.loads(line) for line in ran.out.splitlines()]
    assert {each["node"]: (each["job"], each["ok"]) for each in documents} == dict.fromkeys(NAMES, ("shop.web", True))
    with web.server("node3") as server:
        server.unload("shop.web")
    eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 2)
    ran = gaffer("--cluster", "unload", "shop", "--yes")
    assert lines(ran.out) == [f"{name}: shop.web: unloaded" for name in NAMES[:2]]
    eventually(lambda: gaffer("--cluster", "unload", "shop").status == 4)


def test_processes_of_all_nodes_are_signalled_stopped_and_started(gaffer: Commands, web: Cluster) -> None:
    ran = gaffer("kill", "shop.web", "URG", "--cluster", "--yes")
    assert lines(ran.out) == [f"{name}: shop.web: sent URG" for name in NAMES]
    assert gaffer("kill", "shop.web", "NOPE", "--cluster", "--yes").status == 1
    ran = gaffer("stop", "shop.web", "--cluster", "--yes")
    assert lines(ran.out) == [f"{name}: shop.web: stopping" for name in NAMES]
    eventually(lambda: gaffer("info", "shop.web", "--cluster").out.count(" stopped ") == 3)
    ran = gaffer("start", "shop.web", "--node", "node1", "--wait")
    assert ran.status == 0
    assert lines(ran.out) == ["node1: shop.web: started", "shop.web is ready on node1"]
    ran = gaffer("ps:start", "shop.web", "--cluster")
    assert lines(ran.out) == [f"{name}: shop.web: started" for name in NAMES]
    eventually(lambda: gaffer("info", "shop.web", "--cluster").out.count(" running ") == 3)


def test_nodes_are_chosen_by_name_id_and_label(gaffer: Commands, web: Cluster) -> None:
    ids = {node["name"]: node["id"] for node in json.loads(gaffer("lookup:nodes", "--json").out)["nodes"]}
    assert gaffer("scale", "shop.web=2", "--node", "node1", "--node", ids["node3"]).status == 0
    assert numbers(web) == [2, 1, 2]
    assert gaffer("scale", "shop.web=3", "--label", "zone=b").status == 0
    assert numbers(web) == [2, 3, 3]
    assert gaffer("scale", "shop.web=4", "--label", "zone=b", "--node", "node2").status == 0
    assert numbers(web) == [2, 4, 3]
    ran = gaffer("scale", "shop.web=5", "--label", "zone=c")
    assert (ran.status, ran.out) == (4, "")
    assert "gaffer lookup:nodes" in ran.err
    ran = gaffer("scale", "shop.web=5", "--node", "node22")
    assert (ran.status, ran.out) == (4, "")
    assert "'node2'" in ran.err
    assert gaffer("scale", "shop.web=5", "--label", "zone").status == 2
    ran = gaffer("--cluster", "recv", "shop.web")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "gaffer: `gaffer recv` does not act on several nodes",
        "  use --endpoint to choose one node, by its URL or name; `gaffer logs --follow` shows the output of several",
    ]
    for words, hint in (
        (["drain", "node1"], "  give the name of a node as an argument"),
        (["lookup:nodes"], "  omit --cluster, --node, --label"),
        (["key:new"], "  omit --cluster, --node, --label"),
        (["apps"], "  use --endpoint to choose one node, by its URL or name"),
    ):
        ran = gaffer("--cluster", *words)
        assert (ran.status, ran.err.splitlines()[1:]) == (2, [hint])
    assert gaffer("top", "--once", "--dry-run", "--node", "node1").status == 0  # changes nothing without a key
    assert gaffer("top", "--dry-run", "-g", web.nodes["node1"].url).status == 2
    assert numbers(web) == [2, 4, 3]
    ran = gaffer("scale", "shop.db=5", "--node", "node1", "--node", "node2")
    assert (ran.status, ran.out) == (4, "")
    assert "node1: shop.db" in ran.err
    assert "node2: shop.db" in ran.err


def test_jobs_of_all_nodes_are_listed(gaffer: Commands, web: Cluster) -> None:
    with web.server("node2") as server:
        server.load({"name": "db", "cmd": "sleep 1000", "numprocesses": 2}, "store")
    eventually(lambda: re.search(r"store.db +running +2/2", gaffer("ps", "--cluster").out))
    ran = gaffer("ps", "--cluster")
    header, *rows = ran.out.splitlines()
    assert header.split() == ["NODE", "JOB", "STATE", "RUNNING", "RESTARTS", "CPU", "MEM", "DETAILS"]
    assert [row.split()[:2] for row in rows] == [*([name, "shop.web"] for name in NAMES), ["node2", "store.db"]]
    assert "2/2" in rows[-1]
    assert gaffer("ps", "store", "--cluster").out.splitlines()[1:] == rows[-1:]
    document = json.loads(gaffer("ps", "--cluster", "--json").out)
    assert [node["node"] for node in document["nodes"]] == NAMES
    assert [[job["name"] for job in node["jobs"]] for node in document["nodes"]][1] == ["shop.web", "store.db"]


def test_failing_jobs_are_listed_first_also_of_a_node_that_does_not_answer(gaffer: Commands, web: Cluster) -> None:
    with web.server("node2") as server:
        server.load({"name": "bad", "cmd": "sh -c 'exit 3'"}, "store")
    why = "crash loop, .* exited with 3"
    eventually(
        lambda: re.search(f"node2 +store.bad +backoff +0/1 .*{why}.*; next start in", gaffer("ps", "--cluster").out)
    )
    eventually(
        lambda: re.search(why, str(requests.get(f"{web.registry.url}/findJob?name=store.bad", timeout=10).json()))
    )
    assert gaffer("ps", "--cluster").out.splitlines()[1].split()[:2] == ["node2", "store.bad"]
    with web.silent("node2"):
        ran = gaffer("ps", "--cluster", "--timeout=0.5")
        assert ran.status == 5
        assert re.search(rf"node2 +store.bad +\w+ +[01]/1 +\? .*{why}.*; last heard .* ago$", ran.out.splitlines()[1])
        assert re.search(r"node2 +shop.web +running +1/1 ", ran.out)
        document = json.loads(gaffer("ps", "--cluster", "--json", "--timeout=0.5").out)
        [silent] = [node for node in document["nodes"] if node["node"] == "node2"]
        assert {job["name"]: job["expected"] for job in silent["announced"]} == {"shop.web": 1, "store.bad": 1}


def test_a_node_that_is_gone_is_reported_and_the_others_do_it(gaffer: Commands, web: Cluster) -> None:
    with web.node("node4") as node:
        with web.server("node4") as server:
            server.load({"name": "web", "cmd": "sleep 1000"}, "shop")
        eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 4)
        node.kill()
        ran = gaffer("scale", "shop.web=2", "--cluster")
        assert ran.status == 5
        assert lines(ran.out) == [f"{name}: shop.web: now running 2" for name in NAMES]
        assert ran.err.startswith("gaffer: node4: can't reach")
        ran = gaffer("ps", "--cluster", "--json")
        nodes = json.loads(ran.out)["nodes"]
        assert ran.status == 5
        assert ["jobs" in node for node in nodes] == [True, True, True, False]
        assert nodes[3]["error"]["error"] == "unreachable"
        assert gaffer("scale", "shop.web=2", "--node", "node4").status == 3
        with web.node("node4", node.port):  # it is back, and leaves
            eventually(lambda: gaffer("scale", "shop.web=3", "--cluster").status == 0)


def test_a_node_that_hangs_is_not_awaited_longer_than_told(gaffer: Commands, web: Cluster) -> None:
    with web.silent("node1"):
        started = time.monotonic()
        ran = gaffer("scale", "shop.web=2", "--cluster", "--timeout", "0.5")
        assert time.monotonic() - started < 10
        assert ran.status == 5
        assert lines(ran.out) == [f"{name}: shop.web: now running 2" for name in ("node2", "node3")]
        assert "node1" in ran.err
        assert "no response within 0.5 s" in ran.err
    for wrong in ("0", "soon", "nan"):
        assert gaffer("scale", "shop.web=2", "--cluster", "--timeout", wrong).status == 2


def test_a_timeout_bounds_commands_that_may_wait_as_well(gaffer: Commands, web: Cluster) -> None:
    with web.silent("node1"):
        started = time.monotonic()
        ran = gaffer("start", "shop.web", "--node", "node1", "--node", "node2", "--timeout", "2")
        assert (ran.status, ran.out) == (5, "node2: shop.web: started\n")
        assert ran.err.startswith("gaffer: node1: can't reach")
        assert "no response within 2 s" in ran.err
        ran = gaffer("restart", "shop.web", "--wait", "-g", web.nodes["node1"].url, "--timeout", "2")
        assert ran.status == 3
        assert "no response within 2 s" in ran.err
        assert time.monotonic() - started < 25  # an answer takes up to 30 s otherwise


def test_no_lookup_to_choose_nodes_from(gaffer: Commands, closed: str) -> None:
    ran = gaffer("ps", "--cluster", "-L", closed)
    assert (ran.status, ran.out) == (3, "")
    assert "check that gaffer_lookupd is running" in ran.err


def test_a_lookup_that_hangs_does_not_delay_the_others(gaffer: Commands, web: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = f"http://127.0.0.1:{hung.getsockname()[1]}"
        started = time.monotonic()
        ran = gaffer("scale", "shop.web=2", "--cluster", "-L", f"{url},{web.registry.url}")
        assert time.monotonic() - started < 4  # less than the 5 s in which it could still answer
        assert (ran.status, len(ran.out.splitlines())) == (0, 3)
        assert f"warning: can't reach {url}" in ran.err


def test_what_is_destructive_is_confirmed(gaffer: Commands, web: Cluster, tmp_path: Path) -> None:
    ran = gaffer("restart", "shop.web", "--cluster")
    assert (ran.status, ran.out) == (2, "")
    assert "restart shop.web on 3 nodes (node1, node2, node3)" in ran.err
    assert "--yes" in ran.err
    assert gaffer("restart", "shop.web", "--node", "node1").status == 0  # one node
    ran = gaffer("unload", "shop", "--cluster", "--dry-run")
    assert ran.out.splitlines() == [f"{name}: shop.web: would unload" for name in NAMES]
    for answer, left in (("n", 3), ("", 3), ("y", 0)):
        words = [command_path("gaffer"), "unload", "shop", "--cluster"]
        terminal = Terminal(*words, cwd=tmp_path, GAFFER_LOOKUPD=web.registry.url)
        try:
            terminal.shows(r"unload shop\.\* on 3 nodes \(node1, node2, node3\)\? \[y/N\] ")
            terminal.type(f"{answer}\n")
            assert terminal.wait() == (1 if left else 0), terminal.text
            assert terminal.text.count("unloaded") == 3 - left
        finally:
            terminal.close()
    assert numbers_left(web) == []


def test_a_misspelled_job_is_answered_with_the_nearest_one(gaffer: Commands, gafferctl: Commands, web: Cluster) -> None:
    url = web.nodes["node1"].url
    of_gaffer = (
        *("scale shop.wep=2", "unload shop.wep", "logs shop.web shop.wep", "exec shop.wep", "exec shop.wep check"),
        *("start shop.wep", "kill shop.wep HUP", "exits shop.wep", "lookup:job shop.wep"),
        *("restart shop.wep --cluster", "logs shop.wep --cluster", "exits shop.wep --cluster"),
    )
    of_gafferctl = ("start", "stop", "add", "sub", "status", "running", "numprocesses", "pids", "get_process", "kill")
    for ran in (
        *(gaffer(*line.split(), "-g", url) for line in of_gaffer),
        *(gafferctl("--connect", url, word, "shop.wep", *(["HUP"] if word == "kill" else [])) for word in of_gafferctl),
    ):
        assert (ran.status, ran.err.splitlines()[1:]) == (4, ["  did you mean 'shop.web'?"]), ran
    for line in ("ps shpo --cluster", "lookup:session shpo", "unload shpo -g node1"):
        ran = gaffer(*line.split())
        assert (ran.status, ran.err.splitlines()[1:]) == (4, ["  did you mean 'shop'?"])


def test_commands_for_one_node_say_what_they_would_do(gaffer: Commands, web: Cluster) -> None:
    url = web.nodes["node1"].url
    changes = {"numprocesses": 2, "action": {"hello": "echo hello"}, "redirect_input": True}
    with web.server("node1") as server:
        server.update({"name": "web", "cmd": "sleep 1000", "ready": "exec:true", **changes}, "shop")
        eventually(lambda: len(server.get_job("shop.web").pids) == 2)
        before = server.get_job("shop.web").pids
    for line, what in {
        "scale shop.web+1": "shop.web: would scale +1",
        "start shop.web": "shop.web: would start",
        "stop shop.*": "shop.web: would stop",
        "kill shop.web HUP": "shop.web: would kill with HUP",
        "kill shop.web.2 KILL": "shop.web.2: would kill with KILL",
        f"stop {before[0]}": f"{before[0]}: would stop",
        "restart shop.web --rolling": "shop.web: would restart --rolling",
        "reload shop.web": "shop.web: would reload",
        "rollback shop.web": "shop.web: would rollback",
        "disable shop.web --reason=x": "shop.web: would disable",
        "enable shop.web": "shop.web: would enable",
        "commit shop.web": "shop.web: would commit",
        "exec shop.web hello": "shop.web: would exec hello",
        "send shop.web.1 hi": "shop.web.1: would send",
        "unload shop": "shop.web: would unload",
        "drain": "would drain, which stops 2 processes",
        "undrain": "would undrain, which changes nothing",
        "upgrade": "would upgrade from ",
        "key:create --scope=read": "would create a key with the scopes read",
    }.items():
        ran = gaffer(*line.split(), "--dry-run", "-g", url)
        assert (ran.status, ran.err) == (0, ""), line
        assert ran.out.startswith(f"{url}: {what}"), line
        assert ran.out.count("\n") == 1
    ran = gaffer("stop", "shop.web", "--dry-run", "--json", "-g", "node1")
    assert json.loads(ran.out) == {"node": "node1", "origin": url, "job": "shop.web", "would": "stop"}
    for line in ("stop shop.wep", "stop other.*", "kill shop.web.7 KILL", "stop 987654", "key:revoke abc"):
        ran = gaffer(*line.split(), "--dry-run", "-g", url)
        assert (ran.status, ran.out) == (4, ""), line
    assert gaffer("attach", "shop.web.1", "--dry-run", "-g", url).status == 2
    with web.server("node1") as server:
        assert server.get_job("shop.web").pids == before
        assert server.keys() == []
        assert not server.drained()["draining"]


def test_a_plan_of_an_application_for_one_node(
    gaffer: Commands, web: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Procfile").write_text("web: sleep 1000\nworker: sleep 1000\n")
    monkeypatch.chdir(tmp_path)
    ran = gaffer("load", "store", "-c", "web=3", "--dry-run", "-g", "node1")
    assert (ran.status, ran.out.splitlines()) == (0, ["NODE   web  worker", "node1  3    1"])
    assert gaffer("apps", "-g", "node1").out == "shop\n"
    ran = gaffer("load", "shop", "--dry-run", "-g", "node1")
    assert (ran.status, ran.out) == (1, "")
    assert "the job shop.web already exists; nothing was loaded" in ran.err
    (tmp_path / "shop.json").write_text('{"jobs": [{"name": "shop.web", "cmd": "sleep 1"}]}')
    (tmp_path / "store.json").write_text('{"jobs": [{"name": "store.db", "cmd": "sleep 1", "numprocesses": 2}]}')
    assert gaffer("load", "shop.json", "--dry-run", "-g", "node1").err == ran.err
    assert gaffer("load", "store.json", "--dry-run", "-g", "node1").out.split() == ["NODE", "db", "node1", "2"]
    ran = gaffer("start", "-c", "web=2", "-p", "9000", "--dry-run")
    assert ran.out == "web: would start 2 processes at port 9000\nworker: would start 1 process at port 9100\n"


def numbers_left(cluster: Cluster) -> list[str]:
    found = []
    for name in NAMES:
        with cluster.server(name) as server:
            found += server.jobs()
    return found


def test_a_rolling_restart_takes_one_node_after_the_other(gaffer: Commands, web: Cluster) -> None:
    def pids() -> list[list[int]]:
        found = []
        for name in NAMES:
            with web.server(name) as server:
                found.append(server.get_job("shop.web").pids)
        return found

    eventually(lambda: all(pids()))
    before = pids()
    ran = gaffer("restart", "shop.web", "--cluster", "--rolling", "--yes")
    done = [line for line in ran.out.splitlines() if "restarted in" in line]
    assert (ran.status, [line.partition(":")[0] for line in done]) == (0, NAMES)
    assert all(old != new for old, new in zip(before, pids(), strict=True))
    with web.server("node2") as server:
        server.update({"name": "web", "cmd": "sh -c 'exit 3'", "ready": "exec:false"}, "shop", rolling=False)
        eventually(lambda: server.get_job("shop.web").info()["last_exit"])
    middle = pids()
    ran = gaffer("restart", "shop.web", "--cluster", "--rolling", "--yes", "--timeout", "5")
    assert ran.status == 5
    assert "node2: shop.web" in ran.err
    assert "nothing was done on node3" in ran.err
    assert pids()[2] == middle[2]


def test_a_definition_is_rolled_back_everywhere(gaffer: Commands, web: Cluster) -> None:
    for name in NAMES[:2]:
        with web.server(name) as server:
            server.update({"name": "web", "cmd": "sleep 2000", "ready": "exec:true"}, "shop")
    ran = gaffer("rollback", "shop.web", "--cluster")
    assert ran.status == 5
    assert [line.partition(" in ")[0] for line in lines(ran.out)] == [
        f"{name}: shop.web: rolled back" for name in NAMES[:2]
    ]
    assert "node3: shop.web" in ran.err  # it has no earlier definition
    for name in NAMES:
        with web.server(name) as server:
            assert server.get_job("shop.web").info()["config"]["cmd"] == "sleep 1000"
    ran = gaffer("status", "--cluster", "--json")
    assert [job["name"] for node in json.loads(ran.out)["nodes"] for job in node["jobs"]] == ["shop.web"] * 3
    assert gaffer("status", "shop.web", "--node", "node1").out.count("shop.web") == 1


def test_what_was_done_before_a_node_was_lost_is_reported(gaffer: Commands, cluster: Cluster) -> None:
    with cluster.node("node7") as node:
        with cluster.server("node7") as server:
            server.load({"name": "a", "cmd": "sleep 1000"}, "many")
            server.load({"name": "b", "cmd": "sleep 1000", "reload_signal": "KILL"}, "many")
            eventually(lambda: len(server.pids()) == 2)
        eventually(lambda: gaffer("lookup:session", "many").out.count("alive") == 2)
        node.signal(signal.SIGSTOP)
        ran = gaffer("enable", "many.*", "--cluster", "--timeout", "0.3")
        node.signal(signal.SIGCONT)
        assert (ran.status, ran.out) == (3, "")
        assert ran.err.count("node7") == 1  # once, not for each job
        ran = gaffer("enable", "many.a", "many.nope", "--node", "node7")
        assert (ran.status, ran.out) == (5, "node7: many.a: enabled\n")


def test_a_start_waits_until_the_job_is_ready_anywhere(gaffer: Commands, cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    for name in NAMES:
        probe = f"exec:test -e {flag}" if name == "node2" else "exec:false"
        job = {"name": "web", "cmd": "sleep 1000", "start": False, "ready": probe, "ready_timeout": 600}
        with cluster.server(name) as server:
            server.load(job, "shop")
    eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 3)
    ran = gaffer("start", "shop.web", "--cluster", "--wait", "--timeout", "0.2")
    assert ran.status == 1
    assert "no process of shop.web is ready on any node after 0.2 s" in ran.err
    flag.touch()
    ran = gaffer("start", "shop.web", "--cluster", "--wait")
    assert ran.status == 0
    assert ran.out.endswith("shop.web is ready on node2\n")


def test_an_application_is_spread_over_the_nodes(
    gaffer: Commands, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Procfile").write_text("web: sleep 1000\nworker: sleep 1000\n")
    monkeypatch.chdir(tmp_path)
    ran = gaffer("load", "shop", "--spread", "web=5", "--dry-run")
    assert ran.status == 0
    plan = [line.split() for line in ran.out.splitlines()]
    assert plan[0] == ["NODE", "web", "worker"]
    assert plan[-1] == ["(all)", "5", "1"]
    assert numbers_left(cluster) == []
    ran = gaffer("load", "shop", "--spread", "web=5")
    assert ran.status == 0
    assert [line.split() for line in ran.out.splitlines()[:5]] == plan
    assert [line for line in lines(ran.out) if ":" in line] == [f"{name}: loaded and started shop" for name in NAMES]
    assert [
        [name, *map(str, each)]
        for name, *each in zip(NAMES, numbers(cluster), numbers(cluster, "shop.worker"), strict=True)
    ] == plan[1:4]
    eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 3)
    ran = gaffer("load", "shop", "--cluster")
    assert ran.status == 1
    assert "already loaded on node1, node2, node3" in ran.err
    assert gaffer("load", "shop.json", "--cluster").status == 2
    assert gaffer("load", "shop", "--spread", "webb=1").status == 2


def test_a_node_that_can_not_load_is_reported(
    gaffer: Commands, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Procfile").write_text("web: sleep 1000\n")
    monkeypatch.chdir(tmp_path)
    with cluster.silent("node3"):
        ran = gaffer("load", "shop", "--spread", "web=3", "--timeout", "0.5")
        assert ran.status == 5
        assert "node3: can't reach" in ran.err
        assert numbers(cluster, names=NAMES[:2]) == [1, 1]


def test_a_job_is_run_once_and_gets_a_line_on_chosen_nodes(gaffer: Commands, cluster: Cluster) -> None:
    for name in NAMES:
        with cluster.server(name) as server:
            job = {"name": "echo", "cmd": "cat", "redirect_input": True, "redirect_output": ["out"]}
            server.load({**job, "numprocesses": 2 if name == "node3" else 1}, "shop")
    eventually(lambda: gaffer("lookup:job", "shop.echo").out.count("alive") == 3)
    ran = gaffer("send", "shop.echo.1", "hello", "--node", "node1", "--node", "node2")
    assert (ran.status, ran.err) == (0, "")
    assert [line.partition(" to ")[0] for line in lines(ran.out)] == [f"{name}: shop.echo: sent" for name in NAMES[:2]]
    shown = [f"{name} shop.echo.1 | hello" for name in NAMES[:2]]
    eventually(lambda: lines(gaffer("logs", "shop.echo", "--cluster").out) == shown)
    ran = gaffer("send", "shop.echo", "hello", "--cluster")  # node3 has two
    assert (ran.status, len(lines(ran.out))) == (5, 2)
    assert "name one of them: echo.1, echo.2" in ran.err
    assert gaffer("send", "shop.echo.2", "hello", "--cluster").status == 5
    assert gaffer("send", "12", "hello", "--cluster").status == 2
    assert gaffer("send", "shop.echo", "-", "--cluster").status == 2
    ran = gaffer("commit", "shop.echo", "--label", "zone=b", "--json")
    documents = [json.loads(line) for line in ran.out.splitlines()]
    assert sorted((each["node"], each["ok"]) for each in documents) == [("node2", True), ("node3", True)]
    with cluster.server("node2") as server:
        assert server.get_job("shop.echo").info()["running_out"] == 1


def test_an_action_runs_on_all_nodes(gaffer: Commands, cluster: Cluster) -> None:
    for name in NAMES:
        status = 3 if name == "node2" else 0
        command = f"sh -c 'echo one; printf \"\\033[31mtwo\"; exit {status}'"
        with cluster.server(name) as server:
            server.load({"name": "web", "cmd": "sleep 1000", "action": {"check": command}}, "shop")
    eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 3)
    ran = gaffer("exec", "shop.web", "check", "--cluster")
    assert ran.status == 5
    shown = [line for name in NAMES for line in (f"{name} | one", f"{name} | \N{REPLACEMENT CHARACTER}[31mtwo")]
    assert [line for line in lines(ran.out) if "|" in line] == shown
    assert [line.partition(" in ")[0] for line in lines(ran.out) if "|" not in line] == [
        f"{name}: shop.web: check done" for name in ("node1", "node3")
    ]
    assert ran.err == "gaffer: node2: shop.web: action check ended with exit code 3\n"
    ran = gaffer("exec", "shop.web", "check", "--cluster", "--json")
    found = {document["node"]: document for document in map(json.loads, ran.out.splitlines())}
    assert [(found[name]["ok"], found[name]["exit_code"]) for name in NAMES] == [(True, 0), (False, 3), (True, 0)]
    assert all(found[name]["output"] == "one\n\x1b[31mtwo" for name in NAMES)
    ran = gaffer("exec", "shop.web", "--node", "node2")
    assert [line.split()[:3] for line in ran.out.splitlines()[1:]] == [["node2", "shop.web", "check"]]
    assert gaffer("exec", "shop.web", "cheque", "--cluster").status == 4
    head = ["sh", "-c", f"{command_path('gaffer')} exec shop.web check --cluster -L {cluster.registry.url} | head -1"]
    cut = subprocess.run(head, env=clean_env(), capture_output=True, text=True, timeout=50, check=False)
    assert (cut.stdout.count("\n"), cut.stderr) == (1, "")


def test_exits_and_history_of_all_nodes_are_merged_by_time(gaffer: Commands, cluster: Cluster) -> None:
    for name in ("node2", "node1", "node3"):
        with cluster.server(name) as server:
            job = {"name": "once", "cmd": "sh -c 'echo bye; exit 3'", "kind": "once", "restart": "never"}
            server.load(job, "shop")
            eventually(server.get_job("shop.once").exits)
    eventually(lambda: gaffer("lookup:job", "shop.once").out.count("alive") == 3)
    order = ["node3", "node1", "node2"]
    ran = gaffer("exits", "shop.once", "--cluster", "--verbose")
    header, *rows = ran.out.splitlines()
    assert (ran.status, ran.err, header.split()[:3]) == (0, "", ["WHEN", "NODE", "JOB"])
    assert [row.split()[2:4] for row in rows[::2]] == [[name, "shop.once"] for name in order]
    assert rows[1::2] == ["    bye"] * 3
    assert gaffer("exits", "shop.*", "--node", "node1", "--plain").out.split("\t")[1:3] == ["node1", "shop.once"]
    document = json.loads(gaffer("exits", "shop.once", "--cluster", "--json").out)
    assert [[each["exit_code"] for each in node["exits"]["shop.once"]] for node in document["nodes"]] == [[3]] * 3
    for words in (["shop.once"], ["shop.*", "--limit", "3"]):
        ran = gaffer("history", *words, "--cluster", "--since", "2m", "--plain")
        loads = [line.split("\t")[1] for line in ran.out.splitlines() if "POST" in line]
        assert loads == [name for name in order if name in loads]
        assert "shop.once" in ran.out
    assert len(gaffer("history", "--cluster", "--limit", "4", "--plain").out.splitlines()) == 4
    assert gaffer("exits", "shop.nope", "--cluster").status == 4
    with cluster.silent("node2"):
        for words in (["exits", "shop.once"], ["history", "shop.once"]):
            ran = gaffer(*words, "--cluster", "--timeout", "1")
            assert (ran.status, "node1" in ran.out, "node2: can't reach" in ran.err) == (5, True, True)


def test_logs_of_all_nodes_are_merged_and_tell_what_becomes_of_the_nodes(gaffer: Commands, cluster: Cluster) -> None:
    with_job(cluster, gaffer, TALK)
    expected = [f"{name} shop.web.1 | tick" for name in NAMES]
    eventually(lambda: lines(gaffer("logs", "shop.web", "--cluster", "-n", "1").out) == expected)
    # Standard error is read at the end, standard output as it comes: with --json all is on standard output.
    words = ("logs", "shop.web", "--cluster", "-f", "-n", "0", "--json", "-L", cluster.registry.url)
    with following("gaffer", *words) as running:

        def seen(node: str, field: str, value: str, start: int = 0) -> int:
            """The place behind the first line of a node with this value."""
            for index, line in enumerate(running.lines[start:], start + 1):
                document = json.loads(line)
                if (document["node"], document.get(field)) == (node, value):
                    return index
            return 0

        for name in NAMES:
            eventually(partial(seen, name, "line", "tick"))
        with cluster.node("node5") as node:
            with cluster.server("node5") as server:
                server.load({"name": "web", "cmd": TALK}, "shop")
            joined = eventually(lambda: seen("node5", "notice", "added"))
            eventually(lambda: seen("node5", "line", "tick", joined))
            node.kill()
            lost = eventually(lambda: seen("node5", "notice", "unreachable"))
            eventually(lambda: seen("node1", "line", "tick", lost))
            with cluster.node("node5", node.port):
                back = eventually(lambda: seen("node5", "notice", "back", lost), timeout=30)
                eventually(lambda: seen("node5", "line", "tick", back))
                assert not seen("node1", "notice", "unreachable")
                status, said = running.interrupt()
    assert (status, said) == (130, "")


def test_logs_say_who_has_none(gaffer: Commands, web: Cluster) -> None:
    with web.server("node1") as server:
        server.load({"name": "quiet", "cmd": "sleep 1000"}, "shop")
    with web.server("node3") as server:
        server.load({"name": "db", "cmd": "echo up"}, "shop")
    eventually(lambda: "node3 shop.db.1 | up" in gaffer("logs", "shop.db", "--cluster").out)
    assert gaffer("logs", "shop.quiet", "--node", "node1") == (0, "", "")
    ran = gaffer("logs", "shop.db", "--node", "node1", "--node", "node3", "-n", "1")
    assert (ran.status, ran.out) == (5, "node3 shop.db.1 | up\n")
    assert "node1: shop.db" in ran.err
    assert gaffer("logs", "shop.nope", "--cluster").status == 4


def test_events_of_all_nodes_are_merged_also_of_those_that_get_the_job_later(
    gaffer: Commands, cluster: Cluster
) -> None:
    for name in NAMES[:2]:
        with cluster.server(name) as server:
            server.load({"name": "web", "cmd": "sleep 1000"}, "shop")
    eventually(lambda: gaffer("lookup:job", "shop.web").out.count("alive") == 2)
    with following("gaffer", "events", "shop.web", "--cluster", "-L", cluster.registry.url, "--json") as running:

        def seen(node: str, kind: str) -> bool:
            documents = [json.loads(line) for line in running.lines]
            return any(each["node"] == node and each.get("event") == f"proc.shop.web.{kind}" for each in documents)

        def noticed(node: str, notice: str) -> bool:
            documents = [json.loads(line) for line in running.lines]
            return any((each["node"], each.get("notice")) == (node, notice) for each in documents)

        def restarted(name: str) -> bool:
            with cluster.server(name) as server:
                server.get_job("shop.web").restart()
            return seen(name, "exit")

        for name in NAMES[:2]:
            eventually(partial(restarted, name))
        with cluster.server("node3") as server:
            server.load({"name": "web", "cmd": "sleep 1000"}, "shop")
        eventually(lambda: restarted("node3"))
        # A node that dies loses its events: how many is told when it is back.
        with cluster.node("node6") as node:
            with cluster.server("node6") as server:
                server.load({"name": "web", "cmd": "sleep 1000"}, "shop")
            eventually(lambda: restarted("node6"))
            node.kill()
            eventually(lambda: noticed("node6", "unreachable"))
            with cluster.node("node6", node.port):
                eventually(lambda: noticed("node6", "back"), timeout=30)
                eventually(lambda: noticed("node6", "missed"))
                assert running.interrupt() == (130, "")


# What needs no cluster


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 40), max_size=4),
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 20), min_size=1, max_size=6),
)
def test_processes_are_spread_evenly(totals: dict[str, int], loads: dict[str, int]) -> None:
    plan = spread(totals, loads)
    assert plan.keys() == loads.keys()
    for name, total in totals.items():
        shares = [numbers[name] for numbers in plan.values()]
        assert sum(shares) == total
        assert max(shares) - min(shares) <= 1


def test_the_node_with_the_fewest_processes_gets_the_rest() -> None:
    assert spread({"web": 4, "job": 1}, {"a": 5, "b": 0, "c": 1}) == {
        "a": {"web": 1, "job": 0},
        "b": {"web": 2, "job": 1},
        "c": {"web": 1, "job": 0},
    }
    with pytest.raises(ValueError, match="no node"):
        spread({"web": 1}, {})


def test_only_so_many_nodes_are_asked_at_a_time() -> None:
    lock, asked, most = threading.Lock(), 0, 0
    full = threading.Barrier(4, timeout=10)

    def ask(member: int) -> int:
        nonlocal asked, most
        with lock:
            asked += 1
            most = max(most, asked)
        full.wait()
        with lock:
            asked -= 1
        if member % 2:
            raise errors.Unreachable("gone", url=str(member))
        return member

    found = dict(ask_all(range(20), ask, at_a_time=4))
    assert most == 4
    assert sorted(found) == list(range(20))
    assert all(isinstance(found[each], errors.Unreachable) if each % 2 else found[each] == each for each in found)


def test_a_copy_of_a_transport_goes_to_no_loopback_address_either() -> None:
    with answering_server() as node:
        node.answer("/watch/proc", "", 200)
        with Server(node.url) as server:
            server.transport.allow_loopback = False
            with server.transport.clone() as copy, pytest.raises(errors.UntrustedServer):
                copy.request("GET", "/")
            with pytest.raises(errors.UntrustedServer):
                next(server.get_watcher("proc").events())
        assert node.requests == []


def test_a_deadline_limits_all_requests_together() -> None:
    with answering_server() as node, Transport(node.url) as transport:
        node.answer("/ping", "OK")
        transport.deadline = time.monotonic() + 1000
        assert transport.request("GET", "/ping").body == b"OK"
        transport.deadline = time.monotonic() - 1
        with pytest.raises(errors.Unreachable):
            transport.request("GET", "/ping")
