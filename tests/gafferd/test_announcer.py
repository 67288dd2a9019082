"""The announcer: to real lookupds, to one of 0.5, and to some that misbehave."""

import asyncio
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import trustme
from tornado.web import Application, RequestHandler

from gaffer.errors import BadRequest
from gaffer.jobs.names import JobName, split_job_name
from gaffer.process import ProcessConfig
from gaffer.schemas.history import new_entry
from gaffer.schemas.messages import MAX_NODE_JOBS, MAX_REPORTED_JOBS, node_id
from gafferd.announce.announcer import DRAIN_TIMEOUT, STATES_INTERVAL, Announcer
from gafferd.announce.link import DEFAULT_WINDOW, MAX_WINDOW, OUTBOX_LIMIT, Link, reconnect_delay, websocket_url
from gafferd.state.identity import MAX_INCARNATION, Identity
from support.daemons import Daemon, gafferd, lookupd
from support.managers import running_manager
from support.other_lookupd import Answer, OtherLookupd, http_server, other_lookupd
from support.poll import eventually, eventually_async

OK: dict[str, Any] = {"ok": True}
WELCOME: dict[str, Any] = {"ok": True, "ttl": 3.0, "interval": 0.2, "epoch": "e", "reconnect_window": 0.1}
LOST = pytest.mark.expects_errors("reconnecting")
SECRET = "5f0d" * 16
ID = node_id(SECRET)
FAST = ("--ttl", "3", "--interval", "1")


def make_announcer(*addresses: str, **options: Any) -> Announcer:
    settings = {"name": "n1", "origin": "http://n1:5000", "identity": Identity(SECRET, 1), **options}
    return Announcer(addresses, **settings)


def link_of(announcer: Announcer) -> Link:
    (link,) = announcer._links
    return link


def nodes(server: Daemon) -> dict[str, str]:
    answer = requests.get(server.url + "/nodes", timeout=10).json()
    return {node["name"]: node["status"] for node in answer["nodes"]}


def source(server: Daemon, job: str) -> dict[str, Any] | None:
    """What lookupd answers about the job on the only node that has it, None when no node has."""
    sources = requests.get(server.url + f"/findJob?name={job}", timeout=10).json()["sources"]
    return sources[0] if sources else None


def node_info(server: Daemon, job: str) -> dict[str, Any]:
    """What lookupd tells of the only node that has the job."""
    found = source(server, job)
    assert found is not None, f"no node has {job}"
    info: dict[str, Any] = found["node_info"]
    return info


def pids(server: Daemon, job: str) -> list[int] | None:
    found = source(server, job)
    return None if found is None else found["pids"]


@pytest.fixture(scope="module")
def server() -> Iterator[Daemon]:
    with lookupd(*FAST) as running:
        yield running


# With a real manager and a real lookupd


@pytest.mark.row("LK-09", "LP-23", "LP-24")
def test_lookupd_follows_the_jobs_of_a_node(server: Daemon) -> None:
    announcer = make_announcer(server.url, labels={"zone": "a"})
    with running_manager([announcer], endpoint_host="10.0.0.7") as manager:
        manager.load(ProcessConfig("web", "sleep 1000", numprocesses=2, port="auto"), "shop")
        assert eventually(lambda: len(pids(server, "shop.web") or []) == 2)
        found = source(server, "shop.web")
        assert found is not None
        assert found["pids"] == sorted(manager.info("shop.web")["processes"])
        (endpoint,) = found["processes"][0]["endpoints"]
        assert (endpoint["name"], endpoint["address"]) == ("http", "10.0.0.7")
        node = found["node_info"]
        assert (node["name"], node["origin"], node["id"], node["incarnation"], node["labels"], node["status"]) == (
            "n1",
            "http://n1:5000",
            ID,
            1,
            {"zone": "a"},
            "alive",
        )
        first = found["pids"][0]
        os.kill(manager.get_process(first).os_pid, signal.SIGKILL)
        eventually(lambda: len(now := pids(server, "shop.web") or []) == 2 and first not in now)
        manager.scale("shop.web", "=1")
        eventually(lambda: len(pids(server, "shop.web") or []) == 1)
        manager.unload("shop.web")
        eventually(lambda: source(server, "shop.web") is None)
        assert announcer.status() == [{"address": server.url, "connected": True, "error": None}]
    eventually(lambda: "n1" not in nodes(server))


def test_a_node_that_stops_drains_first_and_leaves_last(server: Daemon) -> None:
    stubborn = "trap 'sleep 0.5; exit' TERM; while :; do sleep 0.1; done"
    with running_manager([make_announcer(server.url)]) as manager:
        manager.load(ProcessConfig("slow", "sh", args=["-c", stubborn]))
        eventually(lambda: pids(server, "default.slow"))
        manager.stop()
        eventually(lambda: nodes(server).get("n1") == "draining")
        assert pids(server, "default.slow") in ([], None)
        # It said goodbye: gone at once, not when its lease ends.
        eventually(lambda: "n1" not in nodes(server), timeout=2.5)
    answer = requests.get(server.url + "/nodes", timeout=10).json()
    assert {"id": ID, "incarnation": 1, "reason": "left"}.items() <= answer["tombstones"][-1].items()


