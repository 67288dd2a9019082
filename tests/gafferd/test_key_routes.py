"""Keys and logins over HTTP: who may make which key, and what ends when one is revoked."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from gaffer.http.access import Scope, make_policy
from gaffer.http.base import Routed
from gaffer.http.routes import Route
from gaffer.login.logins import Logins
from gaffer.runtime.keyfile import new_key
from gafferd.access import key_routes
from gafferd.access.keys import MAX_KEYS, KeyStore
from support.http_node import Answer, HttpNode, running_node, sleeper
from support.poll import eventually_async

COOKIE = "gaffer-test"


class EchoSocket(Routed, WebSocketHandler):
    """A websocket in the route table."""

    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


ECHO = Route("/echo", EchoSocket, {"GET": Scope.READ})


@dataclass
class Keyed:
    """A node with keys that trusts nobody without one; `owner` is the key of its file."""

    node: HttpNode
    owner: str
    store: KeyStore
    made: dict[str, str] = field(default_factory=dict)

    def make(self, *scopes: Scope, sessions: list[str] | None = None) -> str:
        new = self.store.create(scopes or Scope, sessions)
        self.made[new.key] = new.id
        return new.key

    async def call(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Answer:
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.node.call(method, path, body, {"X-Api-Key": key or "", **lines})

    async def login(self, key: str) -> str:
        """The Cookie header of a page that logged in."""
        return (await self.log_in(key))["Cookie"]

    async def log_in(self, key: str) -> dict[str, str]:
        """The headers with the cookie and the token of a page that logged in."""
        answer = await self.call("POST", "/auth/session", key=key)
        assert answer.status == 200, answer.body
        [(name, morsel)] = SimpleCookie(answer.headers["set-cookie"]).items()
        return {"Cookie": f"{name}={morsel.value}", "X_Gaffer_Token": answer.json["token"]}

    @property
    def page(self) -> dict[str, str]:
        """The headers of a request of the node's own page."""
        return {"Origin": self.node.address, "Sec_Fetch_Site": "same-origin", "Content_Type": "application/json"}


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Keyed]:
    owner = new_key()
    store, logins = KeyStore(tmp_path / "keys.json", owner), Logins(COOKIE)
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=store.verify)
    policy = replace(policy, cookie=COOKIE, resume=logins.resume)
    routes = [*key_routes.ROUTES, ECHO]
    async with running_node(access=policy, routes=routes, keys=store, logins=logins) as node:
        yield Keyed(node, owner, store)


# Making and revoking


@pytest.mark.row("R-91", "R-93", "HTTP-42")
async def test_a_key_is_made_shown_and_revoked(keyed: Keyed) -> None:
    answer = await keyed.call("POST", "/keys", {"scopes": ["read"], "sessions": ["blog"]}, keyed.owner)
    assert answer.status == 201
    identifier, key = answer.json["id"], answer.json["key"]
    told = (await keyed.call("GET", f"/keys/{identifier}", key=keyed.owner)).json
    assert {**told, "created": 0} == {"id": identifier, "scopes": ["read"], "sessions": ["blog"], "created": 0}
    listed = (await keyed.call("GET", "/keys", key=keyed.owner)).json["keys"]
    assert [entry["id"] for entry in listed] == ["file", identifier]
    assert key not in json.dumps(listed)
    assert (await keyed.call("GET", "/jobs/blog", key=key)).status != 401
    assert (await keyed.call("HEAD", f"/keys/{identifier}", key=keyed.owner)).status == 200
    assert (await keyed.call("DELETE", f"/keys/{identifier}", key=keyed.owner)).json == {"ok": True}
    assert (await keyed.call("GET", "/jobs/blog", key=key)).status == 401
    assert (await keyed.call("DELETE", f"/keys/{identifier}", key=keyed.owner)).status == 404


async def test_the_key_of_the_file_is_shown_and_stays(keyed: Keyed) -> None:
    told = (await keyed.call("GET", "/keys/file", key=keyed.owner)).json
    assert told == {"id": "file", "scopes": ["control", "define", "read"], "sessions": None, "created": None}
    answer = await keyed.call("DELETE", "/keys/file", key=keyed.owner)
    assert (answer.status, answer.error) == (409, "key_of_file")
    assert answer.json["hint"]
    assert (await keyed.call("GET", "/keys", key=keyed.owner)).status == 200


