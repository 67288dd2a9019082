"""Who gets a key or an environment: only a server that TLS or the kernel has proven."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gaffer_client import Server, errors
from gaffer_client.sockets import open_socket
from gaffer_client.transport import Transport
from support.client import answering_server, own_address
from support.needs import needs_root
from support.scripted import answer, scripted_server
from support.strangers import OVERFLOW, STRANGER, stranger

pytestmark = needs_root

# Answers every request, and prints what it got on each connection as one line.
SERVE = """
listener = socket.socket(getattr(socket, sys.argv[1]))
listener.bind(("127.0.0.1", 0) if sys.argv[1] == "AF_INET" else sys.argv[2])
if sys.argv[1] == "AF_UNIX":
    os.chmod(sys.argv[2], 0o777)
listener.listen()
print(listener.getsockname()[1] if sys.argv[1] == "AF_INET" else "", flush=True)
def serve(connection):
    got = connection.recv(65536)
    if got == b"QUIT":
        return False
    key = got.partition(b"Sec-WebSocket-Key: ")[2][:24]
    if key:
        proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        head = b"HTTP/1.1 101 x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: "
        connection.sendall(head + proof + b"\\r\\n\\r\\n")
        got += connection.recv(65536)
    print(repr(got), flush=True)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 11\\r\\n\\r\\n{\\"ok\\":true}")
    return True
going = True
while going:
    with listener.accept()[0] as connection:
        try:
            going = serve(connection)
        except ConnectionError:
            pass
"""


@contextmanager
def others_server(family: str, uid: int = STRANGER) -> Iterator[tuple[str, list[str]]]:
    """A server of another user: its URL, and what it received, which is known once the block has ended."""
    received: list[str] = []
    with TemporaryDirectory() as folder, stranger(SERVE, family, path := _open_to_all(folder), uid=uid) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        url = f"http://127.0.0.1:{port}" if port else f"unix:{path}"
        yield url, received
        with open_socket(Transport(url)) as last:
            last.sendall(b"QUIT")
        received += process.stdout.read().splitlines()


def _open_to_all(folder: str) -> Path:
    Path(folder).chmod(0o777)
    return Path(folder, "s")


@pytest.fixture(params=["AF_INET", "AF_UNIX"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_another_users_server_gets_neither_a_key_nor_an_environment(family: str) -> None:
    with others_server(family) as (url, received):
        with Server(url, api_key="gk_secret") as server:
            for ask in (server.ping, server.jobs, lambda: server.get_watcher().run(), lambda: server.socket().start()):
                with pytest.raises(
                    errors.UntrustedServer, match=f"the server runs as uid {STRANGER}, not as you or root"
                ) as e:
                    ask()
                assert "insecure" in (e.value.hint or "")
        with Server(url) as server:
            job = {"name": "web", "cmd": "true", "env": {"PASSWORD": "gk_secret"}}
            for give in (
                lambda: server.load(job, "s"),
                lambda: server.load_all([job], "s"),
                lambda: server.update(job),
                lambda: server.add_process(job),
            ):
                with pytest.raises(errors.UntrustedServer):
                    give()
            server.load({"name": "web", "cmd": "true"}, "s")  # nothing confidential
    assert len([line for line in received if "POST" in line]) == 1
    assert "gk_secret" not in str(received)


def test_an_unmapped_user_is_not_known_as_oneself(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: OVERFLOW)
    with (
        others_server(family, OVERFLOW) as (url, received),
        Server(url, api_key="gk_secret") as server,
        pytest.raises(errors.UntrustedServer, match="the kernel does not report the user of the server"),
    ):
        server.ping()
    assert "gk_secret" not in str(received)


def test_with_insecure_it_gets_them(family: str) -> None:
    with others_server(family) as (url, received), Server(url, api_key="gk_secret", insecure=True) as server:
        server.load({"name": "web", "cmd": "true"}, "s")
    assert "gk_secret" in str(received)


def test_a_websocket_of_another_user_gets_none_in_a_message(family: str) -> None:
    with others_server(family) as (url, received), Server(url) as server, server.socket() as socket:
        with pytest.raises(errors.UntrustedServer):
            socket.authenticate("gk_secret")
        with pytest.raises(errors.UntrustedServer):
            socket.send_command("load", {"name": "web", "cmd": "true", "env": {"PASSWORD": "gk_secret"}})
        socket.send_command("ping")
    assert "websocket" in str(received)
    assert "gk_secret" not in str(received)


def test_the_own_server_gets_them_once_it_accepts() -> None:
    with scripted_server(answer(200, "OK")) as scripted, Transport(scripted.url, api_key="gk_secret") as transport:
        assert transport.request("GET", "/ping").body == b"OK"
        assert scripted.visits[0].header("Authorization") == "Bearer gk_secret"


def test_plain_http_beyond_loopback_is_no_way_for_a_key() -> None:
    with answering_server(host=own_address()) as node:
        node.answer("/ping", "OK")
        with Server(node.url) as server:
            assert server.ping()
        node.requests.clear()
        with Server(node.url, api_key="gk_secret") as server:
            with pytest.raises(errors.UntrustedServer, match="plain http exposes them to the network"):
                server.ping()
            with pytest.raises(errors.UntrustedServer):
                server.socket().start()
        assert node.requests == []
        with Server(node.url, api_key="gk_secret", insecure=True) as server:
            assert server.ping()
