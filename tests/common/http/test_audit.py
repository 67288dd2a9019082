"""The audit: an event for each call that changes something, whatever way it comes."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gaffer.http.access import ALL_SCOPES, Grant, Scope, make_policy
from gaffer.http.routes import Route
from gaffer.http_handler import ROUTES
from gaffer.schemas.frames import MESSAGE, Frame
from support.http_node import HttpNode, open_exchange, run_script, running_node, script, sleeper
from support.poll import eventually_async
from support.websocket import connected

KEYS = {
    "owner": Grant(ALL_SCOPES, caller="key:owner"),
    "reader": Grant(frozenset({Scope.READ}), caller="key:reader"),
}
CHANGING = [
    (route, method)
    for route in ROUTES
    for method in route.methods
    if method != "GET" and not route.handler.carries_messages
]
UID = f"uid:{os.getuid()}"


class Audit(list[dict[str, Any]]):
    """The entries of a node."""

    def of(self, node: HttpNode) -> "Audit":
        node.manager.events.subscribe("audit", lambda _, entry: self.append(entry))
        node.manager.events.subscribe(".", lambda name, _: self.append({"action": name}) if name == "audit" else None)
        return self

    async def next(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for entries and take them; there must be no more."""
        await eventually_async(lambda: len(self) >= count)
        await asyncio.sleep(0)
        taken, self[:] = list(self), []
        assert len(taken) == count, taken
        return taken


@pytest.fixture
def audit(node: HttpNode) -> Audit:
    return Audit().of(node)


@pytest.fixture
async def guarded() -> AsyncIterator[HttpNode]:
    """A node that trusts nobody without a key."""
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=KEYS.get)
    async with running_node(access=policy) as node:
        yield node


def path_of(route: Route) -> str:
    return (
        (route.pattern.replace("{sid}", "shop").replace("{job}", "web").replace("{name}", "shop.web").replace("{", ""))
        .replace("}", "")
        .replace(":digits", "")
        .replace("pid", "12345")
    )


@pytest.mark.parametrize(("route", "method"), CHANGING, ids=[f"{method} {route.pattern}" for route, method in CHANGING])
async def test_each_route_that_changes_something_is_audited(
    node: HttpNode, audit: Audit, route: Route, method: str
) -> None:
    answer = await node.call(method, path_of(route), {"secret": "hunter2"})
    [entry] = await audit.next()
    assert (entry["kind"], entry["action"], entry["route"]) == ("call", method, route.pattern)
    assert (entry["caller"], entry["address"], entry["status"]) == (UID, "127.0.0.1", answer.status)
    assert entry["outcome"] == ("ok" if answer.status < 400 else "failed")
    assert entry["error"] == (answer.error if answer.status >= 400 else None)
    assert "hunter2" not in json.dumps(entry)
    if "{pid" not in route.pattern and ("{job}" in route.pattern or "{name}" in route.pattern):
        assert entry["job"] == "shop.web"


async def test_unknown_paths_methods_and_names_are_audited_too(node: HttpNode, audit: Audit) -> None:
    await node.call("POST", f"/jobs/{'x' * 1000}", sleeper("web"))
    await node.call("POST", "/nothing/here")
    await node.call("BREW", "/jobs")
    bad_name, unknown, brew = await audit.next(3)
    assert (bad_name["session"], bad_name["job"], bad_name["error"]) == (None, None, "bad_name")
    assert (unknown["route"], unknown["status"]) == (None, 404)
    assert (brew["action"], brew["status"]) == ("other", 405)


async def test_reading_is_not_audited(node: HttpNode, audit: Audit) -> None:
    for method, path in (("GET", "/jobs"), ("HEAD", "/jobs"), ("OPTIONS", "/jobs"), ("GET", "/nothing")):
        await node.call(method, path)
    await node.call("POST", "/jobs/shop", sleeper("web", numprocesses=0, env={"A": "hunter2"}))
    [entry] = await audit.next()
    assert entry["details"] == {"numprocesses": 0}


async def test_jobs_loaded_together_are_named(node: HttpNode, audit: Audit) -> None:
    await node.call("POST", "/jobs/shop", {"jobs": [sleeper("a"), sleeper("b")]})
    [entry] = await audit.next()
    assert (entry["session"], entry["job"], entry["details"]) == ("shop", None, {"jobs": ["a", "b"]})