@pytest.mark.parametrize(
    ("scopes", "sessions", "asked", "status"),
    [
        (list(Scope), None, {"scopes": ["read", "control", "define"]}, 201),
        (list(Scope), ["blog", "shop"], {"scopes": ["read"], "sessions": ["blog"]}, 201),
        (list(Scope), ["blog"], {"scopes": ["read"], "sessions": ["shop"]}, 403),
        (list(Scope), ["blog"], {"scopes": ["read"], "sessions": ["blog", "shop"]}, 403),
        (list(Scope), ["blog"], {"scopes": ["read"]}, 403),
        ([Scope.DEFINE], None, {"scopes": ["define"]}, 201),
        ([Scope.DEFINE], None, {"scopes": ["read"]}, 403),
        ([Scope.READ, Scope.CONTROL], None, {"scopes": ["read"]}, 403),
    ],
)
async def test_nobody_gives_more_than_he_has(
    keyed: Keyed, scopes: list[Scope], sessions: list[str] | None, asked: dict[str, Any], status: int
) -> None:
    key = keyed.make(*scopes, sessions=sessions)
    before = len(keyed.store.records)
    assert (await keyed.call("POST", "/keys", asked, key)).status == status
    assert len(keyed.store.records) - before == (status == 201)


async def test_nobody_sees_or_revokes_keys_that_allow_more_than_his_own(keyed: Keyed) -> None:
    blog = keyed.make(sessions=["blog"])
    other = keyed.make(sessions=["shop"])
    listed = (await keyed.call("GET", "/keys", key=blog)).json["keys"]
    assert [entry["id"] for entry in listed] == [keyed.made[blog]]
    for method in ("GET", "DELETE"):
        for identifier in (keyed.made[other], "file"):
            assert (await keyed.call(method, f"/keys/{identifier}", key=blog)).status == 403
    assert len(keyed.store.records) == 2


async def test_who_revokes_the_own_key_is_answered(keyed: Keyed) -> None:
    key = keyed.make()
    assert (await keyed.call("DELETE", f"/keys/{keyed.made[key]}", key=key)).json == {"ok": True}
    assert (await keyed.call("GET", "/keys", key=key)).status == 401


@pytest.mark.row("HTTP-08")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$"),
        ({"scopes": []}, "$.scopes"),
        ({"scopes": ["admin"]}, "$.scopes[0]"),
        ({"scopes": "read"}, "$.scopes"),
        ({"scopes": ["read"], "sessions": []}, "$.sessions"),
        ({"scopes": ["read"], "sessions": ["a", "b c"]}, "$.sessions[1]"),
        ({"scopes": ["read"], "sessions": [f"s{i}" for i in range(300)]}, "$.sessions"),
        ({"scopes": ["read"], "session": ["a"]}, "$"),
        (b"{", None),
    ],
)
async def test_a_wrong_request_makes_no_key(keyed: Keyed, body: Any, path: str | None) -> None:
    answer = await keyed.call("POST", "/keys", body, keyed.owner)
    assert (answer.status, answer.json["path"]) == (400, path)
    assert keyed.store.records == []


async def test_the_number_of_keys_is_bounded(keyed: Keyed) -> None:
    for _ in range(MAX_KEYS):
        keyed.make(Scope.READ)
    answer = await keyed.call("POST", "/keys", {"scopes": ["read"]}, keyed.owner)
    assert (answer.status, answer.error) == (409, "too_many_keys")


# What is open when a key is revoked


@pytest.mark.parametrize("by_cookie", [False, True])
async def test_a_revoked_key_loses_its_feeds_and_websockets_at_once(keyed: Keyed, by_cookie: bool) -> None:
    await keyed.call("POST", "/jobs/blog", sleeper("web", redirect_output=["out"]), keyed.owner)
    await eventually_async(lambda: len(keyed.node.manager.running) == 1)
    [pid] = keyed.node.manager.running
    revoked, kept = keyed.make(), keyed.make()
    opened = []
    for key in (revoked, kept):
        headers = {"Cookie": await keyed.login(key)} if by_cookie else {"X-Api-Key": key}
        feed = await keyed.node.follow(f"/streams/{pid}/out?feed=continuous", headers)
        assert feed.status == 200
        url = keyed.node.address.replace("http:", "ws:") + "/echo"
        page = {"Origin": keyed.node.address, **headers}
        websocket = await websocket_connect(HTTPRequest(url, headers=page))
        opened.append((feed, websocket))
    assert (await keyed.call("DELETE", f"/keys/{keyed.made[revoked]}", key=keyed.owner)).status == 200
    (feed, websocket), (other_feed, other_websocket) = opened
    async with asyncio.timeout(5):
        assert await websocket.read_message() is None
        assert (websocket.close_code, websocket.close_reason) == (1008, "access was revoked")
        websocket.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
            await feed.read_all()
        await other_websocket.write_message("still")
        assert await other_websocket.read_message() == "still"
    assert not other_feed.reader.at_eof()
    other_websocket.close()
    assert await other_websocket.read_message() is None