@LOST
def test_a_lookupd_that_restarts_empty_has_the_full_map_within_two_seconds() -> None:
    with lookupd(*FAST) as server, running_manager([make_announcer(server.url)]) as manager:
        manager.load(ProcessConfig("a", "sleep 1000", numprocesses=2))
        manager.load(ProcessConfig("b", "sleep 1000"))
        eventually(lambda: len(pids(server, "default.a") or []) == 2 and pids(server, "default.b"))
        before = pids(server, "default.a"), pids(server, "default.b")
        server.kill()
        with lookupd("--bind", f"127.0.0.1:{server.port}", *FAST) as again:
            eventually(
                lambda: (pids(again, "default.a"), pids(again, "default.b")) == before,
                timeout=2,
                message="lookupd does not have the full map",
            )


@LOST
def test_a_lookupd_that_comes_up_later_is_found_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gafferd")
    with lookupd() as server:
        pass
    announcer = make_announcer(server.url)
    with running_manager([announcer]) as manager:
        manager.load(ProcessConfig("a", "sleep 1000"))
        eventually(lambda: announcer.status()[0]["error"])
        assert announcer.status()[0]["connected"] is False
        # Some more attempts fail in the same way.
        deadline = manager.loop.time() + 1.5
        eventually(lambda: manager.loop.time() > deadline)
        with lookupd("--bind", f"127.0.0.1:{server.port}") as again:
            eventually(lambda: pids(again, "default.a"))
            assert announcer.status() == [{"address": server.url, "connected": True, "error": None}]
            assert caplog.text.count("reconnecting") == 1


@LOST
def test_a_lookupd_that_stands_still_is_left_and_found_again() -> None:
    with lookupd(*FAST) as server:
        announcer = make_announcer(server.url)
        with running_manager([announcer]) as manager:
            manager.load(ProcessConfig("a", "sleep 1000"))
            eventually(lambda: pids(server, "default.a"))
            server.signal(signal.SIGSTOP)
            eventually(lambda: not announcer.status()[0]["connected"], timeout=5)
            manager.scale("default.a", "=2")
            server.signal(signal.SIGCONT)
            eventually(lambda: len(pids(server, "default.a") or []) == 2)
            assert nodes(server) == {"n1": "alive"}


@pytest.mark.expects_errors("cluster key required")
def test_a_wrong_cluster_key_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "key"
    key.write_text("right")
    key.chmod(0o600)
    with lookupd("--cluster-key-file", str(key)) as server:
        good, bad = make_announcer(server.url, cluster_key="right"), make_announcer(server.url, cluster_key="wrong")
        with running_manager([good, bad]):
            eventually(lambda: good.status()[0]["connected"] and bad.status()[0]["error"])
            assert "--cluster-key-file" in (bad.status()[0]["error"] or "")
    assert f"lookupd {server.url}: 401" in caplog.text


@pytest.mark.expects_errors("Connection refused")
def test_a_refused_connection_is_explained() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        announcer = make_announcer(f"http://127.0.0.1:{closed.getsockname()[1]}")
        with running_manager([announcer]):
            eventually(lambda: announcer.status()[0]["error"] == "Connection refused")


@pytest.mark.row("LP-25")
def test_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert")
    authority.cert_pem.write_to_path(tmp_path / "ca")
    with lookupd("--certfile", str(tmp_path / "cert")) as server:
        announcer = make_announcer(server.url, ssl=ssl.create_default_context(cafile=tmp_path / "ca"))
        with running_manager([announcer]):
            eventually(lambda: announcer.status()[0]["connected"])


@LOST
async def test_a_host_that_can_not_be_found_is_told() -> None:
    async with announcing("http://a..b:5010") as (announcer, _):
        await eventually_async(lambda: announcer.status()[0]["error"])


def test_every_lookupd_is_told_the_same() -> None:
    with lookupd() as one, lookupd() as two, running_manager([make_announcer(one.url, two.url)]) as manager:
        manager.load(ProcessConfig("a", "sleep 1000"))
        for server in (one, two):
            eventually(partial(pids, server, "default.a"))
        assert node_info(one, "default.a")["seq"] == node_info(two, "default.a")["seq"]


# With the installed gafferd


def load(node: Daemon, name: str) -> None:
    body = {"name": name, "cmd": "sleep 1000"}
    assert requests.post(f"{node.url}/jobs/default", json=body, timeout=10).status_code == 200


