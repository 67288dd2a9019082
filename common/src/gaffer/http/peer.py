"""The user and groups of the process at the other end of an accepted connection."""

import contextlib
import ipaddress
import logging
import socket
import struct
from pathlib import Path

from gaffer.http.access import Peer, PeerKind
from gaffer.http.authority import is_loopback
from gaffer.runtime.sockdiag import SockDiag, SocketAddress

logger = logging.getLogger(__name__)

_SO_PEERGROUPS = 59
_UCRED = struct.Struct("=iII")  # pid, uid, gid
_OVERFLOW = 65534  # the kernel's default
_GROUPS_SIZE = 1024  # bytes, the maximum that getsockopt returns: 256 groups


class PeerFinder:
    """Lookup of the peers of connections. Call `find` right after accept, before the client can pass its port on.

    Users and groups that are not mapped in the user namespace of this process all appear as the overflow uid and gid
    (user_namespaces(7)), which are therefore treated as unknown.
    """

    def __init__(self) -> None:
        self._no_uid, self._no_gid = _overflow_id("overflowuid"), _overflow_id("overflowgid")
        self._diag: SockDiag | None = None
        try:
            self._diag = SockDiag()
        except OSError as error:
            logger.warning(
                "netlink sockets are not available (%s): callers on loopback need a key, callers on the unix socket do"
                " not (under systemd, add AF_NETLINK to RestrictAddressFamilies)",
                error.strerror,
            )

    def close(self) -> None:
        """Close the netlink socket."""
        if self._diag is not None:
            self._diag.close()

    def find(self, connection: socket.socket) -> Peer:
        """Return the peer of a connected stream socket."""
        peer = self._look_up(connection)
        uid = peer.uid if peer.uid != self._no_uid else None
        return Peer(peer.kind, uid, peer.gids - {self._no_gid})

    def _look_up(self, connection: socket.socket) -> Peer:
        if connection.family == socket.AF_UNIX:
            return _unix_peer(connection)
        try:
            client, server = connection.getpeername(), connection.getsockname()
        except OSError:  # reset already
            return Peer(PeerKind.REMOTE)
        if not is_loopback(client[0]):
            return Peer(PeerKind.REMOTE)
        uid = self._diag.find_uid(_address(client), _address(server)) if self._diag is not None else None
        return Peer(PeerKind.LOOPBACK, uid)


def _overflow_id(name: str) -> int:
    try:
        return int(Path("/proc/sys/kernel", name).read_text())
    except (OSError, ValueError):  # no /proc
        return _OVERFLOW


def _address(name: tuple[str, int]) -> SocketAddress:
    return SocketAddress(ipaddress.ip_address(name[0]), name[1])


def _unix_peer(connection: socket.socket) -> Peer:
    _, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    groups = b""
    with contextlib.suppress(OSError):  # more groups than fit
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    return Peer(PeerKind.UNIX, uid, frozenset((gid, *(number for (number,) in struct.iter_unpack("=I", groups)))))
