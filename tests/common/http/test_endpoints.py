"""Where the API listens, what it says of itself, and handlers of others beside it."""

import asyncio
import errno
import os
import resource
import socket
import ssl
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.web import RequestHandler

import gaffer
from gaffer import Manager
from gaffer.errors import GafferError
from gaffer.http.access import make_policy
from gaffer.http.server import listen_hint
from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.webhooks import WebHooks
from support.http_node import HttpNode, running_node, sleeper
from support.poll import eventually_async


@pytest.mark.row("R-01", "R-02", "R-03", "HTTP-20", "HTTP-21", "HTTP-22")
async def test_what_the_node_says_of_itself(node: HttpNode) -> None:
    assert (await node.call("GET", "/")).json == {"welcome": "gaffer", "version": gaffer.__version__}
    assert (await node.call("GET", "/version")).json == {"name": "gaffer", "version": gaffer.__version__}
    ping = await node.call("GET", "/ping")
    assert (ping.status, ping.body, ping.headers["content-type"]) == (200, b"OK", "text/plain; charset=UTF-8")
    assert (await node.call("HEAD", "/ping")).status == 200


async def test_health() -> None:
    lookupd = {"address": "http://127.0.0.1:5010", "connected": False, "error": "refused"}
    webhooks = WebHooks([(".", "https://me:secret@example.com/events?key=secret")])
    async with running_node(lookupds=lambda: [lookupd], webhooks=webhooks.status) as node:
        await node.call("POST", "/jobs/default", sleeper(start=False))
        health = (await node.call("GET", "/health")).json
    assert health.pop("uptime") >= 0
    assert health == {
        "status": "ok",
        "name": None,
        "version": gaffer.__version__,
        "pid": os.getpid(),
        "jobs": 1,
        "processes": 0,
        "lookupds": [lookupd],
        "webhooks": [
            {
                "url": "https://example.com/events",
                "pending": 0,
                "dropped": 0,
                "delivered": 0,
                "failed": 0,
                "unsaved": 0,
                "last_error": None,
            }
        ],
        "state_error": None,
        "keeper": None,
    }


@pytest.mark.row("APP-07", "HTTP-05")
async def test_several_endpoints_on_tcp_and_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "gafferd.sock"
    async with running_node(HttpEndpoint(f"127.0.0.1:0, [::1]:0, unix:{path}")) as node:
        first, second, third = node.handler.addresses
        assert first.startswith("http://127.0.0.1:")
        assert second.startswith("http://[::1]:")
        assert third == f"unix:{path}"
        for address in node.handler.addresses:
            assert (await node.call("GET", "/jobs", address=address)).status == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    assert node.handler.addresses == []


async def test_the_group_of_a_unix_socket_is_let_in(tmp_path: Path) -> None:
    path = tmp_path / "gafferd.sock"
    async with running_node(HttpEndpoint(f"unix:{path}"), socket_gid=os.getgid()):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getgid())


@pytest.mark.row("HTTP-05")
async def test_tls_on_an_endpoint(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with running_node(HttpEndpoint("127.0.0.1:0", ssl_options=context)) as node:
        assert node.address.startswith("https://127.0.0.1:")
        client = ssl.create_default_context()
        authority.configure_trust(client)
        port = int(node.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b'{"jobs":[]}')
        writer.close()
        await writer.wait_closed()


async def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gafferd.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running_node(HttpEndpoint(f"unix:{path}")) as node:
        assert (await node.call("GET", "/ping")).status == 200


async def test_a_socket_file_that_another_put_there_is_left(tmp_path: Path) -> None:
    path = tmp_path / "gafferd.sock"
    async with running_node(HttpEndpoint(f"unix:{path}")):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def _used_port(path: Path) -> str:
    return f"127.0.0.1:{_listening(socket.AF_INET, ('127.0.0.1', 0)).getsockname()[1]}"


def _used_socket(path: Path) -> str:
    _listening(socket.AF_UNIX, str(path / "used"))
    return f"unix:{path / 'used'}"


def _plain_file(path: Path) -> str:
    (path / "file").write_text("")
    return f"unix:{path / 'file'}"


_open: list[socket.socket] = []


def _listening(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    _open.append(sock)
    return sock


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_used_port, "in use"),
        (_used_socket, "another process listens"),
        (_plain_file, "not a socket"),
        (lambda path: f"unix:{path}/none/sock", "No such file"),
        (lambda path: f"unix:{path}/{'x' * 200}", "too long"),
        (lambda path: "192.0.2.1:0", "can't listen on 192.0.2.1:0"),
        (lambda path: "nohost.invalid:0", "can't listen on nohost.invalid:0"),
        (lambda path: f"{'a' * 80}.example:0", "can't listen on"),
        (lambda path: "unix:", "path of the unix socket is missing"),
        (lambda path: "127.0.0.1:99999", "port"),
        (lambda path: "127.0.0.1:abc", "port"),
    ],
)
async def test_an_address_that_cannot_be_used_is_told_and_nothing_listens(
    tmp_path: Path, make: Callable[[Path], str], says: str
) -> None:
    uri = make(tmp_path)
    handler = HttpHandler([HttpEndpoint(["127.0.0.1:0", uri])])
    manager = Manager(asyncio.get_running_loop())
    with pytest.raises(GafferError, match=says) as error:
        manager.start([handler])
    assert error.value.hint
    assert handler.addresses == []
    await eventually_async(lambda: not manager.started)
    while _open:
        _open.pop().close()


