"""SockJS without sessions: the greeting, /info, the iframe page, the client, and who may ask for them."""

import os
import re
from collections.abc import AsyncIterator

import pytest

from gaffer.http.access import make_policy
from support.sockjs import SockJSServer, running_server

ORIGIN = "https://dash.example.org"

IFRAME = re.compile(
    r"""<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script>
    document.domain = document.domain;
    _sockjs_onload = function\(\){SockJS.bootstrap_iframe\(\);};
  </script>
  <script src="([^"]*)"></script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>\s*"""
)

NO_CACHE = "no-store, no-cache, no-transform, must-revalidate, max-age=0"


@pytest.fixture
async def server() -> AsyncIterator[SockJSServer]:
    policy = make_policy(own_uid=os.getuid(), own_names=[], allowed_origins=[ORIGIN])
    async with running_server(policy) as server:
        yield server


@pytest.mark.row("SJS-02")
@pytest.mark.parametrize("path", ["/echo", "/echo/"])
async def test_greets(server: SockJSServer, path: str) -> None:
    answer = await server.call("GET", path)
    assert (answer.status, answer.body) == (200, b"Welcome to SockJS!\n")
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/chunking_test"])
async def test_other_paths_are_not_found(server: SockJSServer, path: str) -> None:
    assert (await server.call("GET", f"/echo{path}")).status == 404