def test_a_killed_node_is_suspect_at_once_expires_and_comes_back_under_its_id(server: Daemon, tmp_path: Path) -> None:
    options = ("--lookupd-address", server.url, "--node-name", "victim")
    with gafferd(*options, state_dir=tmp_path) as node:
        load(node, "killed")
        eventually(lambda: pids(server, "default.killed"))
        first = node_info(server, "default.killed")
        node.kill()
        eventually(lambda: nodes(server).get("victim") == "suspect", timeout=1)
        assert pids(server, "default.killed")
        eventually(lambda: "victim" not in nodes(server), timeout=5)
        assert pids(server, "default.killed") is None
    with gafferd(*options, state_dir=tmp_path) as node:
        load(node, "again")
        eventually(lambda: pids(server, "default.again"))
        second = node_info(server, "default.again")
        assert second["id"] == first["id"]
        assert second["incarnation"] > first["incarnation"]


def test_a_node_that_stands_still_longer_than_its_ttl_is_back_soon_after(server: Daemon) -> None:
    with gafferd("--lookupd-address", server.url, "--node-name", "sleeper") as node:
        load(node, "asleep")
        eventually(lambda: pids(server, "default.asleep"))
        node.signal(signal.SIGSTOP)
        try:
            eventually(lambda: nodes(server).get("sleeper") == "suspect", timeout=3)
            eventually(lambda: "sleeper" not in nodes(server), timeout=5)
        finally:
            node.signal(signal.SIGCONT)
        eventually(lambda: pids(server, "default.asleep"), timeout=2)


# With tables of the test's own


class JobIndex:
    """What the announcer needs of a manager."""

    def __init__(self) -> None:
        self.handing_over = False
        self.table: dict[str, dict[int, SimpleNamespace]] = {}
        self.callbacks: list[Callable[[], object]] = []
        self.listeners: list[Callable[[JobName], object]] = []
        self.asked: list[set[str] | None] = []
        self.states: dict[str, SimpleNamespace] = {}

    def announced(self, among: Collection[JobName] | None = None) -> dict[str, dict[int, SimpleNamespace]]:
        asked = None if among is None else set(map(str, among))
        self.asked.append(asked)
        return {job: pids for job, pids in self.table.items() if asked is None or job in asked}

    def announced_states(self, among: Collection[JobName] | None = None) -> dict[JobName, SimpleNamespace]:
        names = self.states if among is None else [str(name) for name in among if str(name) in self.states]
        return {JobName(*split_job_name(name)): self.states[name] for name in names}

    def state(self, job: str, state: str, reason: str | None = None, expected: int = 1) -> None:
        """Have this state of a job of the session s."""
        self.states[f"s.{job}"] = SimpleNamespace(state=state, reason=reason, expected=expected)
        for listener in self.listeners:
            listener(JobName("s", job))
        for callback in self.callbacks:
            callback()

    def on_job_change(self, callback: Callable[[JobName], object]) -> None:
        self.listeners.append(callback)

    def off_job_change(self, callback: Callable[[JobName], object]) -> None:
        self.listeners.remove(callback)

    def on_change(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def off_change(self, callback: Callable[[], object]) -> None:
        self.callbacks.remove(callback)

    def set(self, **jobs: Any) -> None:
        """Have these jobs, `name=[pid, ...]` in the session s, or `name={pid: state}`."""
        before, self.table = (
            self.table,
            {
                f"s.{job}": {
                    pid: SimpleNamespace(state=pids[pid] if isinstance(pids, dict) else "ready", endpoints=[])
                    for pid in pids
                }
                for job, pids in jobs.items()
            },
        )
        for job in before.keys() | self.table.keys():
            if before.get(job) != self.table.get(job):
                for listener in self.listeners:
                    listener(JobName(*split_job_name(job)))
        for callback in self.callbacks:
            callback()


@asynccontextmanager
async def announcing(*addresses: str, **options: Any) -> AsyncIterator[tuple[Announcer, JobIndex]]:
    announcer, tables = make_announcer(*addresses, **options), JobIndex()
    announcer.start(asyncio.get_running_loop(), tables)
    try:
        yield announcer, tables
    finally:
        await announcer.stop()


def welcome(message: dict[str, Any]) -> dict[str, Any]:
    """The answers of a lookupd that has leases."""
    return WELCOME if message["type"] == "IDENTIFY" else OK


def connected(announcer: Announcer) -> Awaitable[bool]:
    return eventually_async(lambda: announcer.status()[0]["connected"])


@pytest.mark.row("LP-20")
async def test_an_address_given_twice_gets_one_connection() -> None:
    async with (
        other_lookupd(lambda message: OK) as lookup,
        announcing(lookup.url, lookup.url + "/", lookup.url) as (announcer, _),
    ):
        await connected(announcer)
        assert len(announcer.status()) == 1
        assert len(lookup.connections) == 1


@pytest.mark.row("LP-20")
@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://h:5010", "ws://h:5010/ws"),
        ("https://h:5010/", "wss://h:5010/ws"),
        ("h:5010", "ws://h:5010/ws"),
        ("http://[::1]:5010", "ws://[::1]:5010/ws"),
    ],
)
def test_the_websocket_of_an_address(address: str, url: str) -> None:
    assert websocket_url(address) == url