@pytest.mark.parametrize("options", [{}, {"certfile": "/nope.pem"}, {"certfile": __file__}])
async def test_a_certificate_that_cannot_be_used_is_told(options: dict[str, str]) -> None:
    handler = HttpHandler([HttpEndpoint("127.0.0.1:0", ssl_options=options)])
    manager = Manager(asyncio.get_running_loop())
    with pytest.raises(GafferError, match="certificate"):
        manager.start([handler])
    await eventually_async(lambda: not manager.started)


class Hello(RequestHandler):
    def initialize(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    def get(self, name: str) -> None:
        self.write(f"{self.greeting} {name}")

    def post(self, name: str) -> None:
        self.write("posted")


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode()]


EXTRA = [
    (r"/hello/(\w+)", Hello),
    (r"/hi/(\w+)", Hello, {"greeting": "hi"}),
    (r"/wsgi/.*", wsgi),
    (r"/(?!wsgi|h).*", wsgi),
]


@pytest.mark.row("APP-08", "FEAT-14")
async def test_handlers_of_others_beside_the_api() -> None:
    async with running_node(handlers=EXTRA) as node:
        assert (await node.call("GET", "/hello/bob")).body == b"hello bob"
        assert (await node.call("GET", "/hi/bob")).body == b"hi bob"
        assert (await node.call("POST", "/wsgi/a/b", b"x")).body == b"POST /wsgi/a/b"
        assert (await node.call("GET", "/jobs")).json == {"jobs": []}, "the API comes first"
        assert (await node.call("GET", "/other")).body == b"GET /other"
        assert (await node.call("GET", "/hello")).error == "not_found"


async def test_handlers_of_others_pass_the_same_gate() -> None:
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False)
    async with running_node(handlers=EXTRA, access=policy) as node:
        assert (await node.call("GET", "/hello/bob")).error == "auth_required"
        assert (await node.call("POST", "/wsgi/a", b"")).error == "auth_required"
    async with running_node(handlers=EXTRA) as node:
        answer = await node.call("GET", "/hello/bob", headers={"Origin": "http://evil.example.com"})
        assert (answer.status, answer.error) == (403, "forbidden_origin")


@pytest.mark.row("APP-06")
async def test_the_default_endpoint_is_the_documented_one() -> None:
    assert HttpEndpoint().uris == ["127.0.0.1:5000"]


async def test_requests_under_way_are_cut_when_the_node_stops(node: HttpNode) -> None:
    reader, writer = await asyncio.open_connection(*node.address.removeprefix("http://").split(":"))
    writer.write(b"GET /ping HTTP/1.1\r\n")  # and never ends
    await writer.drain()
    await node.stop()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_no_limit_of_descriptors_means_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    async with running_node() as node:
        assert await _answers(node)


async def _answers(node: HttpNode) -> bool:
    try:
        return (await node.call("GET", "/ping")).status == 200
    except (ConnectionError, IndexError):
        return False


@pytest.mark.parametrize(
    ("address", "error", "hint"),
    [
        (("127.0.0.1", 80), PermissionError(errno.EACCES, "Permission denied"), "CAP_NET_BIND_SERVICE"),
        (
            ("127.0.0.1", 80),
            OSError(errno.EADDRINUSE, "Address already in use"),
            "stop the program that uses the address",
        ),
        (("192.0.2.1", 80), OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "an address of this host"),
        (("nohost.invalid", 80), socket.gaierror(-2, "Name or service not known"), "an IP address of this host"),
        ("/root/x.sock", PermissionError(errno.EACCES, "Permission denied"), "an existing folder"),
        ("/nowhere/x.sock", FileNotFoundError(errno.ENOENT, "No such file or directory"), "an existing folder"),
    ],
)
def test_what_to_do_when_listening_fails(address: tuple[str, int] | str, error: OSError, hint: str) -> None:
    assert hint in listen_hint(address, error)
