"""Taking a node out of service and putting it back."""

import os

from gaffer.http.access import ALL_SCOPES, Grant, make_policy
from support.http_node import HttpNode, running_node, sleeper
from support.poll import eventually_async


async def test_a_drained_node_says_so_ends_its_processes_and_takes_orders(node: HttpNode) -> None:
    assert (await node.call("POST", "/jobs/shop", sleeper("web", numprocesses=2))).status == 200
    await eventually_async(lambda: len(node.manager.running) == 2)
    assert (await node.call("GET", "/drain")).json == {"draining": False, "drained": False, "processes": 2}

    answer = await node.call("POST", "/drain")
    assert (answer.status, answer.json) == (202, {"draining": True, "drained": False, "processes": 2})
    assert (await node.call("GET", "/health")).json["status"] == "draining"
    await eventually_async(lambda: node.manager.drained)
    assert (await node.call("GET", "/drain")).json == {"draining": True, "drained": True, "processes": 0}

    job = (await node.call("GET", "/jobs/shop/web")).json
    assert (job["active"], job["running"], job["state"], job["reason"]) == (True, 0, "waiting", "the node is drained")
    assert (await node.call("POST", "/jobs/shop/web/commit")).error == "draining"
    assert (await node.call("POST", "/jobs/shop", sleeper("late"))).status == 200
    assert not node.manager.running

    assert (await node.call("DELETE", "/drain")).status == 202
    await eventually_async(lambda: len(node.manager.running) == 3)
    assert (await node.call("GET", "/health")).json["status"] == "ok"


async def test_both_orders_may_be_repeated(node: HttpNode) -> None:
    for method in ("POST", "POST", "DELETE", "DELETE"):
        assert (await node.call(method, "/drain")).status == 202


async def test_a_key_for_some_sessions_may_look_but_not_drain() -> None:
    keys = {"limited": Grant(ALL_SCOPES, frozenset({"shop"}))}
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=keys.get)
    async with running_node(access=policy) as node:
        headers = {"X-Api-Key": "limited"}
        for method, status in (("POST", 403), ("DELETE", 403), ("GET", 200)):
            assert (await node.call(method, "/drain", headers=headers)).status == status
        assert not node.manager.draining
