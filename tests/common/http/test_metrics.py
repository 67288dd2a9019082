"""/metrics, and the format it is written in."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.http.access import ALL_SCOPES, Grant, make_policy
from gaffer.http.exposition import Family, Histogram
from gaffer.schemas.bodies import WebhookState
from gaffer.streams.rings import Cursor
from support.http_node import HttpNode, open_exchange, running_node, script, sleeper
from support.metrics import Samples, parse_metrics
from support.needs import needs_prometheus
from support.poll import eventually_async


async def scrape(node: HttpNode, key: str = "") -> Samples:
    answer = await node.call("GET", "/metrics", headers={"X-Api-Key": key})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse_metrics(answer.body.decode())


def sample(samples: Samples, name: str, **labels: str) -> float:
    """The value of the sample that has these labels, among others."""
    [value] = [
        value for (found, having), value in samples.items() if found == name and frozenset(labels.items()) <= having
    ]
    return value


async def test_jobs_are_counted_by_the_state_of_their_processes(node: HttpNode) -> None:
    for job in (
        sleeper("web", numprocesses=2, startsecs=0),
        sleeper("new", startsecs=1000),
        sleeper("idle", start=False),
        script("bad", "exit(1)", backoff=60),
    ):
        await node.call("POST", "/jobs/shop", job)
    await eventually_async(lambda: node.manager.info("shop.bad")["state"] == "backoff")
    await eventually_async(lambda: len(node.manager.running) == 3)
    samples = await scrape(node)
    web = {"session": "shop", "job": "web"}
    assert sample(samples, "gaffer_job_processes", **web, state="ready") == 2
    assert sample(samples, "gaffer_job_processes", **web, state="stopping") == 0
    assert sample(samples, "gaffer_job_processes", session="shop", job="new", state="ready") == 0
    assert sample(samples, "gaffer_job_processes", session="shop", job="new", state="starting") == 1
    assert sample(samples, "gaffer_job_processes", session="shop", job="idle", state="ready") == 0
    assert sample(samples, "gaffer_job_processes", session="shop", job="bad", state="backoff") == 1
    assert sample(samples, "gaffer_job_wanted_processes", **web) == 2


async def test_restarts_are_counted(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", script("bad", "exit(1)", backoff=0, startsecs=0))
    await eventually_async(lambda: node.manager.info("bad")["restarts"] >= 2)
    assert sample(await scrape(node), "gaffer_job_restarts_total", session="default", job="bad") >= 2


async def test_what_processes_use_is_told(node: HttpNode) -> None:
    await node.call("POST", "/jobs/shop", script("busy", "x = bytearray(30_000_000)\nwhile True: pass"))
    await node.call("POST", "/jobs/shop", sleeper("idle"))
    await eventually_async(lambda: len(node.manager.running) == 2)
    busy, idle = node.manager.running.values()
    of_busy = {"session": "shop", "job": "busy", "slot": "1", "pid": str(busy.pid)}

    async def at_work() -> bool:
        return sample(await scrape(node), "gaffer_process_cpu_seconds_total", **of_busy) >= 0.2

    await eventually_async(at_work)
    samples = await scrape(node)
    cpu = sum(psutil.Process(busy.os_pid).cpu_times()[:2])
    assert sample(samples, "gaffer_process_cpu_seconds_total", **of_busy) == pytest.approx(cpu, abs=1)
    resident = psutil.Process(busy.os_pid).memory_info().rss
    assert sample(samples, "gaffer_process_resident_memory_bytes", **of_busy) == pytest.approx(resident, rel=0.2)
    assert sample(samples, "gaffer_process_cpu_seconds_total", pid=str(idle.pid)) < 0.2


async def test_what_readers_lost_is_counted(node: HttpNode) -> None:
    code = "import os, time\nfor _ in range(20): os.write(1, b'x' * 65536)\ntime.sleep(1000)"
    await node.call("POST", "/jobs/default", script("loud", code, redirect_output=["out"]))
    await eventually_async(lambda: node.manager.running)
    [process] = node.manager.running.values()
    ring = process.ring("out")
    await eventually_async(lambda: ring.end == 20 * 65536)
    assert sample(await scrape(node), "gaffer_feed_dropped_bytes_total") == 0
    piece = await Cursor(ring, 0).next()
    assert piece is not None
    assert piece.gap > 0
    assert sample(await scrape(node), "gaffer_feed_dropped_bytes_total") == piece.gap
    await node.call("DELETE", "/jobs/default/loud")
    await eventually_async(lambda: not node.manager.running)
    assert sample(await scrape(node), "gaffer_feed_dropped_bytes_total") == piece.gap


async def test_requests_are_timed_by_route(node: HttpNode) -> None:
    await node.call("POST", "/jobs/shop", sleeper("web"))
    for name in ("web", "nope", "none"):
        await node.call("GET", f"/jobs/shop/{name}")
    await node.call("GET", "/no/such/path")
    await node.call("BREW", "/ping")
    samples = await scrape(node)

    def count(method: str, route: str, status: int) -> float:
        labels = {"method": method, "route": route, "status": str(status)}
        name = "gaffer_http_request_duration_seconds"
        total = sample(samples, f"{name}_count", **labels)
        assert sample(samples, f"{name}_bucket", **labels, le="+Inf") == total
        assert 0 < sample(samples, f"{name}_sum", **labels) < 10
        return total

    assert count("POST", "/jobs/{sid}", 200) == 1
    assert count("GET", "/jobs/{sid}/{job}", 200) == 1
    assert count("GET", "/jobs/{sid}/{job}", 404) == 2
    assert count("GET", "other", 404) == 1
    assert count("other", "/ping", 405) == 1


async def test_feeds_are_not_timed_but_counted_while_they_last(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper("web", redirect_output=["out"]))
    await eventually_async(lambda: node.manager.running)
    [pid] = node.manager.running
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous")
    assert sample(await scrape(node), "gaffer_http_feeds") == 1
    feed.close()

    async def feeds() -> bool:
        return sample(await scrape(node), "gaffer_http_feeds") == 0

    await eventually_async(feeds)
    assert (await node.call("GET", f"/streams/{pid}/out?after=0&heartbeat=0.1")).status == 200
    assert (await node.call("GET", f"/streams/{pid}/nope")).status == 404
    of_feed = [dict(labels) for _, labels in await scrape(node) if ("route", "/streams/{pid}/{label}") in labels]
    assert {labels["status"] for labels in of_feed} == {"404"}


@pytest.fixture
async def keyed() -> AsyncIterator[HttpNode]:
    keys = {"all": Grant(ALL_SCOPES), "blog": Grant(ALL_SCOPES, frozenset({"blog"}))}
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=keys.get)
    async with running_node(access=policy) as node:
        yield node


async def test_a_key_for_a_session_gets_the_metrics_of_its_jobs(keyed: HttpNode) -> None:
    for session in ("blog", "shop"):
        await keyed.call("POST", f"/jobs/{session}", sleeper("web"), {"X-Api-Key": "all"})
    await eventually_async(lambda: len(keyed.manager.running) == 2)

    async def sessions(key: str) -> set[str]:
        samples = await scrape(keyed, key)
        return {
            dict(labels)["session"] for name, labels in samples if name.startswith(("gaffer_job", "gaffer_process"))
        }

    assert await sessions("all") == {"blog", "shop"}
    assert await sessions("blog") == {"blog"}


async def test_the_node_tells_of_itself() -> None:
    def lookupds() -> list[dict[str, object]]:
        return [
            {"address": "http://a:5010", "connected": True, "error": None},
            {"address": "http://b:5010", "connected": False, "error": "nobody answers"},
        ]

    def webhooks() -> list[WebhookState]:
        hook = WebhookState(
            url="http://a/", pending=1, dropped=2, delivered=3, failed=4, unsaved=5, last_error="it responds with 500"
        )
        return [hook, hook]

    async with running_node(lookupds=lookupds, webhooks=webhooks) as node:
        idle = await open_exchange(node.address, "GET", "/ping")
        samples = await scrape(node)
        idle.close()
    assert sample(samples, "gaffer_build_info") == 1
    assert 0 <= sample(samples, "gaffer_uptime_seconds") < 60
    assert sample(samples, "gaffer_http_connections") == 2  # the one of this scrape, and one that is idle
    assert sample(samples, "gaffer_http_connections_refused_total") == 0
    assert sample(samples, "gaffer_lookupd_connected", address="http://a:5010") == 1
    assert sample(samples, "gaffer_lookupd_connected", address="http://b:5010") == 0
    # Two URLs that differ in their queries only.
    assert sample(samples, "gaffer_webhook_deliveries_total", url="http://a/", outcome="delivered") == 6
    assert sample(samples, "gaffer_webhook_unsaved_total", url="http://a/") == 10
    assert sample(samples, "gaffer_webhook_deliveries_total", url="http://a/", outcome="failed") == 8
    assert sample(samples, "gaffer_webhook_dropped_total", url="http://a/") == 4
    assert sample(samples, "gaffer_webhook_pending", url="http://a/") == 2


@needs_prometheus
async def test_prometheus_finds_nothing_to_complain_of(node: HttpNode) -> None:
    await node.call("POST", "/jobs/shop", sleeper("web"))
    await eventually_async(lambda: node.manager.running)
    text = (await node.call("GET", "/metrics")).body
    done = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# The format

ANY = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(st.sampled_from(["a", "b", "le"]), ANY), st.floats(allow_nan=False) | st.integers())
def test_labels_and_values_survive(labels: dict[str, str], value: float) -> None:
    family = Family("metric", "gauge", "A\nhelp \\ text.")
    family.add(value, labels)
    help_line, type_line, rest = family.render().split("\n", 2)
    assert (help_line, type_line) == (r"# HELP metric A\nhelp \\ text.", "# TYPE metric gauge")
    assert parse_metrics(rest) == {("metric", frozenset(labels.items())): float(value)}


@given(st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.1, 1.0, 7.0])))
def test_a_histogram_counts_what_is_at_most_as_long_as_each_bucket(durations: list[float]) -> None:
    histogram = Histogram("took", "How long.", ["route"], buckets=(0.01, 0.1, 1.0))
    for seconds in durations:
        histogram.observe(("/",), seconds)
    samples = parse_metrics(histogram.collect().render())
    for limit in (0.01, 0.1, 1.0, float("inf")) if durations else ():
        bucket = sample(samples, "took_bucket", le=str(limit).replace("inf", "+Inf").removesuffix(".0"))
        assert bucket == sum(seconds <= limit for seconds in durations)
    assert sum(value for (name, _), value in samples.items() if name == "took_count") == len(durations)
    assert sum(value for (name, _), value in samples.items() if name == "took_sum") == pytest.approx(sum(durations))