async def test_a_page_that_logs_out_loses_its_websockets(keyed: Keyed) -> None:
    login = await keyed.log_in(keyed.owner)
    cookie = login["Cookie"]
    url = keyed.node.address.replace("http:", "ws:") + "/echo"
    websocket = await websocket_connect(HTTPRequest(url, headers={"Origin": keyed.node.address, "Cookie": cookie}))
    answer = await keyed.call("DELETE", "/auth/session", Cookie=cookie, **keyed.page)
    assert (answer.status, answer.error) == (403, "token_required")
    answer = await keyed.call("DELETE", "/auth/session", **login, **keyed.page)
    assert (answer.status, answer.json) == (200, {"ok": True})
    assert SimpleCookie(answer.headers["set-cookie"])[COOKIE].value == ""
    async with asyncio.timeout(5):
        assert await websocket.read_message() is None
    websocket.close()
    assert (await keyed.call("GET", "/jobs", Cookie=cookie)).status == 401
    assert (await keyed.call("GET", "/jobs", key=keyed.owner)).status == 200


# Cookies


@pytest.mark.row("R-90")
@pytest.mark.parametrize("way", ["x-api-key", "bearer", "body"])
async def test_a_page_exchanges_its_key_for_a_cookie(keyed: Keyed, way: str) -> None:
    key = keyed.make(Scope.READ, sessions=["blog"])
    ways: dict[str, dict[str, Any]] = {
        "x-api-key": {"key": key},
        "bearer": {"Authorization": f"Bearer {key}"},
        "body": {"body": {"key": key}},
    }
    answer = await keyed.call("POST", "/auth/session", **ways[way], **keyed.page)
    assert answer.status == 200
    told = {"scopes": ["read"], "sessions": ["blog"], "cookie": True, "idle_timeout": 43200.0}
    assert {**answer.json, "token": ""} == {**told, "token": ""}
    assert answer.headers["cache-control"] == "no-store"
    morsel = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["secure"]) == (True, "Strict", "/", "")
    assert key not in answer.headers["set-cookie"]
    cookie = f"other=1; {COOKIE}={morsel.value}; more=2"
    assert (await keyed.call("GET", "/auth/session", Cookie=cookie)).json == told
    assert (await keyed.call("GET", "/jobs", Cookie=cookie)).status == 200
    assert (await keyed.call("GET", "/jobs", Cookie=cookie, Host="name.of.a.proxy")).status == 200
    assert (await keyed.call("GET", "/jobs/shop", Cookie=cookie)).status == 403
    both = {"Cookie": cookie, "X_Gaffer_Token": answer.json["token"], **keyed.page}
    assert (await keyed.call("GET", "/auth/session", **both)).json == told
    assert (await keyed.call("POST", "/jobs/blog", sleeper(), **both)).error == "forbidden"


async def test_a_cookie_alone_reads_and_gives_no_orders(keyed: Keyed) -> None:
    login = await keyed.log_in(keyed.owner)
    other = await keyed.log_in(keyed.owner)
    job = sleeper(start=False, env={"PASSWORD": "hunter2"})
    for token in (None, "", login["Cookie"], other["X_Gaffer_Token"]):
        headers = {"Cookie": login["Cookie"], **keyed.page, **({} if token is None else {"X_Gaffer_Token": token})}
        for method, path, body in (
            ("POST", "/jobs/blog", job),
            ("POST", "/keys", {"scopes": ["read"]}),
            ("GET", "/keys", None),
            ("DELETE", "/auth/session", None),
        ):
            answer = await keyed.call(method, path, body, **headers)
            assert (answer.status, answer.error) == (403, "token_required")
        assert (await keyed.call("GET", "/auth/session", **headers)).json["scopes"] == ["read"]
    assert (await keyed.call("POST", "/jobs/blog", job, **login, **keyed.page)).status == 200
    path = f"/jobs/blog/{job['name']}"
    shown = [(await keyed.call("GET", path, **headers)).json for headers in (login, {"Cookie": login["Cookie"]})]
    assert [info["config"]["env"]["PASSWORD"] for info in shown] == ["hunter2", None]


