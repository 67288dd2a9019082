"""Whether clients use a listening socket, whichever process accepts its connections."""

import ipaddress
import math
import os
import socket
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from gaffer.runtime.sockdiag import Connection, SockDiag, TcpState

_TIME_WAIT = 60.0  # seconds that Linux keeps a socket in this state (TCP_TIMEWAIT_LEN)
_OPEN = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
_HALF_CLOSED = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2)  # by shutdown(2) while a process holds them, else by close(2)
_UNIX_SOCKETS = Path("/proc/net/unix")
_ACCEPTING = 0x10000  # the flag of listening sockets there (__SO_ACCEPTCON)
_CONNECTED = (b"02", b"03")  # their states: waiting to be accepted, and accepted


def seconds_since_use(listening: socket.socket, recently: float) -> float:
    """Return the seconds since a client was last connected to `listening`: 0 if one is, infinity if none is known.

    Connections that wait to be accepted count. Those over TCP are known for a minute after their end if the server
    closed them or the client is local; the kernel then keeps one end in the state TIME_WAIT. The result need not be
    exact if it is at most `recently`. Clients in other network namespaces are seen over TCP only. Raises OSError if the
    kernel or a sandbox does not permit the query.
    """
    if listening.family == socket.AF_UNIX:
        return 0.0 if _has_unix_connection(os.fsencode(listening.getsockname())) else math.inf
    last = math.inf
    with closing(_connections(listening)) as connections:
        for found in connections:
            if found.state in _OPEN or (found.state in _HALF_CLOSED and found.inode):
                return 0.0
            if found.state == TcpState.TIME_WAIT:
                last = min(last, max(_TIME_WAIT - found.expires, 0.0))
                if last <= recently:
                    break
    return last


def _connections(listening: socket.socket) -> Generator[Connection, None, None]:
    """Yield our ends of the connections to `listening`, then the TIME_WAIT ends of local clients."""
    name = listening.getsockname()
    port, address = name[1], ipaddress.ip_address(name[0])
    family = listening.family
    states = (*_OPEN, *_HALF_CLOSED, TcpState.TIME_WAIT)
    with closing(SockDiag()) as diag:
        for found in diag.connections(family, states, local_port=port):
            if address.is_unspecified or found.local == address.packed:
                yield found
        # A dual-stack socket has local clients of both families.
        families = {family, socket.AF_INET} if address.is_unspecified else {family}
        for each in families:
            for found in diag.connections(each, (TcpState.TIME_WAIT,), remote_port=port):
                if found.remote == address.packed or (address.is_unspecified and _is_local(found)):
                    yield found


def _is_local(client: Connection) -> bool:
    """Return whether the client is connected to this host, so that both ends have the same address or loopback ones."""
    return client.remote == client.local or ipaddress.ip_address(client.remote).is_loopback


def _has_unix_connection(path: bytes) -> bool:
    for line in _UNIX_SOCKETS.read_bytes().splitlines():
        if line.endswith(b" " + path):
            _, _, _, flags, _, state, _, name = line.split(None, 7)
            if name == path and state in _CONNECTED and not int(flags, 16) & _ACCEPTING:
                return True
    return False
