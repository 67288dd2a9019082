"""One websocket: messages, timeouts, limits, and what becomes of broken servers."""

import ssl
import threading
from pathlib import Path

import pytest
import trustme

from gaffer_client import errors
from gaffer_client.connection import Connection
from gaffer_client.transport import Transport
from support.poll import eventually
from support.scripted import Play, Visit, answer, scripted_server
from support.scripted_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Peer, close_frame, frame, websocket


def connect(url: str, path: str = "/x", **options: float) -> Connection:
    return Connection(Transport(url, api_key="k"), path, **options)  # type: ignore[arg-type]


def test_messages_both_ways() -> None:
    def script(peer: Peer) -> None:
        for _ in range(2):
            opcode, payload = peer.receive()
            peer.send(frame(opcode, payload))
        peer.end()

    with scripted_server(websocket(script)) as server:
        with connect(server.url + "/base", "/channel/websocket") as connection:
            connection.send("ä")
            assert connection.receive() == "ä"
            connection.send(bytes(range(256)) * 400)
            assert connection.receive() == bytes(range(256)) * 400
        [visit] = server.visits
        assert visit.path == "/base/channel/websocket"
        assert visit.header("Authorization") == "Bearer k"
        assert visit.header("Host") == server.url.removeprefix("http://")
        assert visit.header("Origin") is None
    assert connection.close_code == 1000


def test_a_message_in_parts_with_a_ping_between_them() -> None:
    def script(peer: Peer) -> None:
        whole = "hallo wörld".encode()
        peer.send(frame(TEXT, whole[:8], last=False), frame(PING, b"p"), frame(CONTINUATION, whole[8:]))
        peer.send(frame(BINARY, b"a", last=False), frame(CONTINUATION, b"b"), frame(TEXT, ""))
        assert peer.receive() == (PONG, b"p")
        peer.end()

    with scripted_server(websocket(script)) as server, connect(server.url) as connection:
        assert [connection.receive() for _ in range(3)] == ["hallo wörld", b"ab", ""]


def test_messages_that_come_with_the_handshake() -> None:
    with (
        scripted_server(websocket(Peer.end, first=frame(TEXT, "a") + frame(TEXT, "b"))) as server,
        connect(server.url) as connection,
    ):
        assert (connection.receive(), connection.receive()) == ("a", "b")


def test_nothing_comes_in_time() -> None:
    def script(peer: Peer) -> None:
        assert peer.receive_text() == "now"
        peer.send(frame(TEXT, "here"))
        peer.end()

    with scripted_server(websocket(script)) as server, connect(server.url) as connection:
        with pytest.raises(TimeoutError):
            connection.receive(0.01)
        with pytest.raises(TimeoutError):
            connection.receive(0)
        connection.send("now")
        assert connection.receive(10) == "here"


def test_the_server_ends_it() -> None:
    def script(peer: Peer) -> None:
        peer.send(frame(TEXT, "last"), close_frame(1001, "the node is stopping"))
        assert peer.receive()[0] == CLOSE

    with scripted_server(websocket(script)) as server, connect(server.url) as connection:
        assert [connection.receive() for _ in range(3)] == ["last", None, None]
        assert (connection.close_code, connection.close_reason) == (1001, "the node is stopping")
        with pytest.raises(errors.Unreachable, match="is closed"):
            connection.send("x")


def test_the_connection_is_lost() -> None:
    with (
        scripted_server(websocket(lambda peer: peer.send(frame(TEXT, "last"), b"\x81"))) as server,
        connect(server.url) as connection,
    ):
        assert connection.receive() == "last"
        for _ in range(2):
            with pytest.raises(errors.Unreachable, match="was lost"):
                connection.receive()


def test_a_server_without_a_sign_of_life() -> None:
    pings: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        pings.append(peer.receive())
        peer.send(frame(PONG, b""))
        pings.append(peer.receive())
        peer.visit.wait_for_end()

    with scripted_server(websocket(script)) as server, connect(server.url, ping_interval=0.05) as connection:
        with pytest.raises(errors.Unreachable, match="silent for"):
            connection.receive()
        assert pings == [(PING, b"")] * 2


def test_a_message_has_a_limit() -> None:
    def script(peer: Peer) -> None:
        peer.send(frame(TEXT, "x" * 1000), frame(TEXT, "x" * 600, last=False), frame(CONTINUATION, "x" * 600))
        peer.visit.wait_for_end()

    with scripted_server(websocket(script)) as server, connect(server.url, max_message=1000) as connection:
        assert connection.receive() == "x" * 1000
        with pytest.raises(errors.MalformedAnswer, match="more than 1000 bytes"):
            connection.receive()