@pytest.mark.parametrize("address", ["ftp://h:5010", "http://", "", "http://h:99999", "http://h:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadRequest):
        make_announcer(address)


@pytest.mark.row("LP-21", "LP-23", "LP-24")
async def test_a_lookupd_of_0_5_gets_the_six_types_only() -> None:
    async with other_lookupd(lambda message: OK) as lookup, announcing(lookup.url) as (announcer, tables):
        tables.set(web=[1, 2], idle=[])
        await eventually_async(lambda: len(lookup.messages) == 5)
        assert lookup.messages[0].items() >= {"name": "n1", "origin": "http://n1:5000", "version": "0.1"}.items()
        tables.set(web={1: "draining", 2: "ready", 3: "starting"}, idle=[])
        await announcer.drain()
        tables.set(web={2: "draining", 3: "ready", 4: "ready"}, idle=[])
        announcer.resume()
        tables.set(idle=[])
        await eventually_async(lambda: lookup.types()[-1] == "UNREGISTER_JOB")
        await announcer.leave()
        said = [(m["type"], m["job_name"], m.get("pid")) for m in lookup.messages[1:]]
        assert said == [
            ("REGISTER_JOB", "s.web", None),
            ("REGISTER_PROCESS", "s.web", 1),
            ("REGISTER_PROCESS", "s.web", 2),
            ("REGISTER_JOB", "s.idle", None),
            ("UNREGISTER_PROCESS", "s.web", 1),
            ("REGISTER_PROCESS", "s.web", 3),
            *[("UNREGISTER_PROCESS", "s.web", pid) for pid in (1, 2, 3)],
            ("UNREGISTER_PROCESS", "s.web", 2),
            ("UNREGISTER_PROCESS", "s.web", 1),
            ("REGISTER_PROCESS", "s.web", 3),
            ("REGISTER_PROCESS", "s.web", 4),
            ("UNREGISTER_JOB", "s.web", None),
        ]
        known = {"msgid", "type", "job_name", "pid"}
        assert all(message.keys() <= known for message in lookup.messages[1:])
        assert all(message["msgid"] for message in lookup.messages)


@LOST
async def test_after_a_lost_connection_a_lookupd_of_0_5_is_told_everything_again() -> None:
    refusals = iter([{"errno": 404, "reason": None}])

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        return next(refusals, OK) if message["type"] == "REGISTER_PROCESS" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (_, tables):
        tables.set(web=[1])
        await eventually_async(lambda: len(lookup.connections) == 2 and len(lookup.messages) == 3)
        assert lookup.types() == ["IDENTIFY", "REGISTER_JOB", "REGISTER_PROCESS"]


async def test_a_connection_begins_with_a_snapshot_and_goes_on_with_numbered_changes() -> None:
    async with other_lookupd(welcome) as lookup:
        async with announcing(lookup.url) as (_, tables):
            tables.set(web=[1])
            await eventually_async(lambda: "SNAPSHOT" in lookup.types())
            tables.set(web=[1, 2])
            await eventually_async(lambda: "REGISTER_PROCESS" in lookup.types())
        snapshot, change = lookup.messages[1:3]
        assert (snapshot["seq"], snapshot["jobs"]) == (2, {"s.web": [{"pid": 1, "state": "ready", "endpoints": []}]})
        assert (change["seq"], change["pid"]) == (3, 2)


@pytest.mark.row("LP-22")
async def test_it_pings_with_its_number_and_sends_a_snapshot_when_asked() -> None:
    asked = iter([{"ok": True, "resync": True}])

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["type"] == "IDENTIFY":
            return WELCOME
        return next(asked, OK) if message["type"] == "PING" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (_, tables):
        tables.set(web=[1])
        await eventually_async(lambda: lookup.types().count("PING") >= 2)
        assert lookup.types()[:5] == ["IDENTIFY", "SNAPSHOT", "PING", "SNAPSHOT", "PING"]
        assert [m["seq"] for m in lookup.messages if m["type"] == "PING"][:2] == [2, 2]


@LOST
async def test_a_ping_without_an_answer_for_one_interval_means_reconnect_at_once() -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        return {"IDENTIFY": {**WELCOME, "reconnect_window": 1000.0}, "PING": None}.get(message["type"], OK)

    async with other_lookupd(answer) as lookup, announcing(lookup.url):
        await eventually_async(lambda: len(lookup.connections) >= 4, timeout=6 * WELCOME["interval"] + 2)
        assert [messages[-1]["type"] for messages in lookup.connections[:3]] == ["PING"] * 3


async def test_a_lookupd_can_not_make_a_node_send_pings_without_end() -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        return {**WELCOME, "interval": 1e-9, "ttl": 1e308} if message["type"] == "IDENTIFY" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url):
        await eventually_async(lambda: lookup.types().count("PING") >= 3)
        assert len(lookup.connections) == 1
        assert lookup.types().count("PING") < 10


@LOST
async def test_a_long_reason_of_a_lookupd_is_shortened() -> None:
    refusal = {"errno": 409, "reason": "x" * 1_000_000}
    async with other_lookupd(lambda message: refusal) as lookup, announcing(lookup.url) as (announcer, _):
        error = await eventually_async(lambda: announcer.status()[0]["error"])
        assert error.startswith("refused message 'identify': 409 xxx")
        assert len(error) < 400


@LOST
async def test_a_node_that_drained_says_so_after_a_reconnect() -> None:
    pings = iter([None])

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["type"] == "IDENTIFY":
            return WELCOME
        return next(pings, OK) if message["type"] == "PING" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, _):
        await connected(announcer)
        await announcer.quiesce()
        await eventually_async(lambda: len(lookup.connections) == 2 and "SNAPSHOT" in lookup.types())
        assert "DRAIN" in [message["type"] for message in lookup.connections[0]]
        assert lookup.messages[1]["draining"] is True


