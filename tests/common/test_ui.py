"""The files of the dashboard: which are served, how, and that nothing else is."""

import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaffer.http.access import Policy
from gaffer.ui.assets import Assets, accepts_gzip
from gaffer.ui.routes import DashboardFile, make_ui_routes
from support.http_node import HttpNode, running_node

SECRET = b"not for the web"
SCRIPT = b"export const answer = 42;\n" * 50
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    (folder / "vendor").mkdir(parents=True)
    (folder / "index.html").write_bytes(b"<!doctype html><title>Gaffer</title>")
    (folder / "terminal.html").write_bytes(b"<!doctype html><title>Terminal</title>")
    (folder / "app.js").write_bytes(SCRIPT)
    (folder / "vendor" / "chart.css").write_bytes(b"b{}")
    (folder / ".hidden").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
async def node(folder: Path) -> AsyncIterator[HttpNode]:
    """A node that trusts nobody and serves the folder."""

    class Files(DashboardFile):
        assets = Assets(folder)

    async with running_node(routes=make_ui_routes(Files), access=Policy(trust_local=False)) as node:
        yield node


@pytest.mark.parametrize(
    ("path", "start", "media"),
    [
        ("", b"<!doctype html><title>Gaffer", "text/html; charset=UTF-8"),
        ("index.html?x=1", b"<!doctype html><title>Gaffer", "text/html; charset=UTF-8"),
        ("app.js", b"export", "text/javascript; charset=UTF-8"),
        ("vendor/chart.css", b"b{}", "text/css; charset=UTF-8"),
    ],
)
async def test_anyone_gets_the_files_and_nothing_else(node: HttpNode, path: str, start: bytes, media: str) -> None:
    answer = await node.call("GET", f"/ui/{path}")
    assert (answer.status, answer.body[: len(start)], answer.headers["content-type"]) == (200, start, media)
    assert answer.headers["content-security-policy"] == STRICT
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    head = await node.call("HEAD", f"/ui/{path}")
    length = str(len(answer.body))
    assert head.headers == {**answer.headers, "date": head.headers["date"], "content-length": length}
    for method in ("POST", "PUT", "DELETE"):
        assert (await node.call(method, f"/ui/{path}", {})).status in (401, 405)
    assert (await node.call("GET", "/jobs")).error == "auth_required"


async def test_styles_are_relaxed_on_the_page_of_the_terminal_alone(node: HttpNode) -> None:
    answer = await node.call("GET", "/ui/terminal.html")
    relaxed = STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    assert answer.headers["content-security-policy"] == relaxed


async def test_clients_that_can_get_files_compressed(node: HttpNode) -> None:
    plain = await node.call("GET", "/ui/app.js")
    small = await node.call("GET", "/ui/app.js", headers={"Accept-Encoding": "br, gzip"})
    assert plain.body == gzip.decompress(small.body) == SCRIPT
    assert (small.headers["content-encoding"], small.headers["vary"]) == ("gzip", "Accept, Accept-Encoding")
    assert len(small.body) < len(SCRIPT)
    assert small.headers["etag"] != plain.headers["etag"]
    assert "content-encoding" not in plain.headers
    tiny = await node.call("GET", "/ui/vendor/chart.css", headers={"Accept-Encoding": "gzip"})
    assert (tiny.body, "content-encoding" in tiny.headers) == (b"b{}", False)


async def test_a_file_that_the_client_has_is_not_sent_again(node: HttpNode) -> None:
    accepting = {"Accept-Encoding": "gzip"}
    etag = (await node.call("GET", "/ui/app.js", headers=accepting)).headers["etag"]
    again = await node.call("GET", "/ui/app.js", headers={**accepting, "If-None-Match": f'"old", W/{etag}'})
    assert (again.status, again.body) == (304, b"")
    assert (await node.call("GET", "/ui/app.js", headers={"If-None-Match": etag})).status == 200


async def test_the_folder_is_behind_its_slash(node: HttpNode) -> None:
    answer = await node.call("GET", "/ui?q=a%20b")
    assert (answer.status, answer.headers["location"], answer.error) == (301, "ui/?q=a%20b", "moved")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/ui/node", "./#/node"),
        ("/ui/jobs/shop.js?stream=err", "../#/jobs/shop.js?stream=err"),
        ("/ui/jobs/a%20%22b/logs", "../../#/jobs/a%20%22b/logs"),
        ("/ui//evil.example", "../#//evil.example"),
    ],
)
async def test_a_browser_is_sent_to_the_page_that_a_path_names(node: HttpNode, path: str, location: str) -> None:
    opened = await node.call("GET", path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (opened.status, opened.error) == (302, "moved")
    assert opened.headers["location"] == location


async def test_a_file_that_does_not_exist_is_not_found(node: HttpNode) -> None:
    loaded = await node.call("GET", "/ui/jobs/shop.js", headers={"Accept": "*/*"})
    assert (loaded.status, loaded.error) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "vendor/../../secret",
        "/etc/passwd",
        ".hidden",
        "vendor",
        "vendor/",
        "a%00",
    ],
)
async def test_paths_outside_are_no_files(node: HttpNode, path: str) -> None:
    answer = await node.call("GET", f"/ui/{path}")
    assert answer.status in (401, 404)  # an encoded slash belongs to no route
    assert SECRET not in answer.body


async def test_an_installation_without_the_files_says_so(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    class Files(DashboardFile):
        assets = Assets(folder)

    os.rename(folder / "app.js", folder / "app.old")
    (folder / "app.js").symlink_to("/proc/self/mem")  # exists, and can't be read
    async with running_node(routes=make_ui_routes(Files)) as node:
        answer = await node.call("GET", "/ui/")
        assert (answer.status, answer.error) == (500, "no_dashboard")
        (folder / "app.js").unlink()
        assert (await node.call("GET", "/ui/")).status == 200


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP;q=0.5", True),
        ("deflate, x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q = 0.000, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
    ],
)
def test_who_accepts_gzip(header: str | None, accepts: bool) -> None:
    assert accepts_gzip(header) is accepts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(alphabet="./%\\ax2e0", max_size=12))
def test_no_path_reads_a_file_that_is_not_listed(folder: Path, path: str) -> None:
    assets = Assets(folder).read()
    assert sorted(assets) == ["app.js", "index.html", "terminal.html", "vendor/chart.css"]
    assert all(SECRET not in asset.plain for asset in assets.values())
    assert assets.get(path) is None