@pytest.mark.parametrize(
    "sent",
    [frame(3, "reserved"), frame(TEXT, b"\xff"), frame(CONTINUATION, "of nothing"), b"\xc1\x00", frame(CLOSE, b"x")],
)
def test_what_is_against_the_rules(sent: bytes) -> None:
    with (
        scripted_server(websocket(lambda peer: (peer.send(sent), peer.visit.wait_for_end()))) as server,
        connect(server.url) as connection,
        pytest.raises(errors.MalformedAnswer, match="websocket"),
    ):
        connection.receive()


@pytest.mark.parametrize(
    ("play", "kind", "text"),
    [
        (answer(404, '{"error": "not_found", "message": "no process 7"}'), errors.NotFound, "no process 7"),
        (answer(401), errors.Unauthorized, "401"),
        (answer(403, "x" * 200_000), errors.Forbidden, "403"),
        (answer(200, "<html>"), errors.MalformedAnswer, "no websocket"),
        (answer(302), errors.MalformedAnswer, "answered with a redirect"),
        (lambda visit: visit.send("SSH-2.0\r\n\r\n"), errors.MalformedAnswer, "websocket protocol"),
        (lambda visit: visit.send("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n"), errors.MalformedAnswer, "websocket"),
        (lambda visit: None, errors.Unreachable, "closed"),
        (lambda visit: visit.send("HTTP/1.1 4"), errors.Unreachable, "closed"),
    ],
)
def test_a_handshake_that_fails(play: Play, kind: type[errors.GafferClientError], text: str) -> None:
    with scripted_server(play) as server, pytest.raises(kind, match=text):
        connect(server.url)


def test_nobody_answers(closed: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable, match="connection refused"):
        connect(closed)
    with pytest.raises(errors.Unreachable, match="no such file"):
        connect(f"unix:{tmp_path}/none")


def test_a_server_that_never_answers() -> None:
    def play(visit: Visit) -> None:
        visit.wait_for_end()

    with scripted_server(play) as server, pytest.raises(errors.Unreachable, match=r"no response within 0\.1 s"):
        Connection(Transport(server.url, timeout=0.1), "/x")


@pytest.mark.parametrize("polite", [True, False])
def test_another_thread_ends_it(polite: bool) -> None:
    received: list[object] = []
    script = Peer.end if polite else lambda peer: peer.visit.wait_for_end()
    with scripted_server(websocket(script)) as server:
        connection = connect(server.url)
        thread = threading.Thread(target=lambda: received.append(connection.receive()))
        thread.start()
        eventually(connection._receiving.locked)
        connection.close(timeout=0.2)
        connection.close()
        thread.join(10)
    assert received == [None]
    assert connection.close_code == 1000


def test_what_was_sent_arrives_before_the_end() -> None:
    arrived: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(*[frame(BINARY, b"x" * 60_000)] * 20)  # which nobody reads
        arrived.append(peer.receive()[1])
        peer.end()

    with scripted_server(websocket(script)) as server:
        with connect(server.url) as connection:
            connection.send("order")
        eventually(lambda: arrived == [b"order"])


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def secure(play: Play) -> Play:
        def secured(visit: Visit) -> None:
            with context.wrap_socket(visit.sock, server_side=True) as sock:
                visit.sock = sock
                head = b""
                while b"\r\n\r\n" not in head:
                    head += sock.recv(1)
                visit.head = head.decode()
                play(visit)

        return secured

    def script(peer: Peer) -> None:
        peer.send(frame(TEXT, "a" * 100_000))
        peer.end()

    with scripted_server(secure(websocket(script)), greet=False) as server:
        url = server.url.replace("http:", "https:")
        transport = Transport(url, cacert=str(tmp_path / "ca.pem"), certfile=str(tmp_path / "client.pem"))
        with Connection(transport, "/x") as connection:
            assert connection.receive() == "a" * 100_000
            with pytest.raises(TimeoutError):
                connection.receive(0.01)


def test_a_stranger_certificate(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def refuse(visit: Visit) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(visit.sock, server_side=True)

    with (
        scripted_server(refuse, greet=False) as server,
        pytest.raises(errors.Unreachable, match="TLS failed") as caught,
    ):
        connect(server.url.replace("http:", "https:"))
    assert "--cacert" in (caught.value.hint or "")