async def test_draining_waits_until_the_lookupds_have_answered() -> None:
    released: list[bool] = []

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["type"] == "DRAIN":
            return OK if released else None
        return welcome(message)

    clock = asyncio.get_running_loop().time
    async with (
        other_lookupd(answer) as slow,
        other_lookupd(welcome) as quick,
        announcing(slow.url, quick.url) as (announcer, _),
    ):
        await eventually_async(lambda: all(status["connected"] for status in announcer.status()))
        begin = clock()
        await announcer.drain()
        assert clock() - begin >= DRAIN_TIMEOUT
        released.append(True)
        begin = clock()
        await announcer.drain()
        assert clock() - begin < DRAIN_TIMEOUT
        assert [lookup.types().count("DRAIN") for lookup in (slow, quick)] == [2, 2]


async def test_a_node_that_takes_work_again_says_so_with_a_snapshot() -> None:
    async with other_lookupd(welcome) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        await announcer.drain()
        tables.set(web=[1])
        announcer.resume()
        await eventually_async(lambda: lookup.types().count("SNAPSHOT") == 2)
        assert "draining" not in lookup.messages[-1]


@pytest.mark.parametrize(
    ("window", "chance", "delay"),
    [(DEFAULT_WINDOW, 0.25, 0.25), (8.0, 0.5, 4.0), (0.0, 0.9, 0.0), (1000.0, 0.5, MAX_WINDOW / 2)],
)
def test_nodes_that_connect_again_spread_over_the_window(window: float, chance: float, delay: float) -> None:
    assert reconnect_delay(window, chance) == delay


@LOST
async def test_the_window_is_the_one_it_was_told_last() -> None:
    answers = iter([{"ok": True, "reconnect_window": 0.0}])

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["type"] == "IDENTIFY":
            return {**WELCOME, "reconnect_window": 1000.0}
        return next(answers, None) if message["type"] == "PING" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url):
        await eventually_async(lambda: len(lookup.connections) >= 2, timeout=2)


@LOST
async def test_the_window_that_a_lookupd_tells_is_kept() -> None:
    """With none, twenty attempts take no time; those of a window of 1 s would take ten."""

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        return {"IDENTIFY": {**WELCOME, "reconnect_window": 0.0}}.get(message["type"], {"errno": 500, "reason": "no"})

    async with other_lookupd(answer) as lookup, announcing(lookup.url):
        await eventually_async(lambda: len(lookup.connections) >= 20, timeout=4)


@LOST
async def test_it_ends_at_any_moment_of_a_connection_that_fails() -> None:
    """At each pass of the loop after a refusal something else is under way, and after 40 the next one has come."""
    refused = asyncio.Event()

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["type"] == "IDENTIFY":
            return {**WELCOME, "reconnect_window": 0.0}
        refused.set()
        return {"errno": 500, "reason": "no"}

    async with other_lookupd(answer) as lookup:
        for passes in range(40):
            refused.clear()
            async with announcing(lookup.url) as (announcer, _):
                await refused.wait()
                for _ in range(passes):
                    await asyncio.sleep(0)
                async with asyncio.timeout(5):
                    await announcer.stop()


@LOST
async def test_more_changes_than_can_wait_are_replaced_by_a_snapshot() -> None:
    async with other_lookupd(welcome) as lookup, announcing(lookup.url) as (_, tables):
        await eventually_async(lambda: "SNAPSHOT" in lookup.types())
        tables.set(web=list(range(1, OUTBOX_LIMIT + 10)))
        await eventually_async(lambda: len(lookup.connections) == 2 and "SNAPSHOT" in lookup.types())
        assert len(lookup.messages[1]["jobs"]["s.web"]) == OUTBOX_LIMIT + 9


