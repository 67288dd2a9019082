"""The sites of plugins over HTTP: what is served, how, and what must never be."""

import asyncio
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaffer.http.base import NotFound
from gaffer.http.limits import Limits
from gaffer.http.media_types import media_type
from gaffer.runtime.trusted_files import find_danger
from gafferd.plugins.folder import PluginFolder
from gafferd.sites import site_routes
from gafferd.sites.files import Sites
from gafferd.sites.layout import MAX_ENTRIES
from support.http_node import HttpNode, running_node
from support.poll import eventually_async
from support.writable import OTHERS_WRITE

PAGE = b"<!doctype html><title>Hello</title>"
SECRET = b"not for the web"
LARGE = 32 << 20  # bytes; more than the system keeps for a client that doesn't take them


@dataclass
class Served:
    """A node, and the folder of its plugins."""

    node: HttpNode
    folder: Path

    @property
    def site(self) -> Path:
        return self.folder / "hello" / "_site"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of plugins with one that has a site, and secrets around it."""
    folder = tmp_path / "plugins"
    site = folder / "hello" / "_site"
    (site / "docs").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "index.html").write_bytes(PAGE)
    (site / "docs" / "index.html").write_bytes(b"docs")
    (site / "a b.js").write_bytes(b"0123456789")
    (site / ".hidden").write_bytes(SECRET)
    (site / ".git").mkdir()
    (site / ".git" / "config").write_bytes(SECRET)
    (folder / "hello" / "plugin").mkdir()
    (folder / "hello" / "plugin" / "__init__.py").write_bytes(SECRET)
    (folder / "hello" / "secret").write_bytes(SECRET)
    (folder / "secret").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)
    return folder


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    sites = Sites(PluginFolder([folder]), os.geteuid())
    async with running_node(routes=site_routes.ROUTES, sites=sites, limits=Limits(body_timeout=0.5)) as node:
        yield Served(node, folder)


@pytest.mark.row("PLG-10")
@pytest.mark.parametrize(
    ("path", "body", "media"),
    [
        ("", PAGE, "text/html; charset=UTF-8"),
        ("index.html", PAGE, "text/html; charset=UTF-8"),
        ("docs/", b"docs", "text/html; charset=UTF-8"),
        ("a%20b.js", b"0123456789", "text/javascript; charset=UTF-8"),
    ],
)
async def test_files_and_their_types(served: Served, path: str, body: bytes, media: str) -> None:
    answer = await served.node.call("GET", f"/_plugin/hello/{path}?v=1")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, media)
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = await served.node.call("HEAD", f"/_plugin/hello/{path}")
    assert head.headers["content-length"] == str(len(body))
    for name in ("content-type", "etag", "last-modified", "accept-ranges", "cache-control"):
        assert head.headers[name] == answer.headers[name]


@pytest.mark.row("PLG-10")
@pytest.mark.parametrize(
    ("path", "location"),
    [("hello", "hello/"), ("hello?a=b%20c", "hello/?a=b%20c"), ("hello/docs", "docs/"), ("hello/docs?x", "docs/?x")],
)
async def test_a_folder_is_behind_its_slash(served: Served, path: str, location: str) -> None:
    answer = await served.node.call("GET", f"/_plugin/{path}")
    assert (answer.status, answer.headers["location"], answer.error) == (301, location, "moved")


@pytest.mark.parametrize("path", ["", "docs", "nope", "../x", "%FF", "index.html?\0"])
async def test_no_other_site_shows_a_page_in_a_frame(served: Served, path: str) -> None:
    answer = await served.node.call("GET", f"/_plugin/hello/{path}")
    assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"
    address = served.node.address.replace("127.0.0.1", "0.0.0.0")
    headers = {"Host": address.removeprefix("http://"), "Referer": "http://evil.example.com/"}
    refused = await served.node.call("GET", f"/_plugin/hello/{path}", None, headers)
    assert refused.status == (400 if answer.status == 400 else 403)
    assert refused.headers["content-security-policy"] == "frame-ancestors 'self'"


async def test_a_location_stays_on_the_node(served: Served) -> None:
    name = "http:evil.example.com"
    (served.site / name).mkdir()
    answer = await served.node.call("GET", f"/_plugin/hello/{name}")
    assert answer.headers["location"] == "http%3Aevil.example.com/"


@pytest.mark.row("PLG-10")
@pytest.mark.parametrize(
    "path",
    [
        "nope/",
        "nope",
        "hello/nope.html",
        "hello/empty/",
        "hello/index.html/",
        "hello/docs//index.html",
        "hello/../secret",
        "hello/%2e%2e/secret",
        "hello/..%2fsecret",
        "hello/docs/../../secret",
        "hello/docs/..",
        "hello//etc/passwd",
        "hello/%2fetc/passwd",
        "hello/./index.html",
        "hello/index.html%00.js",
        "hello/.hidden",
        "hello/%2ehidden",
        "hello/.git/config",
        "hello/%252e%252e/secret",
        "hello/%252e%252e%252fsecret",
        "hello/..%5csecret",
        "hello/..\\..\\secret",
        "hello/docs%5cindex.html",
        "hello/%u002e%u002e/secret",
        "hello/.%2e/secret",
        "hello/%2e./secret",
        "hello/..;/secret",
        "hello/docs/..;/..;/secret",
        "hello/%00",
        "hello/docs/%00/../../secret",
        "hello/secret%00.html",
        "hello/index.html%0d%0aX-Evil:1",
        "hello/%7e/secret",
        "hello/\uff0e\uff0e/secret".encode().decode("latin-1"),
        "hello/INDEX.HTML",
        "hello/index.html.",
        "hello/index.html::$DATA",
        "hello/" + "%78" * 255 + "x",
        "hello/" + "../" * 200 + "etc/passwd",
        "hello/" + "x" * 300,
        "hello/" + "x/" * 3000,
        "..",
        "../",
        "../secret",
        "./hello/",
        "%2e%2e/secret",
        "hello%2f_site/index.html",
        "%00/",
        "/index.html",
        "",
        "secret",
    ],
)
async def test_what_is_no_file_of_a_site(served: Served, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await served.node.call(method, f"/_plugin/{path}")
        assert answer.status == 404
    assert (await served.node.call("GET", f"/_plugin/{path}")).error == "not_found"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("GET /_plugin/hello/../../../../etc/passwd HTTP/1.1\r\nHost: {host}", 404),
        ("GET /../_plugin/hello/index.html HTTP/1.1\r\nHost: {host}", 404),
        ("GET http://{host}/_plugin/hello/../secret HTTP/1.1\r\nHost: {host}", 404),
        ("GET //{host}/_plugin/hello/index.html HTTP/1.1\r\nHost: {host}", 404),
        ("GET /_plugin/hello/index.html#/../secret HTTP/1.1\r\nHost: {host}", 404),
        ("GET /_plugin/hello/%c0%ae%c0%ae/secret HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/%c0%ae%c0%ae%c0%afsecret HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/%e0%80%ae%e0%80%ae/secret HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/..%c1%9csecret HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/..%ff/secret HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/a b.js HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/\0 HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/index.html\0.js HTTP/1.1\r\nHost: {host}", 400),
        ("GET /_plugin/hello/" + "x" * 70_000 + " HTTP/1.1\r\nHost: {host}", 431),
        ("POST /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0", 405),
        ("PUT /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0", 405),
        ("DELETE /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}", 405),
        ("PROPFIND /_plugin/hello/ HTTP/1.1\r\nHost: {host}", 405),
        ("TRACE /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}", 405),
        ("get /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}", 405),
        ("GET /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nRange: bytes=-99999999999999999999", 200),
        ("GET /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-0,-1,1-99", 200),
        ("GET /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nRange: bytes=9999-", 416),
        ("GET /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nRange: bytes=-0", 416),
        ("GET /_plugin/hello/index.html HTTP/1.1\r\nHost: {host}\r\nRange: bytes=\u0661-\u0662", 200),
        ("GET /_plugin/hello/%2e%2e/secret HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-3", 404),
    ],
)
async def test_odd_requests_over_a_socket(served: Served, lines: str, status: int) -> None:
    host = served.node.address.removeprefix("http://")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
    try:
        writer.write(f"{lines.format(host=host)}\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert SECRET not in answer
    assert b"root:" not in answer
    assert (PAGE in answer) is (status == 200)


async def test_devices_are_not_served(served: Served) -> None:
    (served.site / "terminal").symlink_to("/dev/zero")
    paths = ["terminal"]
    try:
        os.mknod(served.site / "device", 0o644 | stat.S_IFCHR, os.makedev(1, 5))
        paths.append("device")
    except PermissionError:
        pass  # containers can't make devices
    for path in paths:
        assert (await served.node.call("GET", f"/_plugin/hello/{path}")).status == 404


async def test_a_link_that_is_swapped_during_requests_never_leads_out(served: Served) -> None:
    """Another process replaces a file, a directory and the site itself by links to secrets, all the time."""
    outside = served.folder.parent / "outside"
    (outside / "docs").mkdir(parents=True)
    for name in ("index.html", "docs/index.html"):
        (outside / name).write_bytes(SECRET)
    code = """if True:
        import os, sys
        site, outside = sys.argv[1:]
        for place in ("/index.html", "/docs", ""):
            os.symlink(outside + place, site + place + ".link")
        print(flush=True)
        while True:
            for place in ("/index.html", "/docs", ""):
                for one, two in (("", ".link"), (".link", "")):
                    os.rename(site + place, site + place + ".real")
                    os.rename(site + place + ".link", site + place)
                    os.rename(site + place, site + place + ".link")
                    os.rename(site + place + ".real", site + place)
    """
    swapper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(served.site), str(outside), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert swapper.stdout is not None
        await swapper.stdout.readline()
        seen = set()
        for _ in range(300):
            for path in ("index.html", "docs/index.html"):
                answer = await served.node.call("GET", f"/_plugin/hello/{path}")
                assert answer.status in (200, 404)
                assert SECRET not in answer.body
                seen.add(answer.status)
        assert seen == {200, 404}
    finally:
        swapper.kill()
        await swapper.wait()


async def test_links_that_stay_are_followed_and_others_are_not(served: Served, tmp_path: Path) -> None:
    site = served.site
    links = {
        "page.html": "index.html",
        "up/page.html": "../docs/index.html",
        "secret": "../secret",
        "absolute": str(tmp_path / "secret"),
        "python": "../plugin",
        "hidden": ".hidden",
        "loop": "loop",
        "all": "/",
    }
    (site / "up").mkdir()
    for name, target in links.items():
        (site / name).symlink_to(target)
    os.mkfifo(site / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(site / "socket"))
    statuses = {
        path: (await served.node.call("GET", f"/_plugin/hello/{path}")).status
        for path in [*links, "python/__init__.py", "all/etc/passwd", "pipe", "socket"]
    }
    assert {path for path, status in statuses.items() if status != 404} == {"page.html", "up/page.html"}


@pytest.mark.expects_errors("not serving .*: .* can write to it")
@pytest.mark.parametrize("place", [".", "hello", "hello/_site", "hello/_site/docs", "hello/_site/docs/index.html"])
@pytest.mark.parametrize(("let_others_write", "why"), OTHERS_WRITE)
async def test_what_others_may_change_is_not_served(
    served: Served, caplog: pytest.LogCaptureFixture, place: str, let_others_write: Callable[[Path], None], why: str
) -> None:
    path = served.folder / place
    mode = path.stat().st_mode
    let_others_write(path)
    answer = await served.node.call("GET", "/_plugin/hello/docs/index.html")
    assert (answer.status, answer.error) == (404, "not_found")
    assert SECRET not in answer.body
    assert f"not serving {path}: {why}" in caplog.text
    path.chmod(mode)
    assert (await served.node.call("GET", "/_plugin/hello/docs/")).status == 200


@pytest.mark.expects_errors("serving no pages: .* can write to it")
async def test_nothing_is_served_where_others_may_put_another_folder(served: Served) -> None:
    served.folder.parent.chmod(0o777)
    try:
        assert (await served.node.call("GET", "/_plugin/hello/docs/index.html")).status == 404
    finally:
        served.folder.parent.chmod(0o700)
    assert (await served.node.call("GET", "/_plugin/hello/docs/")).status == 200


def test_who_else_may_change_a_file(tmp_path: Path) -> None:
    status = tmp_path.stat()
    assert find_danger(status, status.st_uid) is None
    stranger = os.stat_result((status.st_mode & ~0o022, 0, 0, 1, 4242, 0, 0, 0, 0, 0))
    assert find_danger(stranger, 1) == "it belongs to the user 4242"
    assert find_danger(stranger, 4242) is None


async def test_a_browser_asks_again_and_is_told_when_nothing_changed(served: Served) -> None:
    path = "/_plugin/hello/index.html"
    first = await served.node.call("GET", path)
    assert first.headers["cache-control"] == "private, no-cache"
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in ({"If-None-Match": etag}, {"If-Modified-Since": modified}, {"If-None-Match": f'"x", W/{etag}'}):
        answer = await served.node.call("GET", path, headers=headers)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    for headers in (
        {"If-None-Match": '"x"', "If-Modified-Since": modified},
        {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ):
        assert (await served.node.call("GET", path, headers=headers)).body == PAGE
    (served.site / "index.html").write_bytes(b"new")
    answer = await served.node.call("GET", path, headers={"If-None-Match": etag})
    assert (answer.status, answer.body) == (200, b"new")


async def test_parts_of_a_file(served: Served) -> None:
    async def ask(method: str = "GET", **headers: str) -> tuple[int, bytes, str | None]:
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await served.node.call(method, "/_plugin/hello/a%20b.js", headers=lines)
        return answer.status, answer.body, answer.headers.get("content-range")

    assert await ask(Range="bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert await ask(Range="bytes=-2") == (206, b"89", "bytes 8-9/10")
    assert await ask(Range="bytes=0-1,3-4") == (200, b"0123456789", None)
    assert await ask(Range="bytes=2-4", If_Range='"old"') == (200, b"0123456789", None)
    assert await ask("HEAD", Range="bytes=2-4") == (200, b"", None)
    status, body, found = await ask(Range="bytes=10-")
    assert (status, found) == (416, "bytes */10")
    assert b"range_not_satisfiable" in body


async def test_a_client_that_takes_nothing_is_hung_up_on(served: Served) -> None:
    with (served.site / "large.bin").open("wb") as file:
        file.truncate(LARGE)

    def is_open() -> bool:
        return any(_target(path).endswith("large.bin") for path in Path("/proc/self/fd").iterdir())

    exchange = await served.node.follow("/_plugin/hello/large.bin")
    assert exchange.headers["content-length"] == str(LARGE)
    assert is_open()
    await eventually_async(lambda: not is_open())


async def test_a_file_that_becomes_shorter_ends_the_connection(served: Served) -> None:
    with (served.site / "large.bin").open("wb") as file:
        file.truncate(LARGE)
    exchange = await served.node.follow("/_plugin/hello/large.bin")
    os.truncate(served.site / "large.bin", 1000)
    received = 0
    while piece := await exchange.reader.read(1 << 20):
        received += len(piece)
    assert received < LARGE


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


@pytest.mark.row("PLG-11", "PLG-12")
async def test_sites_come_and_go_while_the_node_runs(served: Served) -> None:
    plugin = served.folder / "late"

    async def status(path: str = "") -> int:
        return (await served.node.call("GET", f"/_plugin/late/{path}")).status

    assert await status() == 404
    plugin.mkdir(0o755)
    assert await status() == 404
    (plugin / "index.html").write_bytes(b"in place")  # a site without saying so
    assert (await served.node.call("GET", "/_plugin/late/")).body == b"in place"
    (plugin / "code").mkdir(0o755)
    (plugin / "code" / "__init__.py").touch()
    assert await status() == 404
    assert await status("code/__init__.py") == 404
    (plugin / "_site").mkdir(0o755)
    (plugin / "_site" / "index.html").write_bytes(b"below")
    assert (await served.node.call("GET", "/_plugin/late/")).body == b"below"
    (plugin / "_site" / "index.html").unlink()
    assert await status() == 404


async def test_a_folder_with_very_many_files_is_no_site_by_itself(served: Served) -> None:
    plugin = served.folder / "many"
    plugin.mkdir(0o755)
    for number in range(MAX_ENTRIES):
        (plugin / f"{number}.html").touch()
    assert (await served.node.call("GET", "/_plugin/many/0.html")).status == 200
    (plugin / "more.html").touch()
    assert (await served.node.call("GET", "/_plugin/many/0.html")).status == 404


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("a.html", "text/html; charset=UTF-8"),
        ("a.css", "text/css; charset=UTF-8"),
        ("a.mjs", "text/javascript; charset=UTF-8"),
        ("a.json", "application/json; charset=UTF-8"),
        ("a.svg", "image/svg+xml; charset=UTF-8"),
        ("a.png", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.js.gz", "application/gzip"),
        ("a.js.bz2", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_types_of_files(name: str, media: str) -> None:
    assert media_type(name) == media


@pytest.fixture(scope="module")
def maze() -> Iterator[Path]:
    """A site beside a secret, with links all over."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(os.path.realpath(path))
        site = folder / "a" / "_site"
        (site / "b").mkdir(parents=True, mode=0o755)
        for place in (site / "b" / "index.html", site / "b" / "page"):
            place.write_bytes(PAGE)
        for place in (folder / "secret", folder / "a" / "secret", site / ".secret"):
            place.write_bytes(SECRET)
        (site / "b" / "out").symlink_to("../../..")
        (site / "in").symlink_to("b")
        yield folder


SEGMENTS = st.sampled_from(["", ".", "..", "a", "b", "in", "out", "page", "secret", ".secret", "_site", "\0", "/", "é"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plugin=SEGMENTS | st.text(), segments=st.lists(SEGMENTS | st.text(), max_size=6))
def test_no_path_leads_out(maze: Path, plugin: str, segments: list[str]) -> None:
    try:
        found = Sites(PluginFolder([maze]), os.geteuid()).open(plugin, "/".join(segments))
    except NotFound:
        return
    if found is not None:
        with found.file as file:
            assert file.read() == PAGE
