"""`gaffer why`: what is odd about the answers, and the command against real daemons."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from gaffer.schemas.common import ProcessState
from gaffer.schemas.lookup import AgedNodeInfo, JobSource
from gaffer_client import Lookup, Server
from gaffer_client.merge import View, node_key
from gaffer_client.why import Inquiry, Report, findings
from support.client import Commands
from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually

JOB = "s.j"


def node(name: str = "web1", **more: Any) -> AgedNodeInfo:
    info = {"name": name, "origin": f"http://{name}:5000", "version": "0.1", "id": name, "incarnation": 1, "seq": 5}
    return {**info, "status": "alive", "age_ms": 300, "draining": False, "conflict": False, **more}  # type: ignore


def source(
    info: AgedNodeInfo, *pids: int, state: ProcessState = "ready", job: str | None = None, reason: str | None = None
) -> JobSource:
    return {
        "name": info["name"],
        "pids": list(pids) if state != "draining" else [],
        "status": "alive",
        "age_ms": 300,
        "node_info": info,
        "processes": [{"pid": pid, "state": state, "endpoints": []} for pid in pids],
        "state": job,
        "reason": reason,
        "expected": None if job is None else 1,
    }


def view(url: str, *sources: JobSource, others: tuple[AgedNodeInfo, ...] = (), **more: Any) -> View:
    return View(url, [*(each["node_info"] for each in sources), *others], {JOB: list(sources)}, **more)


def itself(info: AgedNodeInfo, *pids: int, state: str = "running", reason: str | None = None, **more: Any) -> Report:
    job: Any = {"processes": list(pids), "state": state, "reason": reason}
    link = {"address": "http://lookup", "connected": True, "error": None}
    return Report(info, **{"job": job, "lookupds": [link], **more})


def crashing(reason: str, output: str, exit_reason: str = "exited") -> Report:
    report = itself(WEB1, 1, reason=reason)
    last: Any = {"exit_code": 3, "term_signal": 0, "reason": exit_reason, "uptime": 2.0, "output": output}
    assert report.job is not None
    return report._replace(job={**report.job, "last_exit": last})


def detailed(**more: Any) -> Report:
    report = itself(WEB1, 1, 2)
    job: Any = {**(report.job or {}), **more}
    return report._replace(job=job)


WEB1, WEB2 = node("web1"), node("web2")
WELL = view("one", source(WEB1, 1, 2))


@pytest.mark.parametrize(
    ("views", "failures", "reports", "expected"),
    [
        pytest.param([WELL], {}, [itself(WEB1, 2, 1)], [], id="all is well"),
        pytest.param([WELL, view("two", source(WEB1, 2, 1))], {}, [itself(WEB1, 1, 2)], [], id="two agree"),
        pytest.param([WELL], {"two": "refused"}, [], ["two did not respond: refused"], id="a lookup is gone"),
        pytest.param(
            [],
            {"one": "refused"},
            [],
            ["one did not respond: refused", "no lookup responded: the nodes of the cluster are unknown"],
            id="all lookups are gone",
        ),
        pytest.param(
            [view("one", source(WEB1, 1), stale=True)],
            {},
            [],
            ["one has lost contact with most nodes: its data may be outdated"],
            id="stale",
        ),
        pytest.param(
            [view("one", others=(WEB1,))], {}, [Report(WEB1)], ["no lookup lists a node with s.j"], id="nobody"
        ),
        pytest.param(
            [view("one", others=(WEB1,))],
            {},
            [itself(WEB1, 1, lookupds=[{"address": "http://lookup", "connected": False, "error": "refused"}])],
            [
                "no lookup lists a node with s.j",
                "web1 has it, but no lookup lists it",
                "web1 is not connected to http://lookup: refused",
            ],
            id="only the node knows",
        ),
        pytest.param(
            [view("one", source(node(status="suspect", age_ms=12_000), 1))],
            {},
            [Report(WEB1, error="can't reach http://web1:5000: timed out")],
            [
                "web1 has been silent for 12.0 s: it is suspect and will be removed when its lease expires",
                "web1 did not respond: can't reach http://web1:5000: timed out",
            ],
            id="suspect",
        ),
        pytest.param(
            [view("one", source(node(status="draining", draining=True), 1, state="draining"))],
            {},
            [itself(WEB1)],
            [
                "web1 is being drained: its processes are out of service",
                "no process is ready on web1: 1 draining",
            ],
            id="draining",
        ),
        pytest.param(
            [view("one", source(WEB1, 1, state="starting"))],
            {},
            [itself(WEB1, 1)],
            ["no process is ready on web1: 1 starting"],
            id="starting",
        ),
        pytest.param(
            [view("one", source(WEB1))],
            {},
            [itself(WEB1, state="backoff", reason="it crashes")],
            [
                "web1 has the job, but no process in service",
                "web1 reports that the job is in backoff: it crashes",
            ],
            id="it crashes",
        ),
        pytest.param(
            [view("one", source(WEB1, job="backoff", reason="it crashes"))],
            {},
            [Report(WEB1, error="timed out")],
            [
                "web1 has the job, but no process in service",
                "web1 announced that the job is in backoff: it crashes",
                "web1 did not respond: timed out",
            ],
            id="it crashes, as its node announced",
        ),
        pytest.param(
            [view("one", source(WEB1, 1))],
            {},
            [
                crashing(
                    "crash loop, 3 times in a row: the last process exited with 3 after 2.0 s", "a\nb\nc\nno config\n"
                )
            ],
            [
                "web1 reports that the job is running: crash loop, 3 times in a row: the last process exited with 3"
                " after 2.0 s; last lines of output: b / c / no config",
            ],
            id="it runs and crashes again and again",
        ),
        pytest.param(
            [view("one", source(WEB1, 1))],
            {},
            [crashing("process 1 is not ready: connection refused", "bye\n", "max_lifetime")],
            ["web1 reports that the job is running: process 1 is not ready: connection refused"],
            id="the last exit has nothing to do with it",
        ),
        pytest.param(
            [view("one", source(WEB1))],
            {},
            [itself(WEB1, state="stopped", reason="disabled until 2017-07-14 04:40:00 UTC: moved")],
            [
                "web1 has the job, but no process in service",
                "web1 reports that the job is disabled until 2017-07-14 04:40:00 UTC: moved",
            ],
            id="it is disabled",
        ),
        pytest.param(
            [view("one", source(WEB1))],
            {},
            [itself(WEB1, state="waiting", reason="waiting for s.db, which is stopped: start it")],
            [
                "web1 has the job, but no process in service",
                "web1 reports that the job is waiting for s.db, which is stopped: start it",
            ],
            id="it waits for another job",
        ),
        pytest.param(
            [view("one", source(WEB1))],
            {},
            [itself(WEB1, state="completed", reason="the last process exited with 0 after 2.0 s")],
            [
                "web1 has the job, but no process in service",
                "web1 reports that the job is completed: the last process exited with 0 after 2.0 s",
            ],
            id="it has completed",
        ),
        pytest.param(
            [view("one", source(WEB1, 1, 2))],
            {},
            [
                detailed(
                    reason="process 1 is not ready: refused",
                    instances=[
                        {"pid": 1, "state": "starting", "probe_error": "refused"},
                        {"pid": 2, "state": "starting", "probe_error": "answered 500"},
                        {"pid": 3, "state": "ready", "probe_error": None},
                    ],
                )
            ],
            [
                "web1 reports that the job is running: process 1 is not ready: refused",
                "web1 reports that process 2 is starting: answered 500",
            ],
            id="two processes are not ready",
        ),
        pytest.param(
            [view("one", source(WEB1, 1, 2))],
            {},
            [
                detailed(
                    rollout={"kind": "update", "state": "failed", "processes": 2, "replaced": 1, "reason": "slow"},
                )
            ],
            ["web1 reports: rolling update stopped, 1 of 2 processes replaced: slow"],
            id="its update has stopped",
        ),
        pytest.param(
            [
                view(
                    "one",
                    source(node(conflict=True), 1),
                    others=(node(id="other", origin="http://10.0.0.2:5000", conflict=True),),
                )
            ],
            {},
            [],
            ["2 nodes are named web1: http://10.0.0.2:5000, http://web1:5000"],
            id="conflict",
        ),
        pytest.param([WELL, view("two")], {}, [], ["two does not list web1"], id="a lookup does not know the node"),
        pytest.param(
            [WELL, view("two", others=(node(seq=3),))],
            {},
            [],
            ["two lists web1, but not with the job: it has change 3 of the node, others have change 5"],
            id="a lookup is behind about the job",
        ),
        pytest.param(
            [WELL, view("two", source(node(incarnation=0, seq=9), 7))],
            {},
            [],
            ["two lists 7 for web1: it has start 0 of the node, others have start 1"],
            id="a lookup is behind about the start",
        ),
        pytest.param(
            [WELL, view("two", source(WEB1, 1))], {}, [], ["two lists 1 for web1"], id="lookups differ without a reason"
        ),
        pytest.param(
            [
                view("one", source(node("web2", status="suspect"), 1)),
                view("two", tombstones=[{"id": "web2", "incarnation": 1, "seq": 5, "reason": "left"}]),
            ],
            {},
            [],
            ["no lookup lists a node with s.j", "one still lists web2, which is gone according to two (left)"],
            id="a node that left",
        ),
        pytest.param(
            [View("one", tombstones=[{"id": "a", "incarnation": 1, "seq": 1, "reason": "expired"}])],
            {},
            [],
            [
                "no lookup lists a node with s.j",
                "one recently dropped nodes that may have had it: a",
            ],
            id="a node that expired",
        ),
        pytest.param(
            [WELL],
            {},
            [Report(WEB1)],
            [
                "web1 reports no such job",
                "web1 does not announce its jobs to any lookup",
            ],
            id="the node has no such job",
        ),
        pytest.param([WELL], {}, [itself(WEB1, 3)], ["web1 reports 3, the lookups list 1 2"], id="other processes"),
    ],
)
def test_findings(views: list[View], failures: dict[str, str], reports: list[Report], expected: list[str]) -> None:
    told = {node_key(report.node): report for report in reports}
    assert findings(Inquiry(JOB, views, failures, told)) == expected


@pytest.fixture(scope="module")
def registries() -> Iterator[list[Daemon]]:
    with lookupd("--ttl", "20", "--interval", "0.2") as one, lookupd("--ttl", "20", "--interval", "0.2") as two:
        yield [one, two]


def states(lookup: Lookup) -> list[str]:
    """The states of the processes of shop.web."""
    sources = lookup.find_job("shop.web")["sources"]
    return [process["state"] for source in sources for process in source["processes"]]


@pytest.fixture(scope="module")
def node_(registries: list[Daemon]) -> Iterator[Daemon]:
    addresses = [word for each in registries for word in ("--lookupd-address", each.url)]
    with gafferd(*addresses, "--node-name", "web1") as node, Server(node.url) as server:
        server.load({"name": "web", "cmd": "sleep 1000", "startsecs": 0}, "shop")
        with Lookup([each.url for each in registries]) as lookup:
            eventually(lambda: states(lookup) == ["ready"] and len(lookup.jobs()["lookups"]["agree"]) == 2)
        yield node


ALL_IS_WELL = "All lookups and nodes agree; no problems found."


def test_all_is_well(gaffer: Commands, registries: list[Daemon], node_: Daemon) -> None:
    one, two = (registry.url for registry in registries)
    ran = gaffer("-L", f"{one},{two}", "why", "shop.web")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["NODE", "ACCORDING", "TO", "STATE", "AGE", "JOB", "PROCESSES"]
    assert sorted(line.split()[:3] for line in lines[1:3]) == sorted([["web1", one, "alive"], ["web1", two, "alive"]])
    assert all(line.endswith("1 ready") for line in lines[1:3])
    assert lines[5].split() == ["web1", node_.url, "running:", "1"]
    assert lines[-1] == ALL_IS_WELL


def test_a_process_that_runs_once_is_named_by_lookups_and_node_alike(
    gaffer: Commands, registries: list[Daemon], node_: Daemon
) -> None:
    with Server(node_.url) as server:
        job = server.load({"name": "batch", "cmd": "sleep 1000"}, "shop")
        job.commit()
        eventually(lambda: job.running == 2)
        addresses = ",".join(each.url for each in registries)
        eventually(lambda: gaffer("-L", addresses, "why", "shop.batch").out.splitlines()[-1] == ALL_IS_WELL)
        server.unload("shop.batch")


def test_documents(gaffer: Commands, registries: list[Daemon], node_: Daemon, closed: str) -> None:
    url = registries[0].url
    ran = gaffer("-L", f"{url},{closed}", "why", "shop.web", "--json")
    document = json.loads(ran.out)
    assert (ran.status, document["name"], document["sources"][0]["pids"]) == (0, "shop.web", [1])
    assert [(each["url"], each["error"]) for each in document["lookups"]] == [
        (url, None),
        (closed, f"can't reach {closed}: connection refused"),
    ]
    [asked] = document["nodes"]
    assert (asked["job"]["state"], asked["error"]) == ("running", None)
    assert {link["address"] for link in asked["lookupds"]} == {registry.url for registry in registries}
    assert document["findings"] == [f"{closed} did not respond: can't reach {closed}: connection refused"]


def test_a_job_that_nobody_has(gaffer: Commands, registries: list[Daemon], node_: Daemon) -> None:
    ran = gaffer("-L", registries[0].url, "why", "shop.wep")
    assert ran.status == 4
    assert ran.out.splitlines()[0] == "- no lookup lists a node with shop.wep"
    assert "shop.web" in ran.out.splitlines()[1]


def test_no_lookup_answers(gaffer: Commands, closed: str) -> None:
    ran = gaffer("-L", closed, "why", "shop.web")
    assert ran.status == 3
    assert "no lookup responded" in ran.out
    assert gaffer("-L", closed, "why", "a b").status == 2


def test_a_node_that_hangs(gaffer: Commands, registries: list[Daemon], node_: Daemon, monkeypatch: Any) -> None:
    monkeypatch.setattr("gaffer_client.cli.inquiry._NODE_TIMEOUT", 0.2)
    node_.signal(signal.SIGSTOP)
    try:
        with Lookup(registries[0].url) as lookup:
            eventually(lambda: [node["status"] for node in lookup.nodes()["nodes"]] == ["suspect"])
        ran = gaffer("-L", registries[0].url, "why", "shop.web")
    finally:
        node_.signal(signal.SIGCONT)
    assert ran.status == 0
    assert "- web1 has been silent for " in ran.out
    assert f"- web1 did not respond: can't reach {node_.url}: no response within 0.2 s" in ran.out


def test_without_a_lookup_the_node_of_this_host_is_asked(gaffer: Commands, closed: str, node_: Daemon) -> None:
    with Server(node_.url) as server:
        server.load({"name": "crash", "cmd": "sh", "args": ["-c", "echo boom >&2; exit 3"]}, "shop")
        eventually(lambda: server.get_job("shop.crash").info()["last_exit"])
    ran = gaffer("-L", closed, "-g", node_.url, "why", "shop.crash")
    assert ran.status == 3
    assert f"- {node_.url} reports that the job is in backoff: the last process exited with 3" in ran.out
    assert "; last lines of output: boom\n" in ran.out
    ran = gaffer("-L", closed, "-g", node_.url, "why", "shop.nope")
    assert f"- {node_.url} has no such job" in ran.out
    ran = gaffer("-L", closed, "-g", closed, "why", "shop.web")
    assert f"- {closed} did not respond: can't reach {closed}" in ran.out