@LOST
async def test_a_refused_identity_is_told_and_tried_again() -> None:
    answers = iter([{"errno": 409, "reason": "identity_exists"}])
    async with other_lookupd(lambda message: next(answers, OK)) as lookup, announcing(lookup.url) as (announcer, _):
        await eventually_async(lambda: "identity_exists" in (announcer.status()[0]["error"] or ""))
        await connected(announcer)


BAD_HANDSHAKES = [
    (b"HTTP/1.1 101 x\r\n\r\n", "not a websocket handshake"),
    (
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        "not a websocket handshake",
    ),
    (b"HTTP/1.1 200 OK\r\n" + 100 * (b"X-A: " + 1000 * b"a" + b"\r\n"), "too large"),
]


@LOST
@pytest.mark.parametrize(("said", "error"), BAD_HANDSHAKES, ids=["bare", "wrong key", "large"])
async def test_a_bad_handshake_is_told_and_tried_again(said: bytes, error: str) -> None:
    visits = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(said)
        await reader.read()  # until it closes
        writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, announcing(url) as (announcer, _):
        await eventually_async(lambda: error in (announcer.status()[0]["error"] or ""))
        await eventually_async(lambda: len(visits) >= 2)


class Nested(RequestHandler):
    """Answers with JSON that nests too deeply to be read."""

    def get(self) -> None:
        self.set_status(409)
        self.finish("[" * 100_000)


@LOST
@pytest.mark.parametrize(("handlers", "error"), [([], "404"), ([("/ws", Nested)], "409")])
async def test_a_server_that_is_no_lookupd_is_told(
    handlers: list[tuple[str, type[RequestHandler]]], error: str
) -> None:
    async with http_server(Application(handlers)) as url, announcing(url) as (announcer, _):
        await eventually_async(lambda: error in (announcer.status()[0]["error"] or ""))


async def test_leaving_waits_for_the_answer() -> None:
    async with other_lookupd(welcome) as lookup, announcing(lookup.url) as (announcer, _):
        await connected(announcer)
        await announcer.leave()
        assert lookup.types()[-1] == "LEAVE"
        assert announcer.status()[0]["connected"] is False


async def test_draining_and_leaving_are_numbered_changes() -> None:
    async with other_lookupd(welcome) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        tables.set(web=[])
        await announcer.drain()
        announcer.resume()
        await eventually_async(lambda: lookup.types().count("SNAPSHOT") == 2)
        await announcer.leave()
        told = [(message["type"], message.get("seq")) for message in lookup.messages if message["type"] != "PING"]
        assert told[1:] == [("SNAPSHOT", 0), ("REGISTER_JOB", 1), ("DRAIN", 2), ("SNAPSHOT", 3), ("LEAVE", 4)]


# Identity


async def test_a_node_proves_its_id() -> None:
    async with other_lookupd(welcome) as lookup, announcing(lookup.url) as (announcer, _):
        await connected(announcer)
        assert (lookup.messages[0]["id"], lookup.messages[0]["proof"]) == (ID, SECRET)


@pytest.mark.expects_errors("continuing from start", "reconnecting")
async def test_a_node_goes_past_a_later_incarnation_that_a_lookupd_has_heard_of() -> None:
    """On the same connection; the other lookupd hears of it, too."""
    saved: list[int] = []

    def knows_of(latest: int) -> Answer:
        def answer(message: dict[str, Any]) -> dict[str, Any] | None:
            if message["type"] == "IDENTIFY" and message["incarnation"] < latest:
                return {"errno": 409, "reason": f"stale_incarnation: the node has started {latest} times since"}
            return welcome(message)

        return answer

    async with (
        other_lookupd(welcome) as first,
        other_lookupd(knows_of(7)) as second,
        announcing(first.url, second.url, identity=Identity(SECRET, 1, saved.append)) as (announcer, _),
    ):

        def incarnations(lookup: OtherLookupd) -> list[int]:
            return [m["incarnation"] for messages in lookup.connections for m in messages if m["type"] == "IDENTIFY"]

        await eventually_async(lambda: incarnations(first)[-1:] == incarnations(second)[-1:] == [8])
        await eventually_async(lambda: all(status["connected"] for status in announcer.status()))
        assert incarnations(second) == [1, 8]
        assert saved == [8]


