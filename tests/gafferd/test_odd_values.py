"""Values beyond what Python or the kernel can convert are wrong requests, wherever they stand."""

import http.client
import json
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest

from support.daemons import Daemon, gafferd
from support.poll import eventually
from support.websocket import connected

NUMBERS = (
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 5000,
    "1e999",
    "-1e999",
    "1e308",
    "NaN",
    "Infinity",
    "18446744073709551616",
)
TEXTS = (*(f'"{number}"' for number in NUMBERS), '"nan"', '"inf"', '"\\u0000"', '"\\ud800"', '"\\ud83d"', '"\\ufeff1"')
ODD = (*NUMBERS, *TEXTS)

BODIES = [
    *(
        ("POST", "/jobs/own", f'{{"name": "a", "cmd": "x", "start": false, "{key}": %}}')
        for key in (
            *("numprocesses", "priority", "graceful_timeout", "uid", "gid", "flapping", "port", "args", "startsecs"),
            *("max_memory", "log_max_size", "log_backups", "start", "endpoints", "cwd", "shell", "custom_streams"),
        )
    ),
    ("POST", "/jobs/own", '{"name": "a", "start": false, "cmd": %}'),
    ("POST", "/jobs/own", '{"cmd": "x", "start": false, "name": %}'),
    ("POST", "/jobs/own", '{"name": "a", "cmd": "x", "start": false, "flapping": {"attempts": %}}'),
    ("POST", "/jobs/own", '{"name": "a", "cmd": "x", "start": false, "flapping": {"window": %}}'),
    ("POST", "/jobs/own", '{"name": "a", "cmd": "x", "start": false, "flapping": [%, 1, 1, 1]}'),
    ("POST", "/jobs/own", '{"name": "a", "cmd": "x", "start": false, "env": {"A": %}}'),
    ("POST", "/jobs/own", '{"name": "a", "cmd": "x", "start": false, "args": [%]}'),
    ("POST", "/jobs/own", '{"jobs": [{"name": "a", "cmd": "x", "start": false, "priority": %}]}'),
    ("PUT", "/processes/own.web", '{"cmd": "sleep 1000", "priority": %}'),
    ("POST", "/jobs/own/web/numprocesses", '{"scale": %}'),
    ("POST", "/jobs/own/web/signal", '{"signal": %}'),
    ("POST", "/jobs/own/web/commit", '{"graceful_timeout": %}'),
    ("POST", "/jobs/own/web/commit", '{"env": {"A": %}}'),
    ("POST", "/keys", '{"scopes": ["read"], "sessions": [%]}'),
    ("POST", "/auth/session", '{"key": %}'),
]

PLACES = [
    "/jobs/%",
    "/jobs/own/%",
    "/processes/%",
    "/processes/own.web/_add/%",
    "/processes/own.web/_signal/%",
    "/%",
    "/%/stats",
    "/streams/%/out",
    "/keys/%",
    "/stats/%",
    "/watch?heartbeat=%",
    "/watch?after=%",
    "/watch?tail=%",
    "/_plugin/p/%",
]

DATES = ("Mon, 99 Foo 99999999999 9:9:9", "Thu, 01 Jan 292277026596 00:00:00 GMT")
NO_PATH = ("invalid_json", "bad_signal")  # errors that are about all of a body, or of a path of the API too

HEADERS = ("Last-Event-ID", "Range", "If-Range", "If-None-Match", "If-Modified-Since", "Accept", "Expect", "Cookie")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "p").mkdir()
    (folder / "p" / "index.html").write_text("hello")
    with gafferd("--plugins-dir", str(folder)) as node:
        job = {"name": "web", "cmd": "sleep 1000", "redirect_output": ["out"], "numprocesses": 1}
        assert call(node, "POST", "/jobs/own", json.dumps(job))[0] == 200
        eventually(lambda: json.loads(call(node, "GET", "/pids")[1])["pids"] == [1])
        yield node
        assert "Traceback" not in node.stderr


def call(
    node: Daemon, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read1(65536)
    finally:
        connection.close()


def test_in_bodies(node: Daemon) -> None:
    wrong = {}
    for (method, path, template), odd in product(BODIES, ODD):
        status, body = call(node, method, path, template.replace("%", odd))
        if status >= 500 or len(body) > 2000:
            wrong[path, template[:80], odd[:20]] = status, body[:200]
        if status == 400 and json.loads(body)["path"] is None and json.loads(body)["error"] not in NO_PATH:
            wrong[path, template[:80], odd[:20]] = status, body[:200]
        if path == "/jobs/own" and status == 200:
            for name in json.loads(call(node, "GET", "/jobs/own")[1])["jobs"]:
                if name != "own.web":
                    call(node, "DELETE", f"/jobs/own/{name.removeprefix('own.')}")
    assert wrong == {}


def test_in_paths_and_queries(node: Daemon) -> None:
    odd = ["9" * 400, "9" * 5000, "1e999", "NaN", "%00", "%ED%A0%80", "%FF", "٣", "-1"]
    wrong = {}
    for place, value in product(PLACES, odd):
        path = place.replace("%", quote(value, safe="%+-."))
        for method in ("GET", "POST"):
            status, body = call(node, method, path)
            if status >= 500:
                wrong[method, path[:60]] = status, body[:200]
    assert wrong == {}


def test_in_headers(node: Daemon) -> None:
    odd = ("9" * 5000, "1e999", "NaN", "\xff", "\x01", f"bytes={'9' * 18}-", f"bytes=-{'9' * 5000}", *DATES)
    wrong = {}
    for name, value in product(HEADERS, odd):
        follow = "/watch?heartbeat=0.1&feed=longpoll"
        for path in ("/ping", "/_plugin/p/", *([follow] if name == "Last-Event-ID" else [])):
            status, body = call(node, "GET", path, None, {name: value})
            if status >= 500:
                wrong[name, value[:30], path] = status, body[:200]
    assert wrong == {}


async def test_in_messages(node: Daemon) -> None:
    async with connected(node.url, "/channel/websocket") as socket:
        for odd in ODD:
            for data in (
                f'"identity": {odd}, "name": "jobs"',
                f'"identity": 1, "name": {odd}',
                *(f'"identity": 1, "name": "{name}", "args": [{odd}]' for name in ("process_info", "jobs", "stats")),
                f'"identity": 1, "name": "scale", "args": ["own.web", {odd}]',
                f'"identity": 1, "name": "kill", "args": [1, {odd}]',
                f'"identity": 1, "name": "kill", "args": [{odd}, 18]',
                f'"identity": 1, "name": "commit", "args": ["own.web", {odd}]',
                f'"identity": 1, "name": "commit", "kwargs": {{"name": "own.web", "env": {{"A": {odd}}}}}',
                f'"identity": 1, "name": "load", "args": [{{"name": "a", "cmd": "x", "start": false, "uid": {odd}}}]',
            ):
                await socket.send(f'{{"event": "CMD", "data": {{{data}}}}}')
                answer: Any = await socket.receive_json()
                if isinstance(answer["data"].get("error"), dict):
                    assert answer["data"]["error"]["errno"] < 500, (data[:80], answer)
            await socket.send(f'{{"event": "SUB", "data": {{"topic": {odd}}}}}')
            assert (await socket.receive_json())["event"] in ("gaffer:error", "gaffer:subscription_error")
