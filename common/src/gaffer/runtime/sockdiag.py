"""TCP sockets of this host, by netlink sock_diag queries (Linux, sock_diag(7)): connections, their owners, listeners.

A client that has already closed its socket leaves an orphan behind, which the kernel reports with uid 0. `find_uid`
therefore trusts only sockets that a process still holds, in a state that follows a finished handshake, and returns None
for all others.
"""

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ANY_COOKIE = b"\xff" * 8


class TcpState(IntEnum):
    """States of TCP sockets, as numbered by Linux."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


_HELD_STATES = frozenset((TcpState.ESTABLISHED, TcpState.FIN_WAIT2, TcpState.CLOSE_WAIT))

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to id: family, protocol, extensions, pad, states
_ERROR = struct.Struct("=i")
_PORTS = struct.Struct("!HH")  # inet_diag_sockid starts with the two ports; both addresses take 16 bytes each
_OWNER = struct.Struct("=IIIII")  # the end of inet_diag_msg: expires, rqueue, wqueue, uid, inode
_START = struct.Struct("=IH")  # of nlmsghdr: length, type
_LISTENER = struct.Struct("=20xH62xI")  # nlmsghdr, then inet_diag_msg: its first port, its inode
_ENDS = struct.Struct("!17xB2xHH16s16s")  # nlmsghdr, then inet_diag_msg: its state, the ports, the addresses
_REST_AT = 68  # expires to inode, after nlmsghdr
_PORTS_AT, _LOCAL_AT, _REMOTE_AT, _OWNER_AT = 4, 8, 24, 52  # offsets in inet_diag_msg
_DUMP_SIZE = 64 * 1024  # bytes for a part of a dump; the kernel sends at most half of it
_ANSWER_SIZE = _HEADER.size + _OWNER_AT + _OWNER.size


class SocketAddress(NamedTuple):
    """One end of a TCP connection."""

    ip: IPAddress
    port: int


class SocketOwner(NamedTuple):
    """A socket as reported by the kernel: TCP state, uid of its owner, and inode (0 if no process holds it)."""

    state: int
    uid: int
    inode: int


class Listener(NamedTuple):
    """A listening socket: its port, at any address, and its inode, which no other open socket has."""

    port: int
    inode: int


class Connection(NamedTuple):
    """Our end of a connection: TCP state, addresses as bytes, ports, and inode; 0 if no process holds it, or none yet.

    `expires` is the time left of its timer, such as that of TIME_WAIT, in seconds.
    """

    state: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    expires: float
    inode: int


def trusted_uid(owner: SocketOwner | None) -> int | None:
    """Return the uid if it can be trusted, else None."""
    if owner is None or owner.inode == 0 or owner.state not in _HELD_STATES:
        return None
    return owner.uid


class SockDiag:
    """A netlink socket for repeated queries. Not thread-safe.

    Raises OSError if the kernel or a sandbox does not permit netlink sockets.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
        )
        try:
            self._socket.bind((0, 0))
            self._socket.connect((0, 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def find_uid(self, client: SocketAddress, server: SocketAddress) -> int | None:
        """Return the uid of the client process in the connection from `client` to `server`; None if unknown."""
        return trusted_uid(self.find(client, server))

    def find(self, local: SocketAddress, remote: SocketAddress) -> SocketOwner | None:
        """Return the socket with exactly these ends; None if there is none or the kernel didn't answer."""
        local, remote = _unmapped(local), _unmapped(remote)
        if local.ip.version != remote.ip.version:
            return None
        family = socket.AF_INET if local.ip.version == 4 else socket.AF_INET6
        ends = _PORTS.pack(local.port, remote.port) + _padded(local.ip) + _padded(remote.ip)
        with contextlib.suppress(OSError):  # ENOBUFS, or EAGAIN: no answer
            self._ask(family, ends + bytes(4) + _ANY_COOKIE, states=0xFFFFFFFF)
            while True:
                answer = self._socket.recv(4096)
                # The kernel answers within send(); another sequence number is left over from a failed query.
                if len(answer) >= _HEADER.size and _HEADER.unpack_from(answer)[3] == self._sequence:
                    return _parse(answer, local, remote)
        return None

    def listeners(self) -> set[Listener]:
        """Return the listening sockets. Raises OSError if the kernel doesn't answer."""
        found = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            for answer, at in self._dump(family, (TcpState.LISTEN,)):
                port, inode = _LISTENER.unpack_from(answer, at)
                found.add(Listener(socket.ntohs(port), inode))
        return found

    def connections(
        self, family: int, states: Iterable[TcpState], *, local_port: int = 0, remote_port: int = 0
    ) -> Iterator[Connection]:
        """Yield the connections of `family` (AF_INET or AF_INET6) in `states`, with these ports unless they are 0.

        Until the iterator is exhausted, there can be no other query. Raises OSError if the kernel doesn't answer.
        """
        size = 4 if family == socket.AF_INET else 16
        for answer, at in self._dump(family, states, _PORTS.pack(local_port, remote_port)):
            state, near, far, local, remote = _ENDS.unpack_from(answer, at)
            expires, _, _, _, inode = _OWNER.unpack_from(answer, at + _REST_AT)
            yield Connection(state, local[:size], near, remote[:size], far, expires / 1000, inode)

    def _dump(self, family: int, states: Iterable[TcpState], ports: bytes = bytes(4)) -> Iterator[tuple[bytes, int]]:
        """Yield a part of a dump and the offset of a message in it, for each socket."""
        self._ask(family, ports + bytes(44), states=sum(1 << state for state in states), flags=_NLM_F_DUMP)
        while True:
            # The kernel makes the next part within recv(), so that none has to be awaited.
            answer = self._socket.recv(_DUMP_SIZE)
            if _HEADER.unpack_from(answer)[3] != self._sequence:
                continue  # left over from a failed query
            at, end = 0, len(answer)
            while at < end:
                length, kind = _START.unpack_from(answer, at)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -_ERROR.unpack_from(answer, at + _HEADER.size)[0]
                    raise OSError(code, os.strerror(code))
                yield answer, at
                at += length

    def _ask(self, family: int, which: bytes, *, states: int, flags: int = 0) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states) + which
        flags |= _NLM_F_REQUEST
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, flags, self._sequence, 0) + body)