@LOST
@pytest.mark.parametrize("latest", [MAX_INCARNATION, 9223372036854775807])
async def test_a_lookupd_can_not_push_the_incarnation_out_of_range(latest: int) -> None:
    refusal = {"errno": 409, "reason": f"stale_incarnation: {latest}"}
    identity = Identity(SECRET, 3)
    async with other_lookupd(lambda _: refusal) as lookup, announcing(lookup.url, identity=identity) as (announcer, _):
        await eventually_async(lambda: "stale_incarnation" in (announcer.status()[0]["error"] or ""))
        assert identity.incarnation == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "n" * 256},
        {"name": "n\n1"},
        {"origin": "unix:/run/gafferd.sock"},
        {"origin": "http://[fe80::1%eth0]:5000"},
        {"labels": {"zone": "a" * 1025}},
        {"labels": {str(number): "" for number in range(65)}},
        {"labels": {str(number): "a" * 1000 for number in range(40)}},
    ],
)
def test_what_no_lookupd_takes_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        make_announcer("http://127.0.0.1:5010", **wrong)


# Refused changes


@pytest.mark.expects_errors("refused job s.bad")
async def test_a_job_that_a_lookupd_refuses_does_not_hold_up_the_others() -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message.get("job_name") == "s.bad":
            return {"errno": 413, "reason": "too_many_jobs"}
        return welcome(message)

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        tables.set(bad=[1], web=[2])
        await eventually_async(lambda: lookup.types().count("SNAPSHOT") == 2)
        assert lookup.messages[-1]["jobs"].keys() == {"s.web"}
        (status,) = announcer.status()
        assert status["connected"]
        assert status["error"] == "job s.bad is not announced: 413 too_many_jobs"
        tables.set(bad=[1, 3], web=[2], more=[])
        await eventually_async(lambda: lookup.messages[-1].get("job_name") == "s.more")
        tables.set(web=[2], more=[])
        assert announcer.status()[0]["error"] is None
        assert len(lookup.connections) == 1


@pytest.mark.expects_errors("not announcing 2 jobs")
async def test_more_jobs_than_a_lookupd_takes_are_left_out_and_said() -> None:
    async with other_lookupd(welcome) as lookup:
        announcer, tables = make_announcer(lookup.url), JobIndex()
        tables.set(**{f"j{number}": [] for number in range(MAX_NODE_JOBS + 2)})
        announcer.start(asyncio.get_running_loop(), tables)
        await eventually_async(lambda: "SNAPSHOT" in lookup.types())
        assert len(lookup.messages[1]["jobs"]) == MAX_NODE_JOBS
        assert "(and 1 more)" in (announcer.status()[0]["error"] or "")
        tables.set(**{f"j{number}": [] for number in range(2, MAX_NODE_JOBS + 2)})
        await eventually_async(lambda: lookup.types().count("SNAPSHOT") == 2)
        assert len(lookup.messages[-1]["jobs"]) == MAX_NODE_JOBS
        assert announcer.status()[0]["error"] is None
        await announcer.stop()


# Work that is not done


async def test_without_lookupds_it_asks_the_manager_nothing() -> None:
    tables = JobIndex()
    make_announcer().start(asyncio.get_running_loop(), tables)
    assert (tables.asked, tables.callbacks, tables.listeners) == ([], [], [])


async def test_it_looks_at_changed_jobs_only() -> None:
    async with other_lookupd(welcome) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        tables.set(web=[1], db=[2])
        tables.set(web=[1, 3], db=[2])
        tables.set(web=[1, 3])
        await eventually_async(lambda: "UNREGISTER_JOB" in lookup.types())
        assert tables.asked == [None, {"s.web", "s.db"}, {"s.web"}, {"s.db"}]


# Reports


def reports(lookup: OtherLookupd) -> list[dict[str, Any]]:
    return [message for message in lookup.messages if message["type"] == "REPORT"]


@pytest.mark.expects_errors("reconnecting", "state directory restored")
async def test_events_are_reported_once_to_each_start_of_a_lookupd() -> None:
    epochs = ["e"]

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {**WELCOME, "epoch": epochs[-1], "reports": True} if message["type"] == "IDENTIFY" else OK

    def events() -> list[str]:
        return [event["action"] for report in reports(lookup) for event in report.get("events", [])]

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, _):
        await connected(announcer)
        for number in range(60):
            announcer.report(new_entry(1.0, "job", f"event {number}", job="s.web", address="10.0.0.1"))
        announcer.report(new_entry(1.0, "login", "POST"))
        newest = [f"event {number}" for number in range(60)]
        await eventually_async(lambda: events() == newest)
        assert "10.0.0.1" not in str(lookup.messages)
        (link,) = reports(lookup)[0]["lookupds"]
        assert (link["address"], link["connected"], link["epoch"]) == (lookup.url, True, "e")
        await eventually_async(lambda: link_of(announcer)._acknowledged == 60)
        announcer._outgrow(5)  # reconnects
        await eventually_async(lambda: len(lookup.connections) == 2 and reports(lookup) != [])
        assert events() == []
        epochs.append("f")
        announcer._outgrow(6)
        await eventually_async(lambda: len(lookup.connections) == 3 and events() == newest[-50:])
        assert [report["first"] for report in reports(lookup) if "events" in report] == [10]


