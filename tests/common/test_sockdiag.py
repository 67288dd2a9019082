"""Who is at the other end of a connection, and who listens: real sockets, by netlink and unix socket options."""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gaffer.http.access import Peer, PeerKind
from gaffer.http.peer import PeerFinder
from gaffer.runtime.sockdiag import Listener, SockDiag, SocketAddress, SocketOwner, TcpState, trusted_uid
from support.needs import needs_linux, needs_root
from support.poll import eventually
from support.strangers import OVERFLOW, STRANGER, stranger

pytestmark = needs_linux

ESTABLISHED, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LISTEN = 1, 5, 6, 8, 10


class Connection:
    """A TCP connection over loopback, both ends ours."""

    def __init__(self, listen_on: str, connect_to: str) -> None:
        self.listener = socket.socket(_family(listen_on))
        if self.listener.family == socket.AF_INET6:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.listener.bind((listen_on, 0))
        self.listener.listen()
        self.client = socket.socket(_family(connect_to))
        self.client.connect((connect_to, self.listener.getsockname()[1]))
        self.accepted, name = self.listener.accept()
        self.near = _address(name)
        self.far = _address(self.accepted.getsockname())

    def close(self) -> None:
        for end in (self.client, self.accepted, self.listener):
            end.close()


PATHS = {
    "IPv4": ("127.0.0.1", "127.0.0.1"),
    "another loopback address": ("127.0.0.11", "127.0.0.11"),
    "IPv6": ("::1", "::1"),
    "IPv4 client, IPv6 server": ("::", "127.0.0.1"),
    "IPv6 socket on both sides, IPv4 between": ("::", "::ffff:127.0.0.1"),
    "IPv6 socket to an IPv4 server": ("127.0.0.1", "::ffff:127.0.0.1"),
}


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    diag = SockDiag()
    yield diag
    diag.close()


@pytest.fixture(params=list(PATHS.values()), ids=list(PATHS))
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    connection = Connection(*request.param)
    yield connection
    connection.close()


def test_a_living_client_is_found(diag: SockDiag, connection: Connection) -> None:
    owner = diag.find(connection.near, connection.far)
    assert owner == SocketOwner(ESTABLISHED, os.getuid(), os.fstat(connection.client.fileno()).st_ino)
    assert diag.find_uid(connection.near, connection.far) == os.getuid()


def test_a_client_that_closed_is_unknown(diag: SockDiag, connection: Connection) -> None:
    connection.client.close()
    owner = diag.find(connection.near, connection.far)
    assert owner is None or owner.inode == 0
    assert diag.find_uid(connection.near, connection.far) is None


def test_a_client_that_only_sends_no_more_is_still_known(diag: SockDiag, connection: Connection) -> None:
    connection.client.shutdown(socket.SHUT_WR)
    # Until the server's kernel has acknowledged that, the state is FIN_WAIT1, which proves nothing.
    eventually(lambda: diag.find_uid(connection.near, connection.far) == os.getuid())
    owner = diag.find(connection.near, connection.far)
    assert owner is not None
    assert owner.state == FIN_WAIT2


def test_a_client_whose_server_closed_is_still_known(diag: SockDiag, connection: Connection) -> None:
    connection.accepted.close()
    owner = eventually(lambda: diag.find(connection.near, connection.far))
    assert owner.state == CLOSE_WAIT
    assert diag.find_uid(connection.near, connection.far) == os.getuid()


def test_a_listener_on_the_clients_port_is_not_the_client(diag: SockDiag) -> None:
    with ExitStack() as stack:
        connection = Connection("127.0.0.1", "127.0.0.1")
        stack.callback(connection.close)
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert diag.find(_address(listener.getsockname()), connection.far) is None


def test_unknown_connections_and_mixed_families_find_nothing(diag: SockDiag, connection: Connection) -> None:
    elsewhere = SocketAddress(ipaddress.ip_address("127.0.0.77"), 1)
    assert diag.find(elsewhere, SocketAddress(elsewhere.ip, 2)) is None
    assert diag.find(SocketAddress(ipaddress.ip_address("::1"), 1), elsewhere) is None
    assert diag.find_uid(connection.near, connection.far) == os.getuid(), "a failed question spoils no later one"


def test_connections_by_port_and_state(diag: SockDiag, connection: Connection) -> None:
    """The family is that of the socket, also when IPv4 reaches a socket of IPv6."""
    family = connection.accepted.family
    accepted = {"local_port": connection.far.port, "remote_port": connection.near.port}
    [found] = diag.connections(family, TcpState, **accepted)
    assert (found.local_port, found.remote_port) == (connection.far.port, connection.near.port)
    assert found.local == socket.inet_pton(family, connection.accepted.getsockname()[0])
    assert found.remote == socket.inet_pton(family, connection.accepted.getpeername()[0])
    assert (found.state, found.inode) == (ESTABLISHED, os.fstat(connection.accepted.fileno()).st_ino)
    assert list(diag.connections(family, [TcpState.CLOSE_WAIT], **accepted)) == []
    connection.client.shutdown(socket.SHUT_WR)
    eventually(lambda: list(diag.connections(family, [TcpState.CLOSE_WAIT], **accepted)))
    connection.accepted.close()
    near = {"local_port": connection.near.port, "remote_port": connection.far.port}
    waits = eventually(lambda: list(diag.connections(connection.client.family, [TcpState.TIME_WAIT], **near)))
    assert [(each.inode, 0 < each.expires <= 60) for each in waits] == [(0, True)]