async def test_who_has_no_key_gets_no_cookie(keyed: Keyed) -> None:
    for body in ({"key": "wrong"}, {"key": ""}):
        answer = await keyed.call("POST", "/auth/session", body)
        assert (answer.status, answer.error) == (401, "auth_required")
        assert "set-cookie" not in answer.headers
    assert (await keyed.call("POST", "/auth/session", {})).status == 400
    assert (await keyed.call("POST", "/auth/session", key="wrong")).status == 401
    for cookie in ("", f"{COOKIE}=wrong", f"{COOKIE}=", f"{COOKIE}"):
        assert (await keyed.call("GET", "/auth/session", Cookie=cookie)).error == "auth_required"
        assert (await keyed.call("GET", "/jobs", Cookie=cookie)).status == 401


async def test_logging_in_again_ends_the_old_cookie(keyed: Keyed) -> None:
    old = await keyed.login(keyed.owner)
    answer = await keyed.call("POST", "/auth/session", {"key": keyed.make(Scope.READ)}, Cookie=old, **keyed.page)
    assert answer.json["scopes"] == ["read"]
    assert (await keyed.call("GET", "/jobs", Cookie=old)).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "http://evil.example.com"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
async def test_a_cookie_gives_orders_only_for_the_own_page(keyed: Keyed, headers: dict[str, str], status: int) -> None:
    headers = {**await keyed.log_in(keyed.owner), "Content_Type": "application/json", **headers}
    answer = await keyed.call("POST", "/jobs/blog", sleeper(start=False), **headers)
    assert answer.status == status
    assert status == 200 or answer.error == "forbidden_origin"
    assert len(keyed.node.manager.jobs()) == (status == 200)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    headers = {**headers, **upgrade, "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    exchange = await keyed.node.follow("/echo", {name.replace("_", "-"): value for name, value in headers.items()})
    assert exchange.status == (101 if status == 200 else 403)


async def test_a_caller_with_a_key_learns_what_it_allows(keyed: Keyed) -> None:
    key = keyed.make(Scope.READ, Scope.CONTROL, sessions=["shop", "blog"])
    told = (await keyed.call("GET", "/auth/session", key=key)).json
    assert told == {
        "scopes": ["control", "read"],
        "sessions": ["blog", "shop"],
        "cookie": False,
        "idle_timeout": 43200.0,
    }


# Websockets of pages


@asynccontextmanager
async def page_socket(keyed: Keyed, path: str, cookie: str) -> AsyncIterator[Any]:
    url = keyed.node.address.replace("http:", "ws:") + path
    headers = {"Origin": keyed.node.address, "Cookie": cookie}
    async with asyncio.timeout(10):
        websocket = await websocket_connect(HTTPRequest(url, headers=headers))
        yield websocket
        websocket.close()
        while await websocket.read_message() is not None:
            pass


async def test_a_page_sends_its_token_first_on_a_channel(keyed: Keyed) -> None:
    await keyed.call("POST", "/jobs/blog", sleeper("web", start=False), keyed.owner)
    login = await keyed.log_in(keyed.owner)
    command = json.dumps({"event": "CMD", "data": {"identity": 1, "name": "scale", "args": ["blog.web", "=3"]}})
    answers = []
    for first in ([], [f"AUTH:{login['X_Gaffer_Token']}"]):
        async with page_socket(keyed, "/channel/websocket", login["Cookie"]) as websocket:
            for message in (*first, command):
                await websocket.write_message(message)
            answers.append(json.loads(await websocket.read_message()))
    alone, both = answers
    assert (alone["event"], alone["data"]["error"]["reason"]) == ("gaffer:command_error", "token_required")
    assert both == {"event": "gaffer:command_success", "data": {"id": 1, "result": {"numprocesses": 3}}}
    async with page_socket(keyed, "/channel/websocket", login["Cookie"]) as websocket:
        await websocket.write_message(f"AUTH:{keyed.owner}")
        assert json.loads(await websocket.read_message())["data"]["error"] == "AUTH_REQUIRED"
    assert websocket.close_code == 4401


async def test_a_page_sends_its_token_first_on_the_input_of_a_process(keyed: Keyed) -> None:
    job = {"name": "cat", "cmd": "cat", "redirect_output": ["out"], "redirect_input": True}
    await keyed.call("POST", "/jobs/blog", job, keyed.owner)
    await eventually_async(lambda: len(keyed.node.manager.running) == 1)
    [pid] = keyed.node.manager.running
    login = await keyed.log_in(keyed.owner)
    for first, answer in (
        (None, "token_required"),
        ("wrong", "auth_required"),
        (login["X_Gaffer_Token"], "hello"),
    ):
        async with page_socket(keyed, f"/wstreams/{pid}", login["Cookie"]) as websocket:
            if first is not None:
                await websocket.write_message(f"AUTH:{first}")
            await websocket.write_message("hello\n")
            assert answer in await websocket.read_message()
