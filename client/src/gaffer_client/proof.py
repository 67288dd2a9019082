"""Whether it is known who serves a connection: asked before a key or an environment is sent.

Any user of a host may take a port while gafferd is down. So what is confidential goes to a server that TLS, or the
kernel, has proven: on a unix socket by SO_PEERCRED (unix(7)), on loopback by sock_diag(7).
"""

import ipaddress
import os
import pwd
import socket
import ssl
import struct
import time
from pathlib import Path

from gaffer.http.authority import is_loopback
from gaffer.http.sockdiag import SockDiag, SocketAddress, trusted_uid
from gaffer_client.errors import UntrustedServer
from gaffer_client.sockets import CONNECT_TIMEOUT, AnySocket
from gaffer_client.transport import Transport

_UCRED = struct.Struct("=iII")  # pid, uid, gid
_PAUSE = 0.001  # seconds between two looks at a connection that the server has not accepted yet
_HINT = "use https with --cacert, or --insecure if you trust {whom} (in Python insecure=True)"


def check_server(sock: AnySocket, transport: Transport) -> None:
    """Raise UntrustedServer unless the server may see what is confidential.

    That is one whose certificate was verified, one on this host that runs as the user of this process or root, and
    any when the transport is `insecure`.
    """
    if sock.proven or transport.security.insecure or isinstance(sock, ssl.SSLSocket):
        return
    url = transport.url
    if sock.family != socket.AF_UNIX and not is_loopback(sock.getpeername()[0]):
        raise UntrustedServer(
            f"keys and environments are not sent to {url}: plain http exposes them to the network",
            url=url,
            hint=_HINT.format(whom="the network"),
        )
    uid = server_uid(sock, min(transport.timeout, CONNECT_TIMEOUT))
    own = os.geteuid()
    if uid is None or uid == own == _overflow_uid():
        raise UntrustedServer(
            f"keys and environments are not sent to {url}: the kernel does not report the user of the server",
            url=url,
            hint=_HINT.format(whom="the server"),
        )
    if uid not in (0, own):
        raise UntrustedServer(
            f"keys and environments are not sent to {url}: the server runs as {_user(uid)}, not as you or root",
            url=url,
            hint=_HINT.format(whom="that user"),
        )
    sock.proven = True


def server_uid(sock: socket.socket, timeout: float) -> int | None:
    """The uid of the server at the other end of a connection on this host; None when unknown within `timeout` s."""
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(credentials)[1])
    client, server = _address(sock.getsockname()), _address(sock.getpeername())
    try:
        diag = SockDiag()
    except OSError:  # no netlink here
        return None
    try:
        deadline = time.monotonic() + timeout
        # The server's socket belongs to nobody until accept().
        while (owner := diag.find(server, client)) is not None and owner.inode == 0 and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        return trusted_uid(owner)
    finally:
        diag.close()


def _overflow_uid() -> int:
    """The uid that stands for all that are not mapped into the user namespace of this process."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):  # no /proc
        return 65534


def _address(name: tuple[str, int]) -> SocketAddress:
    return SocketAddress(ipaddress.ip_address(name[0]), name[1])


def _user(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"
