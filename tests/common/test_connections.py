"""Whether clients use a listening socket: real connections, in every state."""

import math
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer.processes.connections import seconds_since_use
from support.needs import needs_linux
from support.poll import eventually

pytestmark = needs_linux

LONG_AGO = 0.0  # every value is exact
FAMILIES = {"IPv4": "127.0.0.1", "IPv6": "::1", "all IPv4": "0.0.0.0", "unix": "unix"}


@pytest.fixture(params=list(FAMILIES.values()), ids=list(FAMILIES))
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with _listen(request.param, tmp_path) as listening:
        yield listening


@pytest.fixture(params=["127.0.0.1", "::1", "0.0.0.0"])
def tcp(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with _listen(request.param, tmp_path) as listening:
        yield listening


def _listen(host: str, folder: Path) -> socket.socket:
    """A listening socket, with a port that was not used lately."""
    if host == "unix":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "a b.sock"))
        listening.listen()
        return listening
    while True:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
        if seconds_since_use(listening, LONG_AGO) == math.inf:
            return listening
        listening.close()


def _connect(listening: socket.socket) -> socket.socket:
    client = socket.socket(listening.family)
    client.connect(listening.getsockname())
    return client


def _reset(end: socket.socket) -> None:
    """Close a TCP connection so that no end remembers it."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def test_a_connection_counts_from_the_backlog_until_the_server_closes_it(listening: socket.socket) -> None:
    assert seconds_since_use(listening, LONG_AGO) == math.inf
    client = _connect(listening)
    assert seconds_since_use(listening, LONG_AGO) == 0, "waiting"
    accepted, _ = listening.accept()
    assert seconds_since_use(listening, LONG_AGO) == 0, "accepted"
    accepted.shutdown(socket.SHUT_WR)
    assert seconds_since_use(listening, LONG_AGO) == 0, "the server sends no more"
    client.close()
    if listening.family == socket.AF_UNIX:
        assert seconds_since_use(listening, LONG_AGO) == 0, "the client is gone, but the server serves it"
    accepted.close()
    eventually(lambda: seconds_since_use(listening, LONG_AGO) > 0)


def test_a_client_that_went_counts_while_the_server_serves_it(listening: socket.socket) -> None:
    client = _connect(listening)
    accepted, _ = listening.accept()
    client.close()
    with accepted:
        assert seconds_since_use(listening, LONG_AGO) == 0


def test_a_connection_that_the_server_closed_is_remembered(tcp: socket.socket) -> None:
    client = _connect(tcp)
    accepted, _ = tcp.accept()
    accepted.close()
    client.close()
    assert 0 <= eventually(lambda: 0 < (since := seconds_since_use(tcp, LONG_AGO)) < 30 and since) < 30


def test_a_connection_that_a_local_client_closed_is_remembered(tcp: socket.socket) -> None:
    client = _connect(tcp)
    accepted, _ = tcp.accept()
    client.close()
    accepted.close()
    assert 0 <= eventually(lambda: 0 < (since := seconds_since_use(tcp, LONG_AGO)) < 30 and since) < 30


def test_a_reset_connection_is_forgotten(tcp: socket.socket) -> None:
    client = _connect(tcp)
    accepted, _ = tcp.accept()
    _reset(client)
    accepted.close()
    eventually(lambda: seconds_since_use(tcp, LONG_AGO) == math.inf)


def test_connections_to_the_same_port_of_another_address_do_not_count(tmp_path: Path) -> None:
    with _listen("127.0.0.1", tmp_path) as mine:
        port = mine.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)) as other, _connect(other):
            assert seconds_since_use(other, LONG_AGO) == 0
            assert seconds_since_use(mine, LONG_AGO) == math.inf


def test_connections_to_other_servers_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _listen("127.0.0.1", tmp_path) as mine, socket.create_server(("127.0.0.1", 0)) as other:
        client = socket.create_connection(other.getsockname(), source_address=("127.0.0.2", mine.getsockname()[1]))
        with client:
            assert seconds_since_use(mine, LONG_AGO) == math.inf
    with _listen("unix", tmp_path) as mine, socket.socket(socket.AF_UNIX) as other:
        # /proc/net/unix shows a path as it was given, even if the end of it looks like ours.
        path = f"x {mine.getsockname()}"
        monkeypatch.chdir(tmp_path)
        Path(path).parent.mkdir(parents=True)
        other.bind(path)
        other.listen()
        with _connect(other):
            assert seconds_since_use(other, LONG_AGO) == 0
            assert seconds_since_use(mine, LONG_AGO) == math.inf


def test_clients_of_both_families_use_a_dual_stack_socket(tmp_path: Path) -> None:
    with _listen("::", tmp_path) as listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            client = socket.create_connection((host, port))
            accepted, _ = listening.accept()
            assert seconds_since_use(listening, LONG_AGO) == 0
            _reset(client)
            accepted.close()
            eventually(lambda: seconds_since_use(listening, LONG_AGO) == math.inf)
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = listening.accept()
        client.close()
        accepted.close()
        eventually(lambda: 0 < seconds_since_use(listening, LONG_AGO) < 30)
