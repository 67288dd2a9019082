"""Addresses and listening sockets."""

import errno
import os
import re
import socket
import stat
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
        return [_bind_unix_socket(parsed, backlog)]
    return _bind_tcp_sockets(*parsed, backlog)


def _bind_tcp_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sock = _bind_tcp_socket(family, (address[0], port, *address[2:]), backlog)
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


def _bind_tcp_socket(family: int, address: tuple[Any, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Exclude IPv4-mapped addresses, so that 0.0.0.0 can have its own socket on the port.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix_socket(path: str, backlog: int) -> socket.socket:
    # Nobody must be able to create a link there before chmod, or another socket later.
    check_directory(path, Path(path).absolute().parent.resolve())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _remove_stale_socket(path)
        sock.bind(path)
        os.chmod(path, 0o600)  # before listen(), so that nobody can connect earlier
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale_socket(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "the file exists and is not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # its backlog is full, so it has a listener
            raise OSError(errno.EADDRINUSE, "another process listens on it", path) from None
        else:
            raise OSError(errno.EADDRINUSE, "another process listens on it", path)


def hostname() -> str:
    """Return the fully qualified name of this host, or its plain name if it has no other."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name
