"""Verification of the server before a key or an environment is sent.

While gafferd is down, any user of the host can listen on its port. Confidential data is therefore sent only to servers
verified by TLS or by the kernel: on a unix socket with SO_PEERCRED (unix(7)), on loopback with sock_diag(7).
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
from gaffer.runtime.sockdiag import SockDiag, SocketAddress, trusted_uid
from gaffer_client.errors import UntrustedServer
from gaffer_client.sockets import CONNECT_TIMEOUT, AnySocket
from gaffer_client.transport import Transport

_UCRED = struct.Struct("=iII")  # pid, uid, gid
_POLL_INTERVAL = 0.001  # seconds, until the server accepts the connection
_HINT = "use https with --cacert, or --insecure if you trust {whom} (in Python insecure=True)"


def check_server(sock: AnySocket, transport: Transport) -> None:
    """Raise UntrustedServer unless confidential data may be sent to the server.

    It may be sent to a server with a verified certificate, to one on this host that runs as the user of this process or
    root, and to any server if the transport is `insecure`.
    """
    if sock.verified or transport.security.insecure or isinstance(sock, ssl.SSLSocket):
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
    sock.verified = True


def server_uid(sock: socket.socket, timeout: float) -> int | None:
    """Return the uid of the server of a local connection, or None if it can't be determined in `timeout` seconds."""
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(credentials)[1])
    client, server = _address(sock.getsockname()), _address(sock.getpeername())
    try:
        diag = SockDiag()
    except OSError:  # netlink is not available
        return None
    try:
        deadline = time.monotonic() + timeout
        # The server's socket has no owner until accept().
        while (owner := diag.find(server, client)) is not None and owner.inode == 0 and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL)
        return trusted_uid(owner)
    finally:
        diag.close()


def _overflow_uid() -> int:
    """Return the uid that represents all uids not mapped into the user namespace of this process."""
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
