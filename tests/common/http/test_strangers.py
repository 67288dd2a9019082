"""Callers that are not known have a small share of everything, and displace only each other."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from gaffer.api.channel import CHANNEL
from gaffer.http.access import ALL_SCOPES, Grant, make_policy
from gaffer.http.limits import STRANGER_BODY, Limits
from support.http_node import HttpNode, open_exchange, running_node
from support.needs import needs_root
from support.poll import eventually_async
from support.strangers import stranger
from support.websocket import connected

KEY = {"X-Api-Key": "honest"}
STRANGER = {"X-Forwarded-For": "192.0.2.1"}  # what comes through a proxy is not of the local user
CONNECTIONS, STRANGERS = 20, 5  # a quarter

pytestmark = pytest.mark.expects_errors(
    "unauthenticated callers are open: new ones have to wait", "new ones displace those of unauthenticated callers"
)

CALL = """
port, path, body = sys.argv[1:]
head = f"POST {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
with socket.socket() as s:
    s.connect(("127.0.0.1", int(port)))
    s.sendall((head + body).encode())
    print(s.recv(65536).split()[1].decode())
"""


async def node_of(trust_local: bool) -> AsyncIterator[HttpNode]:
    policy = make_policy(
        own_uid=os.geteuid(), own_names=[], trust_local=trust_local, verify={"honest": Grant(ALL_SCOPES)}.get
    )
    async with running_node(access=policy, limits=Limits(max_connections=CONNECTIONS)) as node:
        yield node


@pytest.fixture
async def node() -> AsyncIterator[HttpNode]:
    """A node where callers are known by their key only."""
    async for node in node_of(trust_local=False):
        yield node


def open_connections(node: HttpNode) -> int:
    assert node.handler._application is not None
    return node.handler._application.count_connections().open


async def hold(node: HttpNode, stack: AsyncExitStack, kind: str) -> Any:
    """Open what a stranger can keep open."""
    if kind == "websocket":
        return await stack.enter_async_context(connected(node.address, "/channel/websocket"))
    number = len(stack._exit_callbacks)  # type: ignore[attr-defined]
    exchange = await open_exchange(node.address, "POST", f"/channel/0/s{number}/xhr_streaming", b"")
    stack.callback(exchange.close)
    assert (await exchange.read_until(b"o\n")).endswith(b"o\n")
    return exchange


@pytest.mark.parametrize("kind", ["websocket", "xhr_streaming"])
async def test_strangers_hold_their_share_and_lock_no_key_holder_out(node: HttpNode, kind: str) -> None:
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(connected(node.address, "/channel/websocket", KEY))
        for _ in range(3 * STRANGERS):
            await hold(node, stack, kind)
            assert (await node.call("GET", "/jobs", headers=KEY)).status == 200
        await eventually_async(lambda: open_connections(node) <= 1 + STRANGERS)
        feeds = [await node.follow("/watch?feed=eventsource&heartbeat=0.1", KEY) for _ in range(CONNECTIONS - 3)]
        assert {feed.status for feed in feeds} == {200}
        await kept.send(json.dumps({"event": "CMD", "data": {"identity": 1, "name": "jobs"}}))
        assert (await kept.receive_json())["event"] == "gaffer:command_success"


async def test_who_authenticates_on_a_websocket_is_no_stranger(node: HttpNode) -> None:
    async with AsyncExitStack() as stack:
        kept = await hold(node, stack, "websocket")
        await kept.send("AUTH:honest")
        await kept.send(json.dumps({"event": "SUB", "data": {"topic": "EVENTS"}}))
        assert (await kept.receive_json())["event"] == "gaffer:subscription_success"
        for _ in range(2 * STRANGERS):
            await hold(node, stack, "websocket")
        await kept.send(json.dumps({"event": "CMD", "data": {"identity": 1, "name": "jobs"}}))
        assert (await kept.receive_json())["event"] == "gaffer:command_success"


async def test_who_authenticates_on_a_session_is_no_stranger(node: HttpNode) -> None:
    async with AsyncExitStack() as stack:
        kept = await hold(node, stack, "xhr_streaming")
        command = json.dumps({"event": "CMD", "data": {"identity": 1, "name": "jobs"}})
        send = "/channel/0/s0/xhr_send"
        assert (await node.call("POST", send, json.dumps(["AUTH:honest"]).encode())).status == 204
        for _ in range(2 * STRANGERS):
            await hold(node, stack, "websocket")
        assert (await node.call("POST", send, json.dumps([command]).encode())).status == 204
        assert b"gaffer:command_success" in await kept.read_until(b"command_success")


async def test_a_key_is_noted_where_none_is_needed(node: HttpNode) -> None:
    reader, writer = await asyncio.open_connection(*node.address.removeprefix("http://").rsplit(":", 1))
    async with AsyncExitStack() as stack:
        stack.callback(writer.close)
        for _ in range(3 * STRANGERS):
            writer.write(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: honest\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"200"
            await reader.readuntil(b"\r\n\r\nOK")
            await hold(node, stack, "websocket")


def few_connections(node: HttpNode) -> bool:
    """Whether no more than the strangers' share and one more are open."""
    return open_connections(node) <= 1 + STRANGERS


