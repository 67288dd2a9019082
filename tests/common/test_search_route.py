"""`GET /search` on a node: its jobs and processes, filtered, sorted and paged."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from gaffer.http.access import Grant, Policy, Scope
from gaffer.process import ProcessConfig
from support.http_node import Exchange, HttpNode, running_node, sleeper
from support.poll import eventually_async

KEYS = {
    "reader": Grant(frozenset({Scope.READ})),
    "blogger": Grant(frozenset({Scope.READ}), frozenset({"blog"})),
}


@pytest.fixture
async def node() -> AsyncIterator[HttpNode]:
    async with running_node(access=Policy(verify=KEYS.get)) as node:
        yield node


async def search(node: HttpNode, query: str = "", key: str = "reader", status: int = 200) -> dict[str, Any]:
    answer = await node.call("GET", f"/search?{query}", headers={"X-Api-Key": key})
    assert answer.status == status, answer.json
    found: dict[str, Any] = answer.json
    return found


async def names(node: HttpNode, query: str = "", key: str = "reader") -> list[str]:
    return [item["name"] for item in (await search(node, query, key))["items"]]


def load(node: HttpNode, session: str, name: str, **settings: Any) -> None:
    node.manager.load(ProcessConfig.from_dict(sleeper(name, **{"startsecs": 0, **settings})), session)


async def await_state(node: HttpNode, job: str, state: str) -> None:
    await eventually_async(lambda: node.manager.info(job)["state"] == state, message=f"{job} is not {state}")


async def test_jobs_with_their_numbers(node: HttpNode) -> None:
    load(node, "shop", "web", numprocesses=2, env={"PASSWORD": "hunter2"})
    load(node, "shop", "cron", start=False)
    await await_state(node, "shop.web", "running")
    found = await search(node)
    cron, web = found["items"]
    assert (found["total"], found["counts"], found["cursor"]) == (2, {"running": 1, "stopped": 1}, None)
    assert web["processes"] == node.manager.info("shop.web")["processes"]
    assert 0 <= web.pop("uptime") < 60
    assert web.pop("memory") > 100_000
    assert web.pop("cpu") >= 0
    assert web == {
        "key": "shop.web",
        "name": "shop.web",
        "session": "shop",
        "state": "running",
        "reason": None,
        "active": True,
        "running": 2,
        "max_processes": 2,
        "expected": 2,
        "processes": web["processes"],
        "restarts": 0,
        "next_run": None,
        "retry_in": None,
        "last_exit": None,
    }
    assert (cron["state"], cron["uptime"], cron["cpu"], cron["memory"]) == ("stopped", None, None, None)


async def test_what_changes_is_found_as_it_is_now(node: HttpNode) -> None:
    load(node, "shop", "web", start=False)
    first = await search(node)
    assert first["counts"] == {"stopped": 1}
    load(node, "shop", "api", start=False)
    node.manager.start_job("shop.web")
    await await_state(node, "shop.web", "running")
    second = await search(node)
    assert second["counts"] == {"stopped": 1, "running": 1}
    assert (second["epoch"], second["seq"] > first["seq"]) == (first["epoch"], True)
    node.manager.unload("shop.api")
    assert await names(node) == ["shop.web"]


@pytest.mark.expects_errors("there is no program '/nope/program'")
async def test_failures_are_found_by_their_reason_and_come_first(node: HttpNode) -> None:
    load(node, "shop", "broken", cmd="/nope/program", restart="never")
    load(node, "shop", "web", start=False)
    await await_state(node, "shop.broken", "failed")
    assert await names(node, "sort=state") == ["shop.broken", "shop.web"]
    assert await names(node, f"q={quote('PROGRAM no')}") == ["shop.broken"]
    assert await names(node, "state=stopped") == ["shop.web"]
    [broken] = (await search(node, "state=failed&q=broken"))["items"]
    assert "no program" in broken["reason"]
    assert broken["last_exit"]["exit_code"] is None
    assert (await search(node, "state=stopped"))["counts"] == {"failed": 1, "stopped": 1}
    assert await names(node, "sort=-last_exit") == ["shop.broken", "shop.web"]


@pytest.mark.parametrize("sort", ["name", "-name", "cpu", "-memory", "uptime", "-restarts", "state", "reason"])
async def test_pages_have_every_job_once(node: HttpNode, sort: str) -> None:
    for number in range(5):
        load(node, "shop", f"job{number}", start=number == 3)
    await await_state(node, "shop.job3", "running")
    whole = await names(node, f"sort={sort}")
    paged: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await search(node, f"sort={sort}&limit=2&cursor={cursor}")
        paged += [item["name"] for item in page["items"]]
        cursor = page["cursor"]
    assert sorted(paged) == [f"shop.job{number}" for number in range(5)]
    if sort.removeprefix("-") not in ("cpu", "memory"):
        assert paged == whole
    else:
        assert paged[0] == whole[0] == "shop.job3"  # the only one that uses anything


async def test_processes_by_pid(node: HttpNode) -> None:
    load(node, "shop", "web", numprocesses=3)
    load(node, "shop", "idle", start=False)
    await await_state(node, "shop.web", "running")
    pids = node.manager.info("shop.web")["processes"]
    found = await search(node, "kind=processes&sort=-pid")
    assert [item["pid"] for item in found["items"]] == sorted(pids, reverse=True)
    assert (found["total"], found["counts"]) == (3, {"ready": 3})
    one = found["items"][0]
    assert (one["key"], one["name"], one["session"], one["state"]) == (str(one["pid"]), "shop.web", "shop", "ready")
    assert one["os_pid"] == node.manager.running[one["pid"]].os_pid
    assert one["memory"] > 100_000
    [by_os_pid] = (await search(node, f"kind=processes&q={one['os_pid']}"))["items"]
    assert by_os_pid["pid"] == one["pid"]


async def test_a_key_finds_its_sessions_only(node: HttpNode) -> None:
    load(node, "shop", "web", start=False)
    load(node, "blog", "web", start=False)
    assert await names(node, "session=shop") == ["shop.web"]
    found = await search(node, key="blogger")
    assert ([item["name"] for item in found["items"]], found["total"], found["counts"]) == (
        ["blog.web"],
        1,
        {"stopped": 1},
    )
    assert await names(node, "session=blog", key="blogger") == ["blog.web"]
    assert (await search(node, "session=shop", key="blogger", status=403))["error"] == "forbidden"


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("kind=nodes", "$.kind"),
        ("sort=nope", "$.sort"),
        ("state=alive", "$.state"),
        ("limit=0", "$.limit"),
        ("limit=x", "$.limit"),
        ("cursor=x", "$.cursor"),
        ("node=n1", "$"),
    ],
)
async def test_bad_parameters(node: HttpNode, query: str, path: str) -> None:
    assert (await search(node, query, status=400))["path"] == path


async def test_nobody_searches_while_many_jobs_come_and_go(node: HttpNode) -> None:
    load(node, "shop", "web", start=False)
    before = await search(node)
    feed = events(await follow(node))
    for number in range(1100):
        load(node, "shop", f"job{number}", start=False)
        node.manager.unload(f"shop.job{number}")
    assert {event[0] async for event in feed} <= {"reset"}  # it ends, and its reader comes again
    assert await names(node) == ["shop.web"]
    again = events(await follow(node, f"after={before['epoch']}:{before['seq']}"))
    assert (await anext(again))[0] == "reset"
    node.manager.unload("shop.web")
    assert (await anext(again))[2]["removed"] == ["shop.web"]


# Changes


async def follow(node: HttpNode, query: str = "", key: str = "reader", **headers: str) -> Exchange:
    exchange = await node.follow(f"/search/changes?{query}", {"X-Api-Key": key, **headers})
    assert (exchange.status, exchange.headers["content-type"]) == (200, "text/event-stream")
    return exchange


async def events(feed: Exchange) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    """The events of a feed: name, id and data."""
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


async def test_a_crash_is_an_event(node: HttpNode) -> None:
    load(node, "shop", "web")
    await await_state(node, "shop.web", "running")
    found = await search(node)
    [pid] = found["items"][0]["processes"]
    feed = events(await follow(node, f"after={found['epoch']}:{found['seq']}"))
    node.manager.kill(pid, "KILL")
    async for name, position, data in feed:
        assert name == "items"
        assert position.startswith(f"{found['epoch']}:")
        [web] = data["changed"]
        assert (web["key"], data["removed"], data["total"]) == ("shop.web", [], 1)
        assert data["counts"] == {web["state"]: 1}
        if web["restarts"] == 1 and web["processes"] not in ([], [pid]):
            break
    assert web["last_exit"]["term_signal"] == 9


async def test_what_no_longer_matches_is_removed(node: HttpNode) -> None:
    load(node, "shop", "web", start=False)
    load(node, "shop", "api", start=False)
    await search(node)
    feed = events(await follow(node, "state=stopped&q=web"))
    node.manager.start_job("shop.web")
    async for _, _, data in feed:
        if data["removed"]:
            break
    assert (data["changed"], data["removed"], data["total"]) == ([], ["shop.web"], 0)
    node.manager.unload("shop.web")
    async for _, _, data in feed:
        if data["counts"] == {}:
            break
    assert data["removed"] == ["shop.web"]


async def test_processes_that_are_gone_are_removed(node: HttpNode) -> None:
    load(node, "shop", "web", numprocesses=2)
    await await_state(node, "shop.web", "running")
    found = await search(node, "kind=processes")
    before = {item["key"] for item in found["items"]}
    feed = events(await follow(node, f"kind=processes&after={found['epoch']}:{found['seq']}"))
    node.manager.stop_job("shop.web")
    gone: set[str] = set()
    async for _, _, data in feed:
        gone |= set(data["removed"])
        if data["total"] == 0:
            break
    assert gone == before


@pytest.mark.parametrize("position", ["0123:0", "999999999", "{epoch}:999999999", "nonsense"])
async def test_a_position_that_is_gone_resets(node: HttpNode, position: str) -> None:
    epoch = (await search(node))["epoch"]
    feed = events(await follow(node, **{"Last-Event-ID": position.format(epoch=epoch)}))
    name, found, data = await anext(feed)
    assert (name, found.split(":")[0], data) == ("reset", epoch, {})
    load(node, "shop", "web", start=False)
    name, _, data = await anext(feed)
    assert (name, [item["name"] for item in data["changed"]]) == ("items", ["shop.web"])


async def test_too_many_changes_for_an_event_reset(node: HttpNode) -> None:
    found = await search(node)
    configs = [ProcessConfig.from_dict(sleeper(f"job{number}", start=False)) for number in range(501)]
    node.manager.load_all(configs, "shop")
    await search(node)
    feed = events(await follow(node, f"after={found['epoch']}:{found['seq']}"))
    name, position, _ = await anext(feed)
    again = await search(node)
    assert (name, position) == ("reset", f"{again['epoch']}:{again['seq']}")
    assert again["total"] == 501


async def test_a_key_hears_of_its_sessions_only(node: HttpNode) -> None:
    feed = events(await follow(node, key="blogger"))
    load(node, "shop", "s3cret", start=False)
    await search(node)
    load(node, "blog", "web", start=False)
    _, _, data = await anext(feed)
    assert ([item["name"] for item in data["changed"]], data["removed"]) == (["blog.web"], [])
    assert (data["total"], data["counts"]) == (1, {"stopped": 1})


async def test_a_feed_beats_and_ends_with_the_node(node: HttpNode) -> None:
    feed = await follow(node, "heartbeat=0.1")
    assert await feed.read_until(b":\n\n:\n\n") == b":\n\n:\n\n"
    await node.stop()
    await feed.read_all()


@pytest.mark.parametrize(
    ("query", "path"), [("kind=x", "$.kind"), ("after=x", "$.after"), ("heartbeat=x", "$.heartbeat")]
)
async def test_bad_parameters_of_a_feed(node: HttpNode, query: str, path: str) -> None:
    answer = await node.call("GET", f"/search/changes?{query}", headers={"X-Api-Key": "reader"})
    assert (answer.status, answer.json["path"]) == (400, path)
