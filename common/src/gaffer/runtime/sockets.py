"""Addresses and listening sockets."""

import errno
import os
import re
import socket
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gaffer.runtime.trusted_files import check_directory


def parse_address(netloc: str, default_port: int = 8000) -> tuple[str, int] | str:
    """Split `host:port`, `[v6]:port`, `host` or `:port` into (host, port); `unix:PATH` gives PATH.

    An empty host means all interfaces. Raises RuntimeError for an invalid address or port.
    """
    netloc = netloc.strip()
    if netloc.startswith("unix:"):
        path = netloc.removeprefix("unix:")
        return path[2:] if path.startswith("//") else path
    if is_ipv6(netloc):
        return netloc.lower(), default_port
    if netloc.startswith("["):
        host, _, rest = netloc[1:].partition("]")
        if "]" not in netloc or not is_ipv6(host) or (rest and not rest.startswith(":")):
            raise RuntimeError(f"{netloc!r} is not a valid address")
        port = rest[1:]
        colon = bool(rest)
    else:
        host, separator, port = netloc.rpartition(":") if ":" in netloc else (netloc, "", "")
        colon = bool(separator)
        if ":" in host:
            raise RuntimeError(f"{netloc!r} is not a valid address; write IPv6 as [address]:port")
    if not colon:
        number = default_port
    elif re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535:
        number = int(port)
    else:
        raise RuntimeError(f"{port!r} is not a valid port number")
    return host.lower() or "0.0.0.0", number


def address_of(sock: socket.socket) -> str:
    """Return the address of a TCP or unix socket, as in `parse_address`; `unix:@NAME` for an abstract one."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:@{name[1:].decode(errors='backslashreplace')}" if isinstance(name, bytes) else f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def is_ipv6(addr: str) -> bool:
    """Return whether `addr` is an IPv6 address without brackets."""
    try:
        socket.inet_pton(socket.AF_INET6, addr.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def is_ssl(url: str) -> bool:
    """Return whether `url` uses TLS: its scheme is https or wss."""
    return urlsplit(url).scheme in ("https", "wss")


def bind_sockets(
    addr: str | tuple[str, int], backlog: int = 128, allows_unix_socket: bool = False
) -> list[socket.socket]:
    """Return non-blocking listening sockets for `addr`: an address as in `parse_address`, or (host, port).

    A name with several addresses gets one socket for each, all on the same port. A UNIX socket is created with mode
    0600 and replaces a stale one. Raises RuntimeError for a UNIX address unless `allows_unix_socket`, UntrustedFile if
    other users can replace the socket, and OSError if the address can't be bound.
    """
    parsed = parse_address(addr) if isinstance(addr, str) else addr
    if isinstance(parsed, str):
        if not allows_unix_socket:
            raise RuntimeError(f"UNIX sockets are not supported here: {addr!r}")
        return [bind_unix_socket(parsed, backlog)]
    return _bind_tcp_sockets(*parsed, backlog)


def _bind_tcp_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sock = bind_tcp_socket(family, (address[0], port, *address[2:]), backlog)
            except OSError as error:
                # `localhost` may resolve to ::1 on hosts without IPv6.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                absent = error
            else:
                sockets.append(sock)
                port = sock.getsockname()[1]  # with port 0, all addresses share the first one's port
        if absent is not None and not sockets:
            raise absent
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bind_tcp_socket(family: int, address: tuple[Any, ...], backlog: int, *, dual_stack: bool = False) -> socket.socket:
    """Return a non-blocking socket that listens on `address`, with `dual_stack` on `::` also for IPv4.

    Raises OSError if the address can't be bound.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Exclude IPv4-mapped addresses by default, so that 0.0.0.0 can have its own socket on the port.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_unix_socket(
    path: str, backlog: int, *, mode: int = 0o600, uid: int | None = None, gid: int | None = None
) -> socket.socket:
    """Return a non-blocking socket that listens at `path`, whose file belongs to `uid` and `gid` (default: ours).

    A stale socket of root, of `uid` or of our own user is replaced, if nobody listens on it. Raises UntrustedFile if
    users other than these can replace the socket, and OSError if it can't be bound.
    """
    # Nobody else must be able to create a link there before chmod, or another socket later.
    check_directory(path, Path(path).absolute().parent.resolve(), uid)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _remove_stale_socket(path, {0, os.geteuid(), uid})
        sock.bind(path)
        try:
            _restrict(path, mode, uid, gid)  # before listen(), so that nobody can connect earlier
            sock.listen(backlog)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _restrict(path: str, mode: int, uid: int | None, gid: int | None) -> None:
    # By descriptor: `uid`, who may own the directory, must not get another file that it puts in place of ours.
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise FileExistsError(errno.EEXIST, "another process replaced the socket", path)
        file = f"/proc/self/fd/{descriptor}"
        os.chown(file, -1 if uid is None else uid, -1 if gid is None else gid)
        os.chmod(file, mode)
    finally:
        os.close(descriptor)


def _remove_stale_socket(path: str, owners: Collection[int | None]) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "the file exists and is not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if status.st_uid not in owners:
                message = f"the socket of the user {status.st_uid} is in the way"
                raise FileExistsError(errno.EEXIST, message, path) from None
            os.unlink(path)
        except BlockingIOError:  # its backlog is full, so it has a listener
            raise OSError(errno.EADDRINUSE, "another process listens on it", path) from None
        else:
            raise OSError(errno.EADDRINUSE, "another process listens on it", path)


def hostname() -> str:
    """Return the fully qualified name of this host, or its plain name if it has no other."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name