@pytest.mark.parametrize("parts", ["/", "//", "///", "/a./a", "/a/a.", "/./.", "/a%2Eb/a"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_session_has_two_names_without_dots(server: SockJSServer, method: str, parts: str) -> None:
    for transport in ("xhr", "xhr_send", "xhr_streaming", "eventsource"):
        assert (await server.call(method, f"/echo{parts}/{transport}")).status == 404, transport


@pytest.mark.parametrize("transport", ["htmlfile", "jsonp", "jsonp_send"])
async def test_transports_that_run_scripts_of_the_query_are_off(server: SockJSServer, transport: str) -> None:
    for method in ("GET", "POST"):
        assert (await server.call(method, f"/echo/0/0/{transport}?c=alert")).status == 404


@pytest.mark.row("SJS-02")
async def test_info(server: SockJSServer) -> None:
    answers = [await server.call("GET", "/echo/info", headers={"Origin": ORIGIN}) for _ in range(2)]
    for answer in answers:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json; charset=UTF-8"
        assert answer.headers["cache-control"] == NO_CACHE
        assert not {"set-cookie", "expires", "last-modified"} & set(answer.headers)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
        entropy = answer.json.pop("entropy")
        assert type(entropy) is int
        assert 0 <= entropy < 2**32
        assert {**answer.json, "entropy": 0} == {
            "websocket": True,
            "origins": ["*:*"],
            "cookie_needed": False,
            "entropy": 0,
        }
    assert answers[0].json["entropy"] != answers[1].json["entropy"]


@pytest.mark.row("SJS-02")
@pytest.mark.parametrize(
    "name", ["iframe.html", "iframe-a.html", "iframe-.html", "iframe-0.1.2abc-dirty.2144.html", "iframe-1.6.1.html?t=1"]
)
async def test_the_iframe_page_can_be_kept_and_loads_our_own_client(server: SockJSServer, name: str) -> None:
    answer = await server.call("GET", f"/echo/{name}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, no-cache"
    assert answer.headers["expires"].endswith("GMT")
    assert not {"set-cookie", "last-modified"} & set(answer.headers)
    page = IFRAME.fullmatch(answer.body.decode())
    assert page is not None, answer.body

    script = await server.call("GET", page[1])
    assert (script.status, script.headers["content-type"]) == (200, "application/javascript; charset=UTF-8")
    assert script.body.startswith(b"/* sockjs-client v1.6.1")

    for path, whole in ((f"/echo/{name}", answer), (page[1], script)):
        known = await server.call("GET", path, headers={"If-None-Match": whole.headers["etag"]})
        assert (known.status, known.body) == (304, b"")
        assert known.headers["etag"] == whole.headers["etag"]
        assert known.headers.get("content-security-policy") == whole.headers.get("content-security-policy")
        assert "content-type" not in known.headers


@pytest.mark.parametrize(
    "name",
    ["iframe.htm", "iframe", "IFRAME.HTML", "IFRAME", "iframe.HTML", "iframe.xml", "iframe-/.html", "xiframe.html"],
)
async def test_other_names_are_no_iframe_page(server: SockJSServer, name: str) -> None:
    assert (await server.call("GET", f"/echo/{name}")).status == 404


async def test_the_iframe_page_shows_in_pages_of_allowed_origins_only(server: SockJSServer) -> None:
    def load(**headers: str) -> dict[str, str]:
        return {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site", **headers}

    allowed = await server.call("GET", "/echo/iframe.html", headers=load(Referer=f"{ORIGIN}/"))
    assert allowed.status == 200
    assert allowed.headers["content-security-policy"] == f"frame-ancestors 'self' {ORIGIN}"
    for referer in (
        "https://evil.example.org/",
        f"{ORIGIN}.evil.example.org/",
        "https://evil.example.org/" + ORIGIN,
        "",
    ):
        answer = await server.call("GET", "/echo/iframe.html", headers=load(Referer=referer))
        assert (answer.status, answer.error) == (403, "forbidden_origin"), referer


async def test_a_referer_does_not_stand_for_the_origin_of_what_changes_something(server: SockJSServer) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Referer": f"{ORIGIN}/"}
    for path in ("xhr", "xhr_send", "xhr_streaming"):
        answer = await server.call("POST", f"/echo/0/0/{path}", b"[]", headers)
        assert (answer.status, answer.error) == (403, "forbidden_origin")


SESSION_URLS = [("xhr", "POST"), ("xhr_send", "POST"), ("xhr_streaming", "POST"), ("eventsource", "GET")]


@pytest.mark.parametrize(("path", "method"), [("info", "GET"), *((f"a/b/{url}", m) for url, m in SESSION_URLS)])
async def test_a_preflight_is_answered_for_an_allowed_origin(server: SockJSServer, path: str, method: str) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Headers": "x-one, x-two"}
    answer = await server.call("OPTIONS", f"/echo/{path}", headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["cache-control"] == "public, max-age=31536000"
    assert "expires" in answer.headers
    assert int(answer.headers["access-control-max-age"]) > 1_000_000
    assert answer.headers["access-control-allow-methods"] == f"OPTIONS, {method}"
    assert answer.headers["access-control-allow-headers"] == "x-one, x-two"
    assert answer.headers["access-control-allow-origin"] == ORIGIN

    plain = await server.call("OPTIONS", f"/echo/{path}")
    assert plain.status == 204
    assert not [name for name in plain.headers if name.startswith("access-control-")]


EVERY_URL = [
    ("GET", ""),
    ("GET", "/info"),
    ("GET", "/iframe.html"),
    ("GET", "/sockjs.min.js"),
    ("GET", "/websocket"),
    ("GET", "/a/b/websocket"),
    *((method, f"/a/b/{url}") for url, method in SESSION_URLS),
]


@pytest.mark.parametrize(("method", "path"), EVERY_URL)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=["foreign", "null", "cross-site"],
)
async def test_a_foreign_page_gets_nowhere(
    server: SockJSServer, method: str, path: str, headers: dict[str, str]
) -> None:
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    sent = {**headers, **(handshake if path.endswith("websocket") else {})}
    for tried in (method, "OPTIONS"):
        answer = await server.call(tried, f"/echo{path}", headers=sent)
        assert (answer.status, answer.error) == (403, "forbidden_origin")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(("method", "path"), EVERY_URL)
async def test_methods_that_are_not_answered(server: SockJSServer, method: str, path: str) -> None:
    other = "POST" if method == "GET" else "GET"
    answer = await server.call(other, f"/echo{path}")
    assert (answer.status, answer.body) == (405, b"")
    assert answer.headers["allow"] == method
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("path", ["", "/info", "/iframe.html", "/sockjs.min.js", "/a/b/eventsource"])
async def test_head_gives_the_headers(server: SockJSServer, path: str) -> None:
    answer = await server.call("HEAD", f"/echo{path}")
    assert answer.status == 200
    assert answer.headers["content-type"].endswith("; charset=UTF-8")
    assert server.service.connections == []
