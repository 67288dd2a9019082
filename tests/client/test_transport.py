"""HTTP with one server: addresses, what is sent, and what becomes of answers and of none."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from gaffer.schemas.bodies import SessionList
from gaffer_client import errors
from gaffer_client.adapter import RequestsSender
from gaffer_client.cli import diagnosis
from gaffer_client.connection import Connection
from gaffer_client.plain import PlainSender
from gaffer_client.sockets import CONNECT_TIMEOUT
from gaffer_client.transport import Transport, parse_url, path_of
from support.client import Answering
from support.daemons import gafferd
from support.scripted import Play, Visit, answer, scripted_server


@pytest.fixture(params=[RequestsSender, PlainSender], ids=["requests", "http.client"])
def transport_to(request: pytest.FixtureRequest) -> Callable[..., Transport]:
    """Make a transport that sends its requests with either library."""
    return partial(Transport, sender=request.param)


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", None),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000", None),
        ("https://node.example:5000/gaffer/", "https://node.example:5000/gaffer", None),
        ("http://[::1]:5000", "http://[::1]:5000", None),
        ("unix:/run/gafferd.sock", "http://localhost", "/run/gafferd.sock"),
        ("unix:///run/gafferd.sock", "http://localhost", "/run/gafferd.sock"),
    ],
)
def test_addresses(url: str, base: str, path: str | None) -> None:
    address = parse_url(url)
    assert (address.base, address.socket) == (base, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:5000",
        "localhost:5000",
        "ftp://host",
        "http://",
        "http://:5000",
        "http://host:0",
        "http://host:99999",
        "http://host:port",
        "http://[::1",
        "http://host?x=1",
        "http://evil.example\\.example.com",
        "http://evil.example%2f.example.com",
        "http://evil.example .example.com",
        "http://evil.example,.example.com",
        "unix:",
        "unix:relative",
    ],
)
def test_what_is_no_address_is_told_with_a_hint(url: str) -> None:
    with pytest.raises(errors.InvalidURL) as caught:
        parse_url(url)
    assert repr(url) in caught.value.message


def test_a_secret_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(errors.InvalidURL) as caught:
        parse_url("http://user:s3cret@host:5000")
    assert "s3cret" not in f"{caught.value} {caught.value.url}"


def test_path_segments_are_encoded() -> None:
    assert path_of("jobs", "a/b?c", 7) == "/jobs/a%2Fb%3Fc/7"


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason", "message"),
    [
        (
            400,
            '{"error": "bad_name", "message": "no", "path": "$.name", "hint": "so"}',
            errors.BadRequest,
            "bad_name",
            "no",
        ),
        (401, '{"error": "auth_required", "errno": 401}', errors.Unauthorized, "auth_required", "auth required"),
        (403, "{}", errors.Forbidden, "http_error", None),
        (404, '{"error": "not_found"}', errors.NotFound, "not_found", "not found"),
        (409, '{"error": "process_conflict"}', errors.Conflict, "process_conflict", "process conflict"),
        (409, '{"error": "job_disabled"}', errors.JobDisabled, "job_disabled", "job disabled"),
        (507, '{"error": "not_stored"}', errors.NotStored, "not_stored", "not stored"),
        (418, "teapot", errors.StatusError, "http_error", None),
        (500, "<html>", errors.ServerError, "http_error", None),
        (503, '{"error": "stopping"}', errors.ServerError, "stopping", "stopping"),
        (502, '["error"]', errors.ServerError, "http_error", None),
        (500, '{"error": 500, "message": null, "problems": "many"}', errors.ServerError, "http_error", None),
    ],
)
def test_refusals(
    answering: Callable[..., Answering],
    status: int,
    body: str,
    kind: type[errors.StatusError],
    reason: str,
    message: str | None,
    transport_to: Callable[..., Transport],
) -> None:
    server = answering()
    server.answer("/x", body, status)
    with transport_to(server.url) as transport, pytest.raises(errors.StatusError) as caught:
        transport.request("GET", "/x")
    assert type(caught.value) is kind
    assert (caught.value.errno, caught.value.reason, caught.value.url) == (status, reason, server.url)
    assert caught.value.message == (message or f"{server.url} answered with status {status}")


def test_all_mistakes_that_a_server_found_are_kept(
    answering: Callable[..., Answering], transport_to: Callable[..., Transport]
) -> None:
    server = answering()
    server.answer(
        "/x",
        '{"error": "bad_request", "message": "a (and 1 more)", "path": "$.a", "hint": null, "problems":'
        ' [{"path": "$.a", "message": "a", "hint": null}, {"path": "$.b", "message": "b", "hint": "do"}]}',
        400,
    )
    with transport_to(server.url) as transport, pytest.raises(errors.BadRequest) as caught:
        transport.request("GET", "/x")
    assert caught.value.problems == (("$.a", "a", None), ("$.b", "b", "do"))


@pytest.mark.parametrize(
    "body", ["", "<html>", "[1, 2]", '{"sessions": "no"}', '{"sessions": [1]}', "{}", "[" * 100_000]
)
def test_malformed_answers(
    answering: Callable[..., Answering], body: str, transport_to: Callable[..., Transport]
) -> None:
    server = answering()
    server.answer("/sessions", body)
    with transport_to(server.url) as transport, pytest.raises(errors.MalformedAnswer) as caught:
        transport.get("/sessions", SessionList)
    assert server.url in caught.value.message


def test_a_redirect_is_not_followed(
    answering: Callable[..., Answering], transport_to: Callable[..., Transport]
) -> None:
    server, elsewhere = answering(), answering()
    server.answer("/x", elsewhere.url + "/x", 302)
    with transport_to(server.url, api_key="k") as transport, pytest.raises(errors.MalformedAnswer):
        transport.request("GET", "/x")
    assert elsewhere.requests == []


def test_documents_keep_what_the_shape_does_not_name(
    answering: Callable[..., Answering], transport_to: Callable[..., Transport]
) -> None:
    server = answering()
    server.answer("/sessions", '{"sessions": ["a"], "more": 1}')
    with transport_to(server.url) as transport:
        assert transport.get("/sessions", SessionList) == {"sessions": ["a"], "more": 1}


def test_the_key_goes_to_the_server_alone(
    answering: Callable[..., Answering],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    transport_to: Callable[..., Transport],
) -> None:
    server, proxy = answering(), answering()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    server.answer("/x", "{}")
    with transport_to(server.url, api_key="gk_secret") as transport:
        transport.request("POST", "/x", document={"a": 1})
    [request] = server.requests
    assert request.headers["Authorization"] == "Bearer gk_secret"
    assert (request.body, request.headers["Content-Type"]) == (b'{"a":1}', "application/json")
    assert proxy.requests == []


def test_nobody_listens(transport_to: Callable[..., Transport]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with transport_to(url) as transport, pytest.raises(errors.Unreachable) as caught:
            transport.request("GET", "/")
    assert caught.value.message == f"can't reach {url}: connection refused"


def test_no_such_socket(tmp_path: Path, transport_to: Callable[..., Transport]) -> None:
    with transport_to(f"unix:{tmp_path}/none") as transport, pytest.raises(errors.Unreachable) as caught:
        transport.request("GET", "/")
    assert "no such file" in caught.value.message


def test_a_lost_connection_does_not_fail_what_changes_nothing(transport_to: Callable[..., Transport]) -> None:
    def lost(visit: Visit) -> None:
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    with scripted_server(lost, answer(200, "whole"), lost, lost) as server, transport_to(server.url) as transport:
        assert transport.request("GET", "/a").body == b"whole"
        with pytest.raises(errors.ConnectionLost):
            transport.request("POST", "/b")
        with pytest.raises(errors.ConnectionLost):
            transport.request("GET", "/c")  # two times at most
    assert [visit.path for visit in server.visits] == ["/a", "/a", "/b", "/c", "/c"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "the connection broke within the response"),
        (b"SSH-2.0-x\r\n", "its response is not HTTP: SSH-2.0-x"),
    ],
)
def test_the_server_hangs_up(said: bytes, why: str, transport_to: Callable[..., Transport]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                listener.close()
                connection.sendall(said)

        thread = threading.Thread(target=hang_up)
        thread.start()
        with transport_to(url) as transport, pytest.raises(errors.Unreachable) as caught:
            transport.request("GET", "/")
        thread.join()
    assert caught.value.message.startswith(f"can't reach {url}: {why}")


def test_the_time_for_an_answer_is_bounded_also_when_it_comes_in_drops(transport_to: Callable[..., Transport]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        enough = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not enough.wait(0.05):
                    connection.sendall(b"x" * 70_000)

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with transport_to(url, timeout=0.3) as transport, pytest.raises(errors.Unreachable):
                transport.request("GET", "/")
        finally:
            enough.set()
            thread.join()


@pytest.mark.row("GF-07", "GC-02")
def test_tls_needs_the_authority(
    answering: Callable[..., Answering], tmp_path: Path, transport_to: Callable[..., Transport]
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    cacert = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(cacert)
    server = answering(context)
    server.answer("/ping", "OK")
    with transport_to(server.url, cacert=str(cacert)) as transport:
        assert transport.request("GET", "/ping").body == b"OK"
    with transport_to(server.url) as transport, pytest.raises(errors.Unreachable) as caught:
        transport.request("GET", "/ping")
    assert "TLS" in caught.value.message


def test_a_unix_socket(tmp_path: Path, transport_to: Callable[..., Transport]) -> None:
    path = tmp_path / "gafferd.sock"
    with gafferd("--bind", f"unix:{path}"), transport_to(f"unix:{path}") as transport:
        assert transport.request("GET", "/ping").body == b"OK"


def _drip(said: bytes, drop: bytes) -> Play:
    """A play that sends something and then one drop after the other, each before a timeout for it would end."""

    def play(visit: Visit) -> None:
        visit.send(said)
        visit.sock.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while True:
                try:
                    if not visit.sock.recv(65536):
                        return
                except TimeoutError:
                    visit.send(drop)

    return play


OK = b"HTTP/1.1 200 OK\r\n"
HEADS = [
    pytest.param(b"", b"H", id="status line"),
    pytest.param(OK + b"X-A: ", b"a", id="header"),
    pytest.param(OK, b"X-A: a\r\n", id="headers"),
    pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
]
BODIES = [
    pytest.param(OK + b"Content-Length: 70000\r\n\r\n", b"a", id="body"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", id="chunks"),
    pytest.param(OK + b"Connection: close\r\n\r\n", b"a", id="body without length"),
    pytest.param(b"HTTP/1.1 500 x\r\nConnection: close\r\n\r\n", b"a", id="error"),
]


@pytest.mark.parametrize(("said", "drop"), HEADS + BODIES)
def test_a_server_that_sends_a_byte_now_and_then_holds_nobody(
    said: bytes, drop: bytes, transport_to: Callable[..., Transport]
) -> None:
    with (
        scripted_server(_drip(said, drop)) as server,
        transport_to(server.url, timeout=0.3) as transport,
        pytest.raises(errors.Unreachable, match=r"no response within 0\.3 s"),
    ):
        transport.request("GET", "/")


def test_finding_out_what_a_slow_server_is_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_TIMEOUT", 0.3)
    with scripted_server(_drip(OK + b"Connection: close\r\n\r\n", b"a")) as server:
        assert diagnosis.kind_of(server.url) == "nothing"


def test_an_answer_that_nests_too_deeply_is_no_gaffer_server() -> None:
    with scripted_server(lambda visit: visit.send(OK + b"Connection: close\r\n\r\n" + b"[" * 100_000)) as server:
        assert diagnosis.kind_of(server.url) == "http"


@pytest.mark.parametrize(("said", "drop"), [*HEADS, BODIES[-1]])
def test_a_stream_has_to_begin_in_time(said: bytes, drop: bytes, transport_to: Callable[..., Transport]) -> None:
    with (
        scripted_server(_drip(said, drop)) as server,
        transport_to(server.url, timeout=0.3) as transport,
        pytest.raises(errors.Unreachable),
    ):
        transport.stream("/", {}, idle_timeout=10)


@pytest.mark.parametrize(("said", "drop"), HEADS[1:3])
def test_a_websocket_has_to_begin_in_time(said: bytes, drop: bytes) -> None:
    with (
        scripted_server(_drip(said, drop)) as server,
        Transport(server.url, timeout=0.3) as transport,
        pytest.raises(errors.Unreachable, match=r"no response within 0\.3 s"),
    ):
        Connection(transport, "/")


def test_a_stream_may_last(transport_to: Callable[..., Transport]) -> None:
    with (
        scripted_server(_drip(OK + b"Connection: close\r\n\r\n", b"a")) as server,
        transport_to(server.url, timeout=0.3) as transport,
    ):
        stream = transport.stream("/", {}, idle_timeout=10)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert stream.read()
        stream.close()


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """The address of a host that drops what is sent to it, like one whose network is gone."""
    with socket.socket() as full, contextlib.ExitStack() as clients:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # more than the kernel lets wait
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield full.getsockname()


def test_a_dead_address_of_a_name_costs_little(
    silent: tuple[str, int],
    answering: Callable[..., Answering],
    monkeypatch: pytest.MonkeyPatch,
    transport_to: Callable[..., Transport],
) -> None:
    server = answering()
    server.answer("/x", "{}")
    living = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    resolve = socket.getaddrinfo
    tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")

    def two_addresses(host: str, *args: Any, **options: Any) -> list[Any]:
        return [(*tcp, silent), (*tcp, living)] if host == "node.test" else resolve(host, *args, **options)

    monkeypatch.setattr("socket.getaddrinfo", two_addresses)
    with transport_to("http://node.test:5000") as transport:
        before = time.monotonic()
        transport.request("GET", "/x")
        assert time.monotonic() - before < CONNECT_TIMEOUT / 2


def test_a_dead_address_and_a_resolver_that_hangs_cost_no_more_than_the_timeout(
    silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch, transport_to: Callable[..., Transport]
) -> None:
    with transport_to(f"http://127.0.0.1:{silent[1]}", timeout=0.3) as transport, pytest.raises(errors.Unreachable):
        transport.request("GET", "/")
    resolve, end = socket.getaddrinfo, threading.Event()

    def hang(host: str, *args: Any, **options: Any) -> list[Any]:
        if not options.get("flags"):
            end.wait()
        return resolve("127.0.0.1", *args, **options) if end.is_set() else resolve(host, *args, **options)

    monkeypatch.setattr("socket.getaddrinfo", hang)
    with transport_to("http://node.test", timeout=0.3) as transport, pytest.raises(errors.Unreachable, match=r"0\.3 s"):
        transport.request("GET", "/")
    end.set()


def test_a_byte_now_and_then_over_tls_holds_nobody(tmp_path: Path, transport_to: Callable[..., Transport]) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    end = threading.Event()

    def drip(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.sendall(OK + b"X-A: ")
            while not end.wait(0.05):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with (
                transport_to(url, cacert=str(tmp_path / "ca.pem"), timeout=0.5) as transport,
                pytest.raises(errors.Unreachable, match=r"no response within 0\.5 s"),
            ):
                transport.request("GET", "/")
        finally:
            end.set()
            thread.join()
