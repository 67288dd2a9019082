"""Whether anything listens on a TCP port of this host, by a netlink sock_diag query (Linux, sock_diag(7)).

The kernel filters by state and port. /proc/net/tcp would cost a hundred times as much.
"""

import contextlib
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_LISTEN = 1 << 10  # the set of this state alone

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to id: family, protocol, extensions, pad, states
_SOCKET = struct.Struct("!HH36sQ")  # inet_diag_sockid: ports, addresses and interface, cookie
_ANY_COOKIE = 2**64 - 1


def listener_on(port: int) -> bool:
    """Return whether a socket of this host listens on the TCP port `port`; False if the kernel does not answer."""
    return any(_listens(family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _listens(family: int, port: int) -> bool:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN) + _SOCKET.pack(port, 0, b"", _ANY_COOKIE)
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    with (
        contextlib.suppress(OSError),  # netlink is missing or forbidden
        socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
        ) as netlink,
    ):
        netlink.send(header + body)
        # The answer is a list of the sockets found; without any, it begins with its end.
        kind: int = _HEADER.unpack_from(netlink.recv(4096))[1]
        return kind == _SOCK_DIAG_BY_FAMILY
    return False
