"""`GET /search` on a node: its jobs and processes, filtered, sorted and paged."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from gaffer.http.access import Grant, Policy, Scope
from gaffer.process import ProcessConfig
from support.http_node import HttpNode, running_node, sleeper
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
    node.manager.load(ProcessConfig.from_dict(sleeper(name, **settings)), session)


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
        "processes": web["processes"],
        "restarts": 0,
        "next_run": None,
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
    assert await names(node) == ["shop.web"]
    for number in range(1100):
        load(node, "shop", f"job{number}", start=False)
        node.manager.unload(f"shop.job{number}")
    assert await names(node) == ["shop.web"]
