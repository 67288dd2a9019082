"""The route table: which route a path leads to, and with which parameters."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer import http_handler
from gaffer.errors import BadRequest
from gaffer.http.access import Scope
from gaffer.http.base import Handler
from gaffer.http.routes import PUBLIC, Open, Route, RouteTable, example_paths

PATTERNS = [
    "/",
    "/jobs",
    "/jobs/{sid}",
    "/jobs/{sid}/{job}",
    "/processes/{name}",
    "/processes/{name}/_start",
    "/processes/{name}/{resource}",
    "/processes/{pid:digits}",
    "/{pid:digits}",
    "/{pid:digits}/stats",
    "/files/{folder}",
    "/files/{folder}/{file:rest}",
    "/files/{folder}/about/{page}",
]


def route(pattern: str, **methods: Scope | Open) -> Route:
    return Route(pattern, Handler, methods or {"GET": Scope.READ})


TABLE = RouteTable(route(pattern) for pattern in PATTERNS)


@pytest.mark.parametrize(
    ("path", "pattern", "params"),
    [
        ("/", "/", {}),
        ("/jobs", "/jobs", {}),
        ("/%6aobs", "/jobs", {}),
        ("/jobs/a", "/jobs/{sid}", {"sid": "a"}),
        ("/jobs/12", "/jobs/{sid}", {"sid": "12"}),
        ("/jobs/a/b%20c", "/jobs/{sid}/{job}", {"sid": "a", "job": "b c"}),
        ("/jobs/a%2Fb", "/jobs/{sid}", {"sid": "a/b"}),
        ("/jobs/%C3%A9", "/jobs/{sid}", {"sid": "é"}),
        ("/processes/web", "/processes/{name}", {"name": "web"}),
        ("/processes/12", "/processes/{pid:digits}", {"pid": "12"}),
        ("/processes/1%32", "/processes/{pid:digits}", {"pid": "12"}),
        ("/processes/\u0661\u0662", "/processes/{name}", {"name": "\u0661\u0662"}),
        ("/processes/web/_start", "/processes/{name}/_start", {"name": "web"}),
        ("/processes/web/_stop", "/processes/{name}/{resource}", {"name": "web", "resource": "_stop"}),
        ("/12", "/{pid:digits}", {"pid": "12"}),
        ("/0/stats", "/{pid:digits}/stats", {"pid": "0"}),
        ("/files/a", "/files/{folder}", {"folder": "a"}),
        ("/files/a/", "/files/{folder}/{file:rest}", {"folder": "a", "file": ""}),
        ("/files/a/b", "/files/{folder}/{file:rest}", {"folder": "a", "file": "b"}),
        ("/files/a/b%20c//d/", "/files/{folder}/{file:rest}", {"folder": "a", "file": "b c//d/"}),
        ("/files/a/../%2e%2e/b", "/files/{folder}/{file:rest}", {"folder": "a", "file": "../../b"}),
        ("/files/a/%252e", "/files/{folder}/{file:rest}", {"folder": "a", "file": "%2e"}),
        ("/files/a/about/b", "/files/{folder}/about/{page}", {"folder": "a", "page": "b"}),
    ],
)
def test_paths_and_their_routes(path: str, pattern: str, params: dict[str, str]) -> None:
    match = TABLE.match(path)
    assert match is not None
    assert (match.route.pattern, match.params) == (pattern, params)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/jobs/",
        "//jobs",
        "/jobs//b",
        "/jobs/a/b/c",
        "/processes/12/_start",
        "/12a",
        "/1/nope",
        "/-1",
        "*",
        "/.",
        "/files/",
        "/files/a/b%2Fc",
        "/files/a/b/%2F",
        "/files/a/about",
        "/files/a/about/b/c",
    ],
)
def test_paths_without_a_route(path: str) -> None:
    assert TABLE.match(path) is None


def test_a_segment_must_be_utf8() -> None:
    with pytest.raises(BadRequest, match="UTF-8"):
        TABLE.match("/jobs/%ff")


@given(st.text())
def test_no_path_breaks_the_table(path: str) -> None:
    try:
        match = TABLE.match(path)
    except BadRequest:
        return
    assert match is None or all(value for name, value in match.params.items() if name != "file")


@given(st.lists(st.text(st.characters(exclude_characters="/", codec="utf-8"))))
def test_the_rest_of_a_path_arrives_as_it_was(segments: list[str]) -> None:
    segments = ["files", "a", "b", *segments]
    match = TABLE.match("/" + "/".join(quote(segment, safe="") for segment in segments))
    assert match is not None
    assert match.params == {"folder": "a", "file": "/".join(segments[2:])}


@given(st.text(min_size=1))
def test_any_percent_encoded_name_arrives_as_it_was(name: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode("utf-8", "replace"))
    match = TABLE.match(f"/jobs/{encoded}")
    assert match is not None
    assert match.params["sid"] == name.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    "patterns",
    [["/a", "/a"], ["/{a}", "/{b}/x"], ["/{a:digits}", "/{b:digits}/x"], ["/{a:rest}", "/{b:rest}"], ["/{a:rest}/x"]],
)
def test_contradictory_routes_are_refused(patterns: list[str]) -> None:
    with pytest.raises(ValueError):
        RouteTable(route(pattern) for pattern in patterns)


def test_head_comes_with_get() -> None:
    both = route("/a", GET=Scope.READ, POST=Scope.CONTROL)
    assert both.allowed == ["GET", "HEAD", "OPTIONS", "POST"]
    assert both.answers("HEAD")
    assert (both.scope("HEAD"), both.scope("POST")) == (Scope.READ, Scope.CONTROL)
    only_post = route("/b", POST=PUBLIC)
    assert not only_post.answers("HEAD")
    assert only_post.scope("POST") is PUBLIC


def test_the_nodes_table_is_consistent_and_only_ping_is_public() -> None:
    table = list(RouteTable(http_handler.ROUTES))
    assert len(table) == len(http_handler.ROUTES)
    public = [entry.pattern for entry in table if PUBLIC in entry.methods.values()]
    assert public == ["/ping"]
    writing: dict[str, Any] = {
        entry.pattern: scope
        for entry in table
        for method, scope in entry.methods.items()
        if method != "GET" and scope is Scope.READ and "{resource}" not in entry.pattern
    }
    assert writing == {}, "a method that changes something needs more than `read`"


def test_the_example_paths_of_a_pattern_are_matched_by_it() -> None:
    table = RouteTable([route("/jobs/{sid}/{pid:digits}")])
    paths = list(example_paths("/jobs/{sid}/{pid:digits}"))
    assert paths == ["/jobs/1/1", "/jobs/x/1"]
    assert all(table.match(path) for path in paths)
