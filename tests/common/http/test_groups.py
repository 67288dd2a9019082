"""Groups, as version 0.4 called sessions: R-29 to R-32."""

import pytest

from support.http_node import HttpNode, sleeper
from support.poll import eventually_async

row = pytest.mark.row
pytestmark = row("HTTP-36")


@pytest.fixture
async def shop(node: HttpNode) -> HttpNode:
    """A node with the jobs shop.web, shop.db and, in no group, lone."""
    for name in ("shop:web", "shop:db", "lone"):
        assert (await node.call("POST", "/processes", sleeper(name))).json == {"ok": True}
    await eventually_async(lambda: len(node.manager.running) == 3)
    return node


async def pids(node: HttpNode) -> set[int]:
    return set((await node.call("GET", "/pids")).json["pids"])


@row("R-29", "R-30")
async def test_groups_and_their_members(shop: HttpNode) -> None:
    assert (await shop.call("GET", "/groups")).json == ["shop"]
    assert (await shop.call("GET", "/groups/shop")).json == ["shop:web", "shop:db"]
    assert (await shop.call("HEAD", "/groups/shop")).status == 200


@row("R-31")
async def test_a_group_is_stopped_started_and_restarted(shop: HttpNode) -> None:
    before = await pids(shop)
    assert (await shop.call("POST", "/groups/shop/_stop")).json == {"ok": True}
    await eventually_async(lambda: len(shop.manager.running) == 1)
    [lone] = await pids(shop)
    assert (await shop.call("POST", "/groups/shop/_start")).json == {"ok": True}
    await eventually_async(lambda: len(shop.manager.running) == 3)
    started = await pids(shop)
    assert before & started == {lone}
    assert (await shop.call("POST", "/groups/shop/_restart")).json == {"ok": True}

    async def restarted() -> bool:
        now = await pids(shop)
        return len(now) == 3 and now & started == {lone}

    await eventually_async(restarted)


@row("R-32")
async def test_a_group_is_deleted(shop: HttpNode) -> None:
    assert (await shop.call("DELETE", "/groups/shop")).json == {"ok": True}
    assert (await shop.call("GET", "/groups")).json == []
    assert (await shop.call("GET", "/processes")).json == ["lone"]
    await eventually_async(lambda: len(shop.manager.running) == 1)


@row("R-30", "R-31", "R-32")
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/groups/nope", 404, "not_found"),
        ("GET", "/groups/default", 404, "not_found"),
        ("GET", "/groups/a.b", 400, "bad_name"),
        ("DELETE", "/groups/nope", 404, "not_found"),
        ("DELETE", "/groups/default", 404, "not_found"),
        ("POST", "/groups/nope/_start", 404, "not_found"),
        ("POST", "/groups/nope/_stop", 404, "not_found"),
        ("POST", "/groups/default/_restart", 404, "not_found"),
        ("POST", "/groups/shop/_nope", 404, "resource_not_found"),
        ("GET", "/groups/shop/_pids", 404, "resource_not_found"),
        ("GET", "/groups/shop/_start", 405, "method_not_allowed"),
    ],
)
async def test_what_is_no_group(shop: HttpNode, method: str, path: str, status: int, code: str) -> None:
    answer = await shop.call(method, path)
    assert (answer.status, answer.error) == (status, code)
    assert len(await pids(shop)) == 3
