"""`GET /search` on lookupd: the nodes of the cluster and their jobs, and the changes of what was found."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from gaffer.schemas.messages import Endpoint, JobReport, LookupLink, Process, Report
from gaffer_lookupd.lease import Lease
from gaffer_lookupd.records import Node
from support.http_node import Exchange, open_exchange
from support.other_lookupd import http_server
from support.poll import eventually_async
from support.served_lookup import ServedLookup


@pytest.fixture
async def served() -> AsyncIterator[ServedLookup]:
    lookup = ServedLookup()
    async with http_server(lookup.application) as lookup.url:
        yield lookup


def announce(served: ServedLookup, node: Node, **jobs: list[Process]) -> None:
    tables = served.registry.tables
    tables.replace(node, node.seq + 1, {f"shop.{name}": processes for name, processes in jobs.items()})


async def search(served: ServedLookup, query: str = "", status: int = 200) -> dict[str, Any]:
    exchange = await open_exchange(served.url, "GET", f"/search?{query}")
    try:
        found: dict[str, Any] = json.loads(await exchange.read_all())
    finally:
        exchange.close()
    assert exchange.status == status, found
    return found


async def keys(served: ServedLookup, query: str = "") -> list[str]:
    return [item["key"] for item in (await search(served, query))["items"]]


async def test_nodes_with_their_numbers(served: ServedLookup) -> None:
    node = served.identify("n1", "id1", zone="A")
    announce(served, node, web=[Process(1), Process(2, "starting")], api=[Process(3, "draining")], cron=[])
    found = await search(served)
    [item] = found["items"]
    assert item.pop("age_ms") >= 0
    assert item == {
        "key": "id1",
        **node.info,
        "lookupds": None,
        "jobs": 3,
        "not_ready": 2,
        "processes": 3,
    }
    assert (found["total"], found["counts"], found["cursor"]) == (1, {"alive": 1}, None)
    assert (found["epoch"], found["seq"]) == ("e", served.registry.seq)
    assert node.session is not None
    link = LookupLink("http://b:5010", False, 9.0, "f", "timed out")
    served.registry.report(node.session, Report("m", 10.0, [link]), 0.0)
    [[reported]] = [item["lookupds"] for item in (await search(served))["items"]]
    assert reported.pop("since") < time.time()
    assert reported == {"address": "http://b:5010", "connected": False, "epoch": "f", "error": "timed out"}
    assert (found["stale"], found["warming"]) == (served.registry.stale, served.registry.warming)


async def test_filters_and_orders_of_nodes(served: ServedLookup) -> None:
    nodes = [served.identify(f"n{number}", f"id{number}", zone="AB"[number % 2]) for number in range(4)]
    announce(served, nodes[0], web=[], api=[])
    announce(served, nodes[1], web=[Process(1)])
    served.registry.tables.set_draining(nodes[2], True)
    assert nodes[3].session is not None
    served.registry.disconnect(nodes[3].session, 5.0)
    assert await keys(served) == ["id0", "id1", "id2", "id3"]
    assert await keys(served, "sort=status") == ["id3", "id2", "id0", "id1"]
    assert await keys(served, "sort=-jobs&limit=2") == ["id0", "id1"]
    assert await keys(served, "sort=-not_ready&limit=1") == ["id0"]
    assert await keys(served, "q=zone%3Db") == ["id1", "id3"]
    assert await keys(served, "q=N2") == await keys(served, "node=n2") == await keys(served, "node=id2") == ["id2"]
    assert await keys(served, "state=suspect,draining") == ["id2", "id3"]
    counts = {"alive": 2, "draining": 1, "suspect": 1}
    assert (await search(served, "state=suspect"))["counts"] == counts
    nodes[1].heard = -10.0
    assert await keys(served, "sort=-age_ms&limit=1") == ["id1"]


async def test_jobs_of_nodes(served: ServedLookup) -> None:
    first, second = served.identify("n1", "id1"), served.identify("n2", None)
    announce(served, first, web=[Process(2), Process(1, "starting", (Endpoint("http", "n1", 80),))], cron=[])
    announce(served, second, web=[Process(1, "starting")])
    found = await search(served, "kind=jobs&sort=-state")
    assert [(item["name"], item["node"], item["state"]) for item in found["items"]] == [
        ("shop.web", "n1", "running"),
        ("shop.web", "n2", "starting"),
        ("shop.cron", "n1", "none"),
    ]
    assert found["counts"] == {"running": 1, "starting": 1, "none": 1}
    web = found["items"][0]
    assert (web["key"], web["session"], web["node_id"], web["status"]) == ("id1/shop.web", "shop", "id1", "alive")
    assert [process["pid"] for process in web["processes"]] == [1, 2]
    assert web["processes"][0]["endpoints"] == [{"name": "http", "address": "n1", "port": 80}]
    assert await keys(served, "kind=jobs&node=n2&session=shop") == ["n2@http%3A%2F%2Fn2%3A5000/shop.web"]
    assert await keys(served, "kind=jobs&q=cron") == ["id1/shop.cron"]
    assert (web["ready"], web["expected"], web["reason"]) == (1, None, None)


STATES = {
    "failed": (JobReport("failed", "given up after 5 retries", 1), []),
    "backoff": (JobReport("backoff", "crash loop, 4 times in a row", 1), []),
    "looping": (JobReport("running", "crash loop, 5 times in a row", 1), [Process(1)]),
    "partly": (JobReport("running", None, 2), [Process(2), Process(3, "starting")]),
    "empty": (JobReport("waiting", "scaled to 0 processes", 0), []),
    "stopped": (JobReport("stopped", None, 0), []),
    "up": (JobReport("running", None, 1), [Process(4)]),
    "later": (JobReport("floating", "of a later version", 1), [Process(5, "draining")]),
}


async def test_jobs_in_the_states_that_their_node_reports(served: ServedLookup) -> None:
    node = served.identify("n1", "id1")
    announce(served, node, **{name: processes for name, (_, processes) in STATES.items()})
    assert node.session is not None
    reports = {f"shop.{name}": report for name, (report, _) in STATES.items()}
    served.registry.report(node.session, Report("m", 1.0, jobs={**reports, "shop.none": JobReport("failed")}), 0.0)
    found = (await search(served, "kind=jobs&sort=state"))["items"]
    assert [(item["name"].removeprefix("shop."), item["state"]) for item in found] == [
        ("failed", "failed"),
        ("backoff", "backoff"),
        ("looping", "running"),
        ("later", "stopping"),
        ("empty", "waiting"),
        ("stopped", "stopped"),
        ("partly", "running"),
        ("up", "running"),
    ]
    assert (found[1]["reason"], found[1]["ready"], found[1]["expected"]) == ("crash loop, 4 times in a row", 0, 1)
    assert (found[6]["ready"], found[6]["expected"]) == (1, 2)
    assert await keys(served, "kind=jobs&q=retries") == ["id1/shop.failed"]
    lacking = await search(served, "kind=jobs&ready=false&sort=name")
    assert [item["name"] for item in lacking["items"]] == ["shop.backoff", "shop.failed", "shop.later", "shop.partly"]
    assert len(await keys(served, "kind=jobs&ready=true")) == len(STATES) - lacking["total"]
    [item] = (await search(served))["items"]
    assert (item["not_ready"], item["jobs"]) == (lacking["total"], len(STATES))
    await search(served, "kind=jobs&ready=perhaps", status=400)


async def test_a_reason_that_changes_is_a_change(served: ServedLookup) -> None:
    node = served.identify("n1", "id1")
    announce(served, node, web=[])
    async with aclosing(events(served, f"kind=jobs&after=e:{served.registry.seq}")) as feed:
        for number in range(3, 5):
            report = JobReport("backoff", f"crash loop, {number} times in a row", 1)
            served.registry.tables.put_state(node, "shop.web", report)
            _, _, data = await anext(feed)
            [item] = data["changed"]
            assert (item["state"], item["reason"]) == ("backoff", report.reason)


async def test_pages_of_many_nodes_are_whole(served: ServedLookup) -> None:
    for number in range(1203):
        served.identify(f"n{number:04}", f"id{number:04}")
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await search(served, f"limit=500&sort=-name&cursor={cursor}")
        found += [item["name"] for item in page["items"]]
        cursor = page["cursor"]
        assert page["total"] == 1203
    assert found == [f"n{number:04}" for number in reversed(range(1203))]


@pytest.mark.parametrize(
    ("query", "path"),
    [("kind=x", "$.kind"), ("state=ready", "$.state"), ("kind=jobs&sort=jobs", "$.sort"), ("limit=501", "$.limit")],
)
async def test_bad_parameters(served: ServedLookup, query: str, path: str) -> None:
    assert (await search(served, query, status=400))["path"] == path


# Changes


async def events(served: ServedLookup, query: str = "", **headers: str) -> AsyncGenerator[tuple[str, str, Any], None]:
    """The events of a feed: name, id and data."""
    feed: Exchange = await open_exchange(served.url, "GET", f"/search/changes?{query}", headers=headers)
    try:
        assert (feed.status, feed.headers["content-type"]) == (200, "text/event-stream")
        text = b""
        while True:
            while b"\n\n" not in text:
                async with asyncio.timeout(20):
                    more = await feed.read_some()
                if not more:
                    return
                text += more
            event, _, text = text.partition(b"\n\n")
            if not event.startswith(b":"):
                fields = dict(line.split(": ", 1) for line in event.decode().splitlines())
                yield fields["event"], fields["id"], json.loads(fields["data"])
    finally:
        feed.close()


async def test_changes_of_nodes(served: ServedLookup) -> None:
    start = (await search(served))["seq"]
    node = served.identify()
    feed = events(served, f"after=e:{start}")
    name, position, data = await anext(feed)
    assert (name, position, data["total"], data["counts"]) == ("items", f"e:{served.registry.seq}", 1, {"alive": 1})
    assert [(item["key"], item["jobs"]) for item in data["changed"]] == [("id1", 0)]
    announce(served, node, web=[])
    _, _, data = await anext(feed)
    assert [(item["key"], item["jobs"]) for item in data["changed"]] == [("id1", 1)]
    served.registry.delete("id1", 1.0)
    _, _, data = await anext(feed)
    assert (data["changed"], data["removed"], data["total"]) == ([], ["id1"], 0)
    await feed.aclose()


async def test_changes_of_jobs(served: ServedLookup) -> None:
    node = served.identify()
    announce(served, node, web=[Process(1)])
    feed = events(served, f"kind=jobs&state=running&after=e:{served.registry.seq}")
    announce(served, node, web=[Process(1, "starting")], api=[Process(2)])
    _, _, data = await anext(feed)
    assert ([item["key"] for item in data["changed"]], data["removed"]) == (["id1/shop.api"], ["id1/shop.web"])
    assert (data["total"], data["counts"]) == (1, {"starting": 1, "running": 1})
    served.registry.tables.set_draining(node, True)
    _, _, data = await anext(feed)
    assert [(item["key"], item["status"]) for item in data["changed"]] == [("id1/shop.api", "draining")]
    served.registry.delete("id1", 1.0)  # its jobs are not known any more
    assert (await anext(feed))[0] == "reset"
    await feed.aclose()


async def test_staleness_is_told() -> None:
    served = ServedLookup(lease=Lease(warmup=10.0))
    async with http_server(served.application) as served.url:
        assert (await search(served))["warming"]
        feed = events(served, f"after=e:{served.registry.seq}")
        for second in range(12):
            served.registry.tick(float(second))
        _, _, data = await anext(feed)
        assert (data["changed"], data["removed"], data["stale"], data["warming"]) == ([], [], False, False)
        await feed.aclose()


async def test_missed_changes_reset(served: ServedLookup) -> None:
    for number in range(600):
        served.identify(f"n{number}", f"id{number}")  # more than the log keeps
    for after in ("e:0", "other:5", "e:99999999"):
        feed = events(served, f"after={after}")
        assert (await anext(feed))[:2] == ("reset", f"e:{served.registry.seq}")
        await feed.aclose()


async def test_a_reader_has_its_place_among_others(served: ServedLookup) -> None:
    feed = events(served, f"after=e:{served.registry.seq}")
    served.identify()
    await anext(feed)
    assert len(served.application.readers) == 1
    await feed.aclose()
    await eventually_async(lambda: len(served.application.readers) == 0)
