"""Both daemons read requests as RFC 9110 and RFC 9112 have it, on every way to an answer."""

import json
from collections.abc import Iterator

import pytest

from support.daemons import Daemon, gafferd, lookupd
from support.raw_http import RawConnection, raw_connection

HOST = b"Host: localhost\r\n"
# The registry answers the first without a handler.
PATHS = [b"/jobs", b"/version"]
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
EXPECTS = HOST + b"Content-Length: 2\r\n"


@pytest.fixture(scope="module")
def daemons() -> Iterator[dict[str, Daemon]]:
    with lookupd() as registry, gafferd() as node:
        yield {"node": node, "registry": registry}


@pytest.fixture(params=["node", "registry"])
def daemon(request: pytest.FixtureRequest, daemons: dict[str, Daemon]) -> Daemon:
    return daemons[request.param]


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[RawConnection]:
    with raw_connection(daemon.port) as connection:
        yield connection


GOOD = {
    "no options": b"GET PATH HTTP/1.1\r\n" + HOST + b"\r\n",
    "keep-alive": b"GET PATH HTTP/1.1\r\nConnection: Keep-Alive\r\n" + HOST + b"\r\n",
    "another option": b"GET PATH HTTP/1.1\r\nConnection: TE, foo\r\n" + HOST + b"\r\n",
    "empty lines before": b"\r\n\r\n\nGET PATH HTTP/1.1\r\n" + HOST + b"\r\n",
    "lines that end with LF": b"GET PATH HTTP/1.1\nHost: localhost\n\n",
    "a later minor version": b"GET PATH HTTP/1.2\r\n" + HOST + b"\r\n",
    "a URL": b"GET http://localhost:1PATH HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL in upper case": b"GET HTTP://LOCALHOSTPATH HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL with another Host": b"GET http://localhostPATH HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an unknown upgrade": b"GET PATH HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + HOST + b"\r\n",
    "a body": b"GET PATH HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + b"\r\nabc",
    "chunks": b"GET PATH HTTP/1.1\r\n" + CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "chunk extensions": b"GET PATH HTTP/1.1\r\n" + CHUNKED + b'3;x=y;z\r\nabc\r\n1 ; q="a;b"\r\nd\r\n0;last\r\n\r\n',
    "trailers": b"GET PATH HTTP/1.1\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Other: \r\n\r\n",
    "HTTP/1.0 with keep-alive": b"GET PATH HTTP/1.0\r\nConnection: foo, Keep-Alive\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("request_", GOOD.values(), ids=GOOD)
def test_a_request_is_answered_and_the_next_one_too(raw: RawConnection, path: bytes, request_: bytes) -> None:
    raw.send(request_.replace(b"PATH", path) * 2)
    for response in (raw.response(), raw.response()):
        assert response.status == 200
        assert json.loads(response.body)
        assert response.headers.get("connection", "").lower() != "close"


LAST = {
    "close": b"GET PATH HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n",
    "close in a list": b"GET PATH HTTP/1.1\r\nConnection: keep-alive, Close\r\n" + HOST + b"\r\n",
    "close in the second line": b"GET PATH HTTP/1.1\r\nConnection: TE\r\nConnection: close\r\n" + HOST + b"\r\n",
    "HTTP/1.0": b"GET PATH HTTP/1.0\r\n" + HOST + b"\r\n",
    "HTTP/1.0 with both": b"GET PATH HTTP/1.0\r\nConnection: keep-alive, close\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("request_", LAST.values(), ids=LAST)
def test_a_connection_ends_with_the_response_when_the_client_wants_it(
    raw: RawConnection, path: bytes, request_: bytes
) -> None:
    raw.send(request_.replace(b"PATH", path))
    response = raw.response()
    assert response.status == 200
    assert response.headers.get("connection", "close").lower() == "close"
    assert raw.ended()


REFUSED = {
    "no slash": (b"GET version HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "an authority": (b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a URL of another scheme": (b"GET ftp://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a URL without a host": (b"GET http:///version HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a URL with a user": (b"GET http://me@localhost/version HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "an asterisk": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no Host": (b"GET /version HTTP/1.1\r\n\r\n", 400),
    "no Host in HTTP/1.2": (b"GET /version HTTP/1.2\r\n\r\n", 400),
    "two Hosts": (b"GET /version HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "no HTTP": (b"GET /version SMTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/2.0": (b"GET /version HTTP/2.0\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  /version HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space in the path": (b"GET /ver sion HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a folded line": (b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a space before the colon": (b"GET /version HTTP/1.1\r\n" + HOST + b"Content-Length : 0\r\n\r\n", 400),
    "NUL": (b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400),
    "a bare CR": (b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n", 400),
    "no colon": (b"GET /version HTTP/1.1\r\n" + HOST + b"X\r\n\r\n", 400),
    "long lines": (b"GET /version HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "many lines": (b"GET /version HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * 200 + b"\r\n", 431),
    "many lines after an empty one": (b"\r\n\r\nGET /version HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * 200 + b"\r\n", 431),
    "another expectation": (b"GET /version HTTP/1.1\r\nExpect: banana\r\n" + HOST + b"\r\n", 417),
    "one expectation too many": (b"GET /version HTTP/1.1\r\nExpect: 100-continue, x\r\n" + HOST + b"\r\n", 417),
    "two lengths": (b"GET /version HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + HOST + b"\r\nab", 400),
    "a list of lengths": (b"GET /version HTTP/1.1\r\nContent-Length: 1, 2\r\n" + HOST + b"\r\nab", 400),
    "a length with a sign": (b"GET /version HTTP/1.1\r\nContent-Length: +1\r\n" + HOST + b"\r\na", 400),
    "length and chunks": (b"GET /version HTTP/1.1\r\nContent-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"GET /version HTTP/1.0\r\n" + CHUNKED + b"0\r\n\r\n", 400),
    "another coding": (b"GET /version HTTP/1.1\r\nTransfer-Encoding: gzip\r\n" + CHUNKED + b"0\r\n\r\n", 400),
    "chunked twice": (b"GET /version HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + CHUNKED + b"0\r\n\r\n", 400),
    "a chunk size with 0x": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    "a chunk size with a space": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"1 \r\na\r\n0\r\n\r\n", 400),
    "no chunk size": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b";x\r\na\r\n0\r\n\r\n", 400),
    "LF in an extension": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n", 400),
    "LF after a chunk": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"1\r\na\n0\r\n\r\n", 400),
    "a long extension": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"1;" + b"x" * 5000 + b"\r\na\r\n0\r\n\r\n", 400),
    "many extensions": (b"GET /version HTTP/1.1\r\n" + CHUNKED + (b"1;" + b"x" * 4000 + b"\r\na\r\n") * 5, 400),
    "a bad trailer": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"0\r\nX Y: 1\r\n\r\n", 400),
    "a folded trailer": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"0\r\nX: 1\r\n 2\r\n\r\n", 400),
    "many trailers": (b"GET /version HTTP/1.1\r\n" + CHUNKED + b"0\r\n" + b"X: 1\r\n" * 200, 400),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_and_ends_the_connection(raw: RawConnection, request_: bytes, status: int) -> None:
    raw.send(request_)
    response = raw.response()
    assert response.status == status
    assert json.loads(response.body).keys() == {"error", "errno", "message", "path", "hint"}
    assert response.headers["connection"] == "close"
    assert response.headers["date"]
    assert raw.ended()


@pytest.mark.parametrize("path", [b"/jobs", b"/health"])
def test_the_host_of_a_url_counts_as_host(raw: RawConnection, path: bytes) -> None:
    raw.send(b"GET http://evil.example" + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    response = raw.response()
    assert (response.status, json.loads(response.body)["error"]) == (403, "forbidden_host")


def test_options_of_a_url_without_a_path_are_those_of_the_server(raw: RawConnection) -> None:
    raw.send(b"OPTIONS http://localhost HTTP/1.1\r\n" + HOST + b"\r\nOPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n")
    assert [raw.response().status, raw.response().status] == [204, 204]


@pytest.mark.parametrize("expect", [b"100-continue", b"100-Continue"])
def test_a_client_that_asks_first_is_told_to_go_on(raw: RawConnection, expect: bytes) -> None:
    raw.send(b"GET /version HTTP/1.1\r\nExpect: " + expect + b"\r\n" + EXPECTS + b"\r\n")
    assert raw.response().status == 100
    raw.send(b"{}")
    assert raw.response().status == 200


def test_a_client_that_asks_first_is_refused_before_it_sends(raw: RawConnection) -> None:
    raw.send(b"POST /nowhere HTTP/1.1\r\nExpect: 100-continue\r\n" + EXPECTS + b"\r\n")
    response = raw.response()
    assert (response.status, response.headers["connection"]) == (404, "close")
    assert raw.ended()


def test_no_client_of_http_1_0_gets_an_interim_response(raw: RawConnection) -> None:
    raw.send(b"GET /version HTTP/1.0\r\nExpect: 100-continue\r\n" + EXPECTS + b"\r\n{}")
    assert raw.response().status == 200


def test_head_has_the_headers_of_get_and_no_body(raw: RawConnection) -> None:
    request = b" /version HTTP/1.1\r\n" + HOST + b"\r\n"
    raw.send(b"HEAD" + request + b"GET" + request)
    head, get = raw.response(to_head=True), raw.response()
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("node", b"/watch?feed=continuous&heartbeat=0.1"),
        ("node", b"/watch?feed=eventsource&heartbeat=0.1"),
        ("registry", b"/events?heartbeat=0.1"),
    ],
)
def test_a_feed_over_http_1_0_has_no_chunks_and_ends_with_the_connection(
    daemons: dict[str, Daemon], name: str, path: bytes
) -> None:
    with raw_connection(daemons[name].port) as raw:
        raw.send(b"GET " + path + b" HTTP/1.0\r\nConnection: keep-alive\r\n" + HOST + b"\r\n")
        head = raw.head()
        assert head.status == 200
        assert not {"content-length", "transfer-encoding", "connection"} & head.headers.keys()
        assert raw.line()


def test_the_end_of_a_longpoll_is_told_in_http_1_0(daemons: dict[str, Daemon]) -> None:
    with raw_connection(daemons["node"].port) as raw:
        raw.send(b"POST /jobs/default HTTP/1.1\r\n" + HOST + b"Content-Length: 28\r\n\r\n")
        raw.send(b'{"name": "a", "cmd": "true"}')
        assert raw.response().status == 200
        for _ in range(2):
            raw.send(b"GET /watch?after=0 HTTP/1.0\r\nConnection: keep-alive\r\n" + HOST + b"\r\n")
            response = raw.response()
            assert json.loads(response.body)["event"] == "create"
            assert response.headers["connection"].lower() == "keep-alive"
