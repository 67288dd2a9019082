"""The gate before every route: methods, origins, hosts, keys, scopes, sessions; and bodies over the limit."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from gaffer.http.access import ALL_SCOPES, Grant, Scope, make_policy
from gaffer.http.base import MAX_DISCARDED
from gaffer.http.limits import DEFAULT_LIMITS
from support.http_node import HttpNode, running_node, script, sleeper
from support.poll import eventually_async

ORIGIN = "https://dash.example.org"

KEYS = {
    "all": Grant(ALL_SCOPES),
    "none": Grant(frozenset()),
    **{scope.value: Grant(frozenset({scope})) for scope in Scope},
    "blog": Grant(ALL_SCOPES, frozenset({"blog"})),
}


@pytest.fixture
async def keyed() -> AsyncIterator[HttpNode]:
    """A node that trusts nobody without a key, with the jobs blog.web and shop.web."""
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=KEYS.get)
    async with running_node(access=policy) as node:
        for session in ("blog", "shop"):
            body = sleeper("web", redirect_output=["out"], redirect_input=True)
            assert (await node.call("POST", f"/jobs/{session}", body, key("all"))).status == 200
        await eventually_async(lambda: len(node.manager.running) == 2)
        yield node


@pytest.fixture
async def open_to_dash() -> AsyncIterator[HttpNode]:
    policy = make_policy(own_uid=os.getuid(), own_names=["node1"], allowed_origins=[ORIGIN])
    async with running_node(access=policy) as node:
        yield node


def key(name: str) -> dict[str, str]:
    return {"X-Api-Key": name}


async def test_lists_show_a_limited_key_its_own(keyed: HttpNode) -> None:
    async def get(path: str) -> object:
        return (await keyed.call("GET", path, headers=key("blog"))).json

    assert await get("/sessions") == {"sessions": ["blog"]}
    assert await get("/jobs") == {"jobs": ["blog.web"]}
    [pid] = keyed.manager.info("blog.web")["processes"]
    assert await get("/pids") == {"pids": [pid]}
    assert await get("/processes") == ["blog.web"]
    assert await get("/processes?running=1") == [pid]


@pytest.mark.parametrize("name", ["shop.evil", "shop:evil", "shop/evil", "evil"])
async def test_a_limited_key_cannot_load_elsewhere_by_the_name_in_the_body(keyed: HttpNode, name: str) -> None:
    assert (await keyed.call("POST", "/processes", sleeper(name), key("blog"))).status == 403
    assert (await keyed.call("POST", "/jobs/blog", sleeper("shop.evil"), key("blog"))).status == 400
    jobs = {"jobs": [sleeper("shop.evil")]}
    assert (await keyed.call("POST", "/jobs/blog", jobs, key("blog"))).status == 400
    assert len(keyed.manager.jobs()) == 2


async def test_only_define_may_commit_with_another_environment(keyed: HttpNode) -> None:
    path, env = "/jobs/blog/web/commit", {"env": {"LD_PRELOAD": "/tmp/evil.so"}}
    assert (await keyed.call("POST", path, env, key("control"))).error == "forbidden"
    assert (await keyed.call("POST", path, None, key("control"))).status == 200
    assert (await keyed.call("POST", path, env, key("all"))).status == 200


async def test_keys_are_taken_from_both_headers(keyed: HttpNode) -> None:
    assert (await keyed.call("GET", "/jobs", headers={"Authorization": "Bearer all"})).status == 200
    answer = await keyed.call("GET", "/jobs")
    assert (answer.status, answer.error) == (401, "auth_required")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/nope", "/jobs/blog/web/nope", "/"])
async def test_without_a_key_nothing_is_told(keyed: HttpNode, path: str) -> None:
    assert (await keyed.call("GET", path)).status == 401
    assert (await keyed.call("PATCH", path)).status == 401


@pytest.mark.row("HTTP-01")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/jobs", "GET, HEAD, OPTIONS"),
        ("PATCH", "/jobs/blog", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/ping", "GET, HEAD, OPTIONS"),
        ("GET", "/processes/x/_start", "OPTIONS, POST"),
        ("BREW", "/jobs", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(node: HttpNode, method: str, path: str, allow: str) -> None:
    answer = await node.call(method, path, b"")
    assert (answer.status, answer.error, answer.headers["allow"]) == (405, "method_not_allowed", allow)


@pytest.mark.row("HTTP-02", "HTTP-06")
@pytest.mark.parametrize("path", ["/", "/nope", "/jobs/default/%ff", "/jobs/a/b/c/d"])
async def test_answers_are_json_and_never_cached(node: HttpNode, path: str) -> None:
    answer = await node.call("GET", path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert isinstance(answer.json, dict)


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:5000", "node1.evil.com"])
async def test_a_rebound_name_is_refused(open_to_dash: HttpNode, host: str) -> None:
    answer = await open_to_dash.call("POST", "/jobs/default", sleeper(), {"Host": host})
    assert (answer.status, answer.error) == (403, "forbidden_host")
    assert (await open_to_dash.call("GET", "/jobs", headers={"Host": host})).status == 403
    assert (await open_to_dash.call("GET", "/jobs", headers={"Host": "node1"})).status == 200
    assert (await open_to_dash.call("GET", "/ping", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
async def test_a_strange_page_is_refused(open_to_dash: HttpNode, headers: dict[str, str]) -> None:
    for method, path, body in [
        ("GET", "/jobs", None),
        ("POST", "/jobs/default", sleeper()),
        ("OPTIONS", "/jobs", None),
    ]:
        answer = await open_to_dash.call(method, path, body, {"Content-Type": "application/json", **headers})
        assert (answer.status, answer.error) == (403, "forbidden_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert open_to_dash.manager.jobs() == []


@pytest.mark.row("HTTP-03")
async def test_an_allowed_page_may_read_answers_and_errors(open_to_dash: HttpNode) -> None:
    for path in ("/jobs", "/nope"):
        answer = await open_to_dash.call("GET", path, headers={"Origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in (await open_to_dash.call("GET", "/jobs")).headers


@pytest.mark.row("R-04", "HTTP-03")
async def test_preflights_need_no_key_and_answer_204(open_to_dash: HttpNode, keyed: HttpNode) -> None:
    answer = await open_to_dash.call("OPTIONS", "/jobs/blog", headers={"Origin": ORIGIN})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-max-age"] == "86400"
    assert {"POST", "PUT", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert {"X-Api-Key", "Authorization"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    for path in ("/jobs", "/nope", "/1", "*"):
        answer = await keyed.call("OPTIONS", path)
        assert answer.status == 204
        assert "access-control-allow-origin" not in answer.headers


async def test_what_a_page_posts_must_be_json(open_to_dash: HttpNode) -> None:
    for content_type, status in [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json", 200),
    ]:
        headers = {"Origin": ORIGIN, "Content-Type": content_type}
        answer = await open_to_dash.call("POST", "/jobs/default", sleeper(start=False), headers)
        assert answer.status == status
    curl = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await open_to_dash.call("POST", "/jobs/default", sleeper("b", start=False), curl)).status == 200


@pytest.mark.parametrize("size", [DEFAULT_LIMITS.max_body + 1, 2 * DEFAULT_LIMITS.max_body])
async def test_a_body_over_the_limit_is_told_so_after_it_was_sent(node: HttpNode, size: int) -> None:
    answer = await node.call("POST", "/jobs/default", b"x" * size)
    assert (answer.status, answer.error) == (413, "too_large")
    assert (await node.call("GET", "/jobs")).status == 200


@pytest.mark.parametrize("length", [DEFAULT_LIMITS.max_body + 1, MAX_DISCARDED + 1])
async def test_a_client_that_asks_first_is_told_at_once(node: HttpNode, length: int) -> None:
    headers = {"Expect": "100-continue", "Content-Length": str(length)}
    answer = await asyncio.wait_for(node.call("POST", "/jobs/default", b"", headers), 5)
    assert (answer.status, answer.error) == (413, "too_large")


async def test_a_refused_client_that_asks_first_is_told_at_once(keyed: HttpNode) -> None:
    headers = {"Expect": "100-continue", "Content-Length": "1000"}
    answer = await asyncio.wait_for(keyed.call("POST", "/jobs/default", b"", headers), 5)
    assert (answer.status, answer.error) == (401, "auth_required")


@pytest.mark.expects_errors("failed")
async def test_a_failure_of_the_server_is_logged_and_answered(node: HttpNode, caplog: pytest.LogCaptureFixture) -> None:
    application = node.handler._application
    assert application is not None
    application.lookupds = lambda: [{"never": 1 / 0}]
    answer = await node.call("GET", "/health")
    assert (answer.status, answer.error) == (500, "internal_error")
    assert b"ZeroDivisionError" not in answer.body
    assert "ZeroDivisionError" in caplog.text


async def test_a_stopping_node_takes_no_orders_but_answers(node: HttpNode) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on')\nwhile 1: signal.pause()"
    await node.call("POST", "/jobs/default", script("stubborn", code, redirect_output=["out"]))
    await eventually_async(lambda: len(node.manager.running) == 1)
    [pid] = node.manager.running
    await (await node.follow(f"/streams/{pid}/out?feed=continuous&tail=1")).read_until(b"on\n")
    node.manager.stop()
    answer = await node.call("POST", "/jobs/default", sleeper())
    assert (answer.status, answer.error) == (503, "stopping")
    assert (await node.call("GET", "/health")).json["status"] == "stopping"


@pytest.mark.parametrize("length", ["abc", "-1", "1, 2", "\u0663"])
async def test_a_length_that_is_no_number_is_a_bad_request(node: HttpNode, length: str) -> None:
    reader, writer = await asyncio.open_connection(*node.address.removeprefix("http://").split(":"))
    writer.write(f"POST /jobs/default HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()


async def test_a_query_that_is_not_utf8_is_a_bad_request(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper(redirect_output=["out"]))
    await eventually_async(lambda: len(node.manager.running) == 1)
    [pid] = node.manager.running
    answer = await node.call("GET", f"/streams/{pid}/out?feed=%ff")
    assert (answer.status, answer.error) == (400, "bad_request")
