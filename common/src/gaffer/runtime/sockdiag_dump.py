"""The TCP connections of this host, by netlink sock_diag dumps (Linux, sock_diag(7))."""

import os
import socket
import struct
from collections.abc import Generator, Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to id: family, protocol, extensions, pad, states
_PORTS = struct.Struct("!HH")  # inet_diag_sockid: two ports, two addresses of 16 bytes, interface, cookie
_ID_REST = bytes(16 + 16 + 4 + 8)
_MESSAGE = struct.Struct("!4xHH16s16s")  # inet_diag_msg: family, state, timer, retrans, then the sockid
_TAIL = struct.Struct("=IIIII")  # the end of inet_diag_msg: expires, rqueue, wqueue, uid, inode
_TAIL_AT = 52
_NUMBER = struct.Struct("=i")
_BUFFER = 32 * 1024  # the kernel fills up to this much at a time


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


class TcpSocket(NamedTuple):
    """A socket of a dump: its state, packed addresses and ports, and inode; 0 if no process holds it, or none yet.

    `expires` is the time left of its timer, such as that of TIME_WAIT, in seconds.
    """

    state: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    expires: float
    inode: int


def dump_tcp(
    family: int, states: Iterable[TcpState], *, local_port: int = 0, remote_port: int = 0
) -> Generator[TcpSocket, None, None]:
    """Yield the sockets of `family` (AF_INET or AF_INET6) in these states, with these ports unless they are 0.

    Close the iterator to end early. Raises OSError if the kernel or a sandbox does not permit the query.
    """
    mask = sum(1 << state for state in states)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, mask) + _PORTS.pack(local_port, remote_port) + _ID_REST
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    size = 4 if family == socket.AF_INET else 16
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG) as netlink:
        netlink.connect((0, 0))
        netlink.send(header + body)
        # The kernel makes the next part of a dump within recv(), so that none has to be awaited.
        while True:
            for kind, message in _messages(netlink.recv(_BUFFER)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -_NUMBER.unpack_from(message)[0]
                    raise OSError(number, os.strerror(number))
                near, far, local, remote = _MESSAGE.unpack_from(message)
                expires, _, _, _, inode = _TAIL.unpack_from(message, _TAIL_AT)
                yield TcpSocket(message[1], local[:size], near, remote[:size], far, expires / 1000, inode)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split what the kernel sent into messages, as pairs of type and body."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, position)
        yield kind, data[position + _HEADER.size : position + length]
        position += (length + 3) & ~3
