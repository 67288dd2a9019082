"""The usage history of a node over HTTP."""

from gafferd.usage import routes
from gafferd.usage.recorder import UsageRecorder
from support.http_node import HttpNode, running_node, script, sleeper
from support.poll import eventually_async

BUSY = "x = bytearray(50_000_000)\nwhile True: pass"


async def test_processes_are_measured_at_intervals_while_they_run() -> None:
    recorder = UsageRecorder(0.05)
    async with running_node(apps=[recorder], routes=routes.ROUTES, usage=recorder) as node:
        await node.call("POST", "/jobs/shop", script("busy", BUSY))
        await node.call("POST", "/jobs/shop", sleeper("idle", numprocesses=2))

        async def enough() -> bool:
            found = (await node.call("GET", "/jobs/shop/busy/usage")).json
            return len(found["at"]) > 3 and max(found["processes"][0]["memory"]) > 50_000_000

        await eventually_async(enough)
        found = (await node.call("GET", "/jobs/shop/busy/usage")).json
        assert (found["name"], found["interval"], found["left_out"]) == ("shop.busy", 0.05, 0)
        assert found["at"] == sorted(found["at"])
        [process] = found["processes"]
        assert process["slot"] == 1
        assert max(process["cpu"]) > 1.0
        assert set(found["restarts"]) == {0}
        idle = (await node.call("GET", "/jobs/shop/idle/usage")).json
        assert [each["slot"] for each in idle["processes"]] == [1, 2]
        await node.call("POST", "/jobs/shop/busy/state", b"0")
        await eventually_async(lambda: ended(node))


async def ended(node: HttpNode) -> bool:
    [process] = (await node.call("GET", "/jobs/shop/busy/usage")).json["processes"]
    return process["cpu"][-1] is None and process["memory"][-1] is None


async def test_no_history_and_no_job_are_not_found() -> None:
    async with running_node(routes=routes.ROUTES, usage=None) as node:
        await node.call("POST", "/jobs/shop", sleeper("web"))
        off = await node.call("GET", "/jobs/shop/web/usage")
        assert (off.status, off.error) == (404, "no_usage")
        assert "usage_history = true" in off.json["hint"]
        assert (await node.call("GET", "/jobs/shop/other/usage")).error == "not_found"