def _parse(answer: bytes, local: SocketAddress, remote: SocketAddress) -> SocketOwner | None:
    kind = _HEADER.unpack_from(answer)[1]
    if kind != _SOCK_DIAG_BY_FAMILY or len(answer) < _ANSWER_SIZE:
        return None
    body = answer[_HEADER.size :]
    ip_size = 4 if body[0] == socket.AF_INET else 16
    local_port, remote_port = _PORTS.unpack_from(body, _PORTS_AT)
    found_local = SocketAddress(ipaddress.ip_address(body[_LOCAL_AT : _LOCAL_AT + ip_size]), local_port)
    found_remote = SocketAddress(ipaddress.ip_address(body[_REMOTE_AT : _REMOTE_AT + ip_size]), remote_port)
    # If there is no such connection, the kernel returns a listening socket.
    if (_unmapped(found_local), _unmapped(found_remote)) != (local, remote):
        return None
    _, _, _, uid, inode = _OWNER.unpack_from(body, _OWNER_AT)
    return SocketOwner(state=body[1], uid=uid, inode=inode)


def _unmapped(address: SocketAddress) -> SocketAddress:
    """Return `::ffff:a.b.c.d` as IPv4, which finds connections over IPv4 in both families."""
    mapped = address.ip.ipv4_mapped if isinstance(address.ip, ipaddress.IPv6Address) else None
    return SocketAddress(mapped, address.port) if mapped else address


def _padded(ip: IPAddress) -> bytes:
    return ip.packed.ljust(16, b"\0")