async def test_the_query_shows_only_what_is_no_secret(node: HttpNode, audit: Audit) -> None:
    await node.call("POST", "/jobs/shop/web/restart?rolling=true&token=hunter2")
    [entry] = await audit.next()
    assert entry["details"] == {"rolling": "true"}


async def test_an_action_is_audited_when_it_begins(node: HttpNode, audit: Audit) -> None:
    await node.call("POST", "/jobs/shop", sleeper("web", action={"wait": "sleep 1000"}))
    await audit.next()
    exchange = await open_exchange(node.address, "POST", "/jobs/shop/web/actions/wait", b"")
    [entry] = await audit.next()
    assert (entry["job"], entry["outcome"], entry["details"]) == ("shop.web", "ok", {"action": "wait"})
    exchange.close()
    await node.call("DELETE", "/jobs/shop/web")
    assert [entry["action"] for entry in await audit.next()] == ["DELETE"]


async def test_a_caller_that_goes_away(node: HttpNode, audit: Audit) -> None:
    host, _, port = node.address.removeprefix("http://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /jobs/shop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await eventually_async(lambda: node.handler._application is not None)
    writer.close()
    [entry] = await audit.next()
    assert (entry["outcome"], entry["status"], entry["session"]) == ("abandoned", None, "shop")


async def test_writing_to_a_process_is_audited_once(node: HttpNode, audit: Audit) -> None:
    pid = await run_script(node)
    await audit.next()
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        for _ in range(3):
            await socket.send("hunter2")
            await socket.receive_until(b"hunter2")
    [entry] = await audit.next()
    assert (entry["kind"], entry["route"], entry["job"], entry["pid"]) == (
        "input",
        "/wstreams/{pid}",
        "default.job",
        pid,
    )
    for _ in range(3):
        await node.call("POST", f"/streams/{pid}/stdin", b"hunter2")
    await node.stop()
    assert [(entry["route"], entry["count"]) for entry in await audit.next()] == [("/streams/{pid}/{label}", 3)]


async def test_commands_of_channels(node: HttpNode, audit: Audit) -> None:
    def command(name: str, *args: Any) -> str:
        return json.dumps({"event": "CMD", "data": {"identity": "1", "name": name, "args": args}})

    async with connected(node.address, "/channel/websocket") as socket:
        for text in (
            command("load", {"name": "shop.web", "cmd": "sleep 1000", "env": {"A": "hunter2"}, "numprocesses": 1}),
            command("scale", "shop.web", "+1"),
            command("info", "shop.web"),
            command("scale", "shop.none", 1),
            command("scale", "shop.web", 1, 2, 3),
        ):
            await socket.send(text)
            await socket.receive_json()
    load, scale, missing, wrong = await audit.next(4)
    assert (load["kind"], load["action"], load["route"]) == ("command", "load", "/channel/websocket")
    assert (load["job"], load["caller"], load["details"]) == ("shop.web", UID, {"numprocesses": 1})
    assert (scale["job"], scale["outcome"], scale["details"]) == ("shop.web", "ok", {"n": "+1"})
    assert (missing["job"], missing["outcome"], missing["error"]) == ("shop.none", "failed", "not_found")
    assert (wrong["job"], wrong["error"]) == (None, "bad_command")


async def test_commands_over_http_are_audited_and_their_transport_is_not(node: HttpNode, audit: Audit) -> None:
    session = "/channel/000/abc"
    await node.call("POST", f"{session}/xhr", b"")
    message = json.dumps({"event": "CMD", "data": {"identity": "1", "name": "stop_job", "args": ["shop.web"]}})
    await node.call("POST", f"{session}/xhr_send", [message])
    [entry] = await audit.next()
    assert (entry["action"], entry["route"], entry["status"]) == ("stop_job", "/channel/{server}/{session}/xhr", 404)


async def test_refused_callers(guarded: HttpNode) -> None:
    audit = Audit().of(guarded)
    reader = {"X-Api-Key": "reader"}
    await guarded.call("POST", "/jobs/shop/web/numprocesses", {"scale": 1}, headers=reader)
    [entry] = await audit.next()
    assert (entry["caller"], entry["outcome"], entry["error"]) == ("key:reader", "refused", "forbidden")
    assert (entry["job"], entry["details"]) == ("shop.web", {})
    for _ in range(5):
        await guarded.call("POST", "/jobs/shop/web/numprocesses", {"scale": "hunter2"})
    await guarded.call("GET", "/jobs", headers={"X-Api-Key": "hunter2"})
    [entry] = await audit.next()
    assert (entry["caller"], entry["outcome"], entry["details"]) == (UID, "refused", {})
    await guarded.call("POST", "/jobs", headers={"X-Forwarded-For": "192.0.2.1"})
    async with connected(guarded.address, "/channel/websocket") as socket:
        await socket.send("AUTH:hunter2")
        await socket.receive_json()
    await guarded.stop()
    [summary] = await audit.next()
    assert (summary["count"], summary["kind"], summary["error"]) == (7, "login", "auth_required")


async def test_a_caller_behind_a_proxy_is_not_the_proxy(guarded: HttpNode) -> None:
    audit = Audit().of(guarded)
    await guarded.call("POST", "/jobs", headers={"X-Forwarded-For": "192.0.2.1"})
    assert [entry["caller"] for entry in await audit.next()] == ["unknown"]


async def test_a_wrong_key_in_a_websocket(guarded: HttpNode) -> None:
    audit = Audit().of(guarded)
    owner = {"X-Api-Key": "owner"}
    assert (await guarded.call("POST", "/jobs/default", script("job", "input()"), headers=owner)).status == 200
    await eventually_async(lambda: guarded.manager.running)
    await audit.next()
    pid = next(iter(guarded.manager.running))
    async with connected(guarded.address, f"/{pid}/channel") as socket:
        await socket.send(Frame(MESSAGE, "1", b"AUTH:hunter2").encode())
        await socket.receive()
    [entry] = await audit.next()
    assert (entry["kind"], entry["route"], entry["caller"]) == ("login", "/{pid:digits}/channel", UID)


async def test_a_caller_without_control_does_not_see_the_audit(guarded: HttpNode) -> None:
    reader, owner = {"X-Api-Key": "reader"}, {"X-Api-Key": "owner"}
    assert (await guarded.call("GET", "/watch/audit", headers=reader)).status == 403
    everything = await open_exchange(guarded.address, "GET", "/watch?feed=continuous", None, reader)
    named = await open_exchange(guarded.address, "GET", "/watch/audit?feed=continuous", None, owner)
    async with connected(guarded.address, "/channel/websocket", reader) as socket:
        await socket.send(json.dumps({"event": "SUB", "data": {"topic": "EVENTS:audit"}}))
        assert (await socket.receive_json())["data"]["reason"] == "forbidden"
        await socket.send(json.dumps({"event": "SUB", "data": {"topic": "EVENTS"}}))
        await socket.receive_json()
        await guarded.call("POST", "/jobs/shop", sleeper("web", numprocesses=0), headers=owner)
        assert (await socket.receive_json())["data"]["event"] == "create"
    assert b'"caller":"key:owner"' in await named.read_until(b"}\n")
    await guarded.call("POST", "/jobs/shop/web/numprocesses", {"scale": 0}, headers=owner)
    await guarded.call("DELETE", "/jobs/shop/web", headers=owner)
    assert b"audit" not in await everything.read_until(b'"event":"delete"')
    everything.close()
    named.close()


async def test_a_channel_with_control_follows_the_audit(guarded: HttpNode) -> None:
    owner = {"X-Api-Key": "owner"}
    async with connected(guarded.address, "/channel/websocket", owner) as socket:
        await socket.send(json.dumps({"event": "SUB", "data": {"topic": "EVENTS:audit"}}))
        await socket.receive_json()
        await guarded.call("POST", "/drain", headers=owner)
        data = (await socket.receive_json())["data"]
    assert (data["event"], data["route"], data["caller"]) == ("audit", "/drain", "key:owner")


async def test_failures_of_a_known_caller_are_summarized(node: HttpNode, audit: Audit) -> None:
    for job in ("a", "b", "a", "a"):
        await node.call("POST", f"/jobs/shop/{job}/numprocesses", {"scale": 1})
    assert [entry["job"] for entry in await audit.next(2)] == ["shop.a", "shop.b"]
    await node.stop()
    assert [(entry["job"], entry["count"]) for entry in await audit.next()] == [("shop.a", 2)]