def test_a_query_that_the_kernel_refuses(diag: SockDiag, connection: Connection) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        list(diag.connections(99, TcpState))
    assert diag.find_uid(connection.near, connection.far) == os.getuid(), "it spoils no later one"


def test_many_connections_come_in_parts(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as listener, ExitStack() as stack:
        address = listener.getsockname()
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(500)]
        found = diag.connections(socket.AF_INET, [TcpState.ESTABLISHED], local_port=address[1])
        assert {each.remote_port for each in found} == {client.getsockname()[1] for client in clients}


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_listener_is_listed_while_it_listens(diag: SockDiag, address: str) -> None:
    with socket.socket(_family(address)) as sock:
        sock.bind((address, 0))
        expected = Listener(sock.getsockname()[1], os.fstat(sock.fileno()).st_ino)
        assert expected not in diag.listeners()
        sock.listen()
        assert expected in diag.listeners()
    assert expected not in diag.listeners()


def test_listeners_that_fill_several_messages_of_the_kernel(diag: SockDiag, connection: Connection) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(600)]
        listeners = {Listener(sock.getsockname()[1], os.fstat(sock.fileno()).st_ino) for sock in sockets}
        assert listeners <= diag.listeners()
    assert diag.find_uid(connection.near, connection.far) == os.getuid()
    assert not listeners & diag.listeners()


@pytest.mark.parametrize(
    ("owner", "uid"),
    [
        (None, None),
        (SocketOwner(ESTABLISHED, 1000, 7), 1000),
        (SocketOwner(FIN_WAIT2, 1000, 7), 1000),
        (SocketOwner(CLOSE_WAIT, 1000, 7), 1000),
        (SocketOwner(ESTABLISHED, 0, 0), None),
        (SocketOwner(FIN_WAIT2, 0, 0), None),
        (SocketOwner(TIME_WAIT, 0, 0), None),
        (SocketOwner(LISTEN, 0, 7), None),
        *((SocketOwner(state, 0, 7), None) for state in (0, 2, 3, 4, 6, 7, 9, 10, 11, 12)),
    ],
)
def test_what_is_believed(owner: SocketOwner | None, uid: int | None) -> None:
    assert trusted_uid(owner) == uid


def test_the_peer_of_a_tcp_connection(connection: Connection) -> None:
    finder = PeerFinder()
    assert finder.find(connection.accepted) == Peer(PeerKind.LOOPBACK, os.getuid())
    finder.close()


def test_a_reset_connection_is_a_stranger(connection: Connection) -> None:
    finder = PeerFinder()
    connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.client.close()
    assert finder.find(connection.accepted).uid is None
    finder.close()


def test_the_peer_of_a_unix_connection(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        client.connect(str(tmp_path / "sock"))
        accepted, _ = listener.accept()
        client.close()  # what counts is who connected
        finder = PeerFinder()
        with accepted:
            peer = finder.find(accepted)
        finder.close()
    assert (peer.kind, peer.uid) == (PeerKind.UNIX, os.getuid())
    assert peer.gids == {os.getgid(), *os.getgroups()}


@needs_root
def test_another_users_connection_is_that_users(diag: SockDiag) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connect = "s = socket.socket(); s.connect(('127.0.0.1', int(sys.argv[1]))); sys.stdin.read()"
        with stranger(connect, listener.getsockname()[1]):
            accepted, name = listener.accept()
            with accepted:
                uid = diag.find_uid(_address(name), _address(accepted.getsockname()))
    assert uid == STRANGER


@needs_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_user_that_is_not_mapped_is_unknown(family: socket.AddressFamily) -> None:
    """Such a user looks like the overflow uid, and so does this caller. The name is abstract: anyone may connect."""
    name: Any = {
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
        socket.AF_UNIX: f"\0gaffer-test-{os.getpid()}",
    }[family]
    finder, found = PeerFinder(), {}
    with socket.socket(family) as listener:
        listener.bind(name)
        listener.listen()
        address = listener.getsockname()
        where = address.decode() if isinstance(address, bytes) else address
        connect = f"s = socket.socket({family:d}); s.connect({where!r}); sys.stdin.read()"
        for uid in (STRANGER, OVERFLOW):
            with stranger(connect, uid=uid):
                accepted, _ = listener.accept()
                with accepted:
                    found[uid] = finder.find(accepted)
    finder.close()
    assert [found[uid].uid for uid in (STRANGER, OVERFLOW)] == [STRANGER, None]
    groups = {STRANGER} if family == socket.AF_UNIX else set()
    assert [found[uid].gids for uid in (STRANGER, OVERFLOW)] == [groups, set()]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _address(name: tuple[str, int]) -> SocketAddress:
    return SocketAddress(ipaddress.ip_address(name[0]), name[1])