@pytest.mark.parametrize("number", ["", "x", "-1", "1e3", "999", "9" * 900])
async def test_a_reply_to_a_report_that_was_not_sent_means_nothing(number: str) -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] == "REPORT":
            return {**OK, "msgid": f"report {number}"}
        return {**WELCOME, "reports": True} if message["type"] == "IDENTIFY" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        announcer.report(new_entry(1.0, "job", "event"))
        tables.set(web=[1])
        await eventually_async(lambda: "REGISTER_PROCESS" in lookup.types())
        await eventually_async(lambda: link_of(announcer)._answered > 0)
        assert (len(lookup.connections), link_of(announcer)._acknowledged) == (1, 0)


@pytest.mark.expects_errors("refused a report, which is not repeated: 413 full")
async def test_a_refused_report_ends_no_connection() -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] == "REPORT":
            return {"errno": 413, "reason": "full"}
        return {**WELCOME, "reports": True} if message["type"] == "IDENTIFY" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        await eventually_async(lambda: len(reports(lookup)) == 1 and not link_of(announcer)._takes_reports)
        announcer.report(new_entry(1.0, "job", "event"))
        tables.set(web=[1])
        await eventually_async(lambda: "REGISTER_PROCESS" in lookup.types())
        assert (len(reports(lookup)), len(lookup.connections)) == (1, 1)


def told(lookup: OtherLookupd) -> list[dict[str, Any]]:
    """The states of jobs that each report has."""
    return [jobs for report in reports(lookup) if (jobs := report.get("jobs"))]


async def test_a_crash_loop_is_reported_at_most_once_a_second() -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {**WELCOME, "reports": True} if message["type"] == "IDENTIFY" else OK

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        tables.set(web=[], db=[])
        tables.state("db", "running")
        began, reason = time.monotonic(), ""
        for crashes in range(300):
            reason = f"crash loop, {crashes} times in a row"
            tables.state("web", "starting" if crashes % 2 else "backoff", reason)
            await asyncio.sleep(0.001)
        tables.state("web", "backoff", reason)
        last = {"state": "backoff", "reason": reason, "expected": 1}
        await eventually_async(lambda: bool(told(lookup)) and told(lookup)[-1].get("s.web") == last)
        assert len(told(lookup)) <= (time.monotonic() - began) / STATES_INTERVAL + 2
        assert sum("s.db" in jobs for jobs in told(lookup)) == 1


async def test_states_are_reported_again_when_a_lookupd_has_lost_them() -> None:
    resync = [False]

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] == "PING" and resync[0]:
            resync[0] = False
            return {**OK, "resync": True}
        return {**WELCOME, "reports": True} if message["type"] == "IDENTIFY" else OK

    def states() -> list[str]:
        return [jobs["s.web"]["state"] for jobs in told(lookup) if "s.web" in jobs]

    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        tables.set(web=[])
        tables.state("web", "failed", "given up")
        await eventually_async(lambda: states() == ["failed"])
        resync[0] = True
        await eventually_async(lambda: states() == ["failed"] * 2)
        assert lookup.types().index("REPORT", lookup.types().index("SNAPSHOT", 2)) > 2
        tables.set()
        tables.set(web=[])  # the lookupd has forgotten the job in between
        tables.state("web", "failed", "given up")
        await eventually_async(lambda: states() == ["failed"] * 3)


async def test_more_jobs_than_a_report_takes_are_several_reports() -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {**WELCOME, "reports": True} if message["type"] == "IDENTIFY" else OK

    async with other_lookupd(answer) as lookup:
        announcer, tables = make_announcer(lookup.url), JobIndex()
        for number in range(MAX_REPORTED_JOBS + 1):
            tables.state(f"j{number}", "running")
        announcer.start(asyncio.get_running_loop(), tables)
        await eventually_async(lambda: [len(jobs) for jobs in told(lookup)] == [MAX_REPORTED_JOBS, 1])
        await announcer.stop()


async def test_a_crash_loop_that_ends_without_an_event_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {**WELCOME, "reports": True} if message["type"] == "IDENTIFY" else OK

    monkeypatch.setattr("gafferd.announce.announcer.STATES_REVIEW", 0.2)
    async with other_lookupd(answer) as lookup, announcing(lookup.url) as (announcer, tables):
        await connected(announcer)
        tables.state("web", "running", "crash loop, 3 times in a row")
        await eventually_async(lambda: len(told(lookup)) == 1)
        tables.states["s.web"] = SimpleNamespace(state="running", reason=None, expected=1)
        await eventually_async(lambda: len(told(lookup)) == 2)
        assert told(lookup)[1]["s.web"] == {"state": "running", "reason": None, "expected": 1}