async def test_local_callers_are_known_before_they_ask() -> None:
    async for node in node_of(trust_local=True):
        async with AsyncExitStack() as stack:
            silent = await asyncio.open_connection(*node.address.removeprefix("http://").rsplit(":", 1))
            stack.callback(silent[1].close)
            for _ in range(3 * STRANGERS):
                await stack.enter_async_context(connected(node.address, "/channel/websocket", STRANGER))
            await eventually_async(partial(few_connections, node))
            silent[1].write(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await silent[0].readline()).split()[1] == b"200"


async def test_sessions_of_strangers_displace_each_other(node: HttpNode) -> None:
    assert node.handler._application is not None
    router = CHANNEL.router(node.handler._application)
    router.limits = router.limits._replace(disconnect_delay=60, max_sessions=5)
    router.strangers.limit = 3
    assert (await node.call("POST", "/channel/0/mine/xhr", b"", KEY)).body == b"o\n"
    for number in range(6):
        assert (await node.call("POST", f"/channel/0/{number}/xhr", b"")).body == b"o\n"
    assert set(router.sessions) == {"mine", "3", "4", "5"}
    for name in ("mine2", "mine3"):
        assert (await node.call("POST", f"/channel/0/{name}/xhr", b"", KEY)).body == b"o\n"
    assert set(router.sessions) == {"mine", "mine2", "mine3", "4", "5"}
    assert (await node.call("POST", "/channel/0/mine/xhr_send", b'["x"]', KEY)).status == 204
    for session in list(router.sessions.values()):
        session.expire()


@pytest.mark.parametrize("headers", [{"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}, KEY])
async def test_a_session_belongs_to_who_opened_it(node: HttpNode, headers: dict[str, str]) -> None:
    """Its id stands in URLs, so who knows it has proved nothing."""
    assert (await node.call("POST", "/channel/0/mine/xhr", b"")).body == b"o\n"
    assert (await node.call("POST", "/channel/0/mine/xhr_send", b'["AUTH:honest"]')).status == 204
    command = json.dumps({"event": "CMD", "data": {"identity": 1, "name": "jobs"}})
    for path in ("xhr_send", "xhr", "xhr_streaming"):
        answer = await node.call("POST", f"/channel/0/mine/{path}", json.dumps([command]).encode(), headers)
        assert (answer.status, answer.error) == (403, "forbidden")
    assert (await node.call("GET", "/channel/0/mine/eventsource", headers=headers)).status == 403
    assert (await node.call("POST", "/channel/0/mine/xhr_send", json.dumps([command]).encode())).status == 204
    assert b"command_success" in (await node.call("POST", "/channel/0/mine/xhr", b"")).body


@needs_root
async def test_a_session_is_not_for_another_user(node: HttpNode) -> None:
    assert (await node.call("POST", "/channel/0/mine/xhr", b"")).body == b"o\n"
    port = node.address.rpartition(":")[2]
    for path, status in (("mine/xhr_send", "403"), ("mine/xhr", "403"), ("other/xhr", "200")):
        with stranger(CALL, port, f"/channel/0/{path}", '["AUTH:honest"]') as caller:
            output, _ = await asyncio.to_thread(caller.communicate)
        assert output.strip() == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/jobs/default", {}, 401),
        ("/nope", {}, 401),
        ("/jobs/default", {"Host": "evil.example.com"}, 403),
        ("/auth/nope", {"Origin": "http://evil.example.com"}, 403),
        ("/channel/0/0/xhr_send", {}, 413),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_of_a_stranger_is_refused_by_its_head(
    node: HttpNode, path: str, headers: dict[str, str], status: int, is_chunked: bool
) -> None:
    """No more than its beginning is sent here, and the answer comes."""
    reader, writer = await asyncio.open_connection(*node.address.removeprefix("http://").rsplit(":", 1))
    size = STRANGER_BODY + 1
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {10 * size}"
    lines = {"Host": "localhost", **headers}
    head = f"POST {path} HTTP/1.1\r\n{length}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    body = b"%x\r\n%b\r\n" % (size, b" " * size) if is_chunked else b""
    writer.write(head.encode() + b"\r\n" + body)
    async with asyncio.timeout(5):
        assert (await reader.readline()).split()[1] == str(status).encode()
        while await reader.read(65536):
            pass
    writer.close()


async def test_a_key_holder_sends_large_bodies(node: HttpNode) -> None:
    answer = await node.call("POST", "/jobs/default", b" " * (20 * STRANGER_BODY), KEY)
    assert (answer.status, answer.json["message"]) == (400, "the body is empty")
