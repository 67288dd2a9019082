"""Small helpers without a better home: users, signals, addresses, sockets, time and daemonizing."""

import contextlib
import errno
import grp
import os
import pwd
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gaffer.errors import quoted
from gaffer.names import parse_job_name
from gaffer.trusted_files import check_directory
from gaffer.words import substitute_env

if TYPE_CHECKING:
    import ssl

__all__ = [
    "bind_sockets",
    "bytes2human",
    "bytestring",
    "check_gid",
    "check_uid",
    "daemonize",
    "from_nanotime",
    "getcwd",
    "hostname",
    "is_ipv6",
    "is_ssl",
    "nanotime",
    "ord_",
    "parse_address",
    "parse_job_name",
    "parse_signal_value",
    "parse_ssl_options",
    "setproctitle_",
    "substitute_env",
]


# Users and signals


def check_uid(val: int | str) -> int:
    """The uid of the user `val`, a name or a number (also as text).

    Raises ValueError when there is no such user and TypeError for any other type.
    """
    return _account_id(val, "user", pwd.getpwuid, lambda name: pwd.getpwnam(name).pw_uid)


def check_gid(val: int | str) -> int:
    """The gid of the group `val`, a name or a number (also as text).

    Raises ValueError when there is no such group and TypeError for any other type.
    """
    return _account_id(val, "group", grp.getgrgid, lambda name: grp.getgrnam(name).gr_gid)


def _account_id(val: int | str, kind: str, by_id: Callable[[int], object], by_name: Callable[[str], int]) -> int:
    if isinstance(val, bool) or not isinstance(val, int | str):
        raise TypeError(f"a {kind} is given by name or number, not as {type(val).__name__}")
    try:
        if isinstance(val, str) and not val.isdecimal():
            return by_name(val)
        number = int(val)
        by_id(number)
    except (KeyError, OverflowError, ValueError):
        raise ValueError(f"there is no {kind} {quoted(val)}") from None
    return number


_SIGNAL_DIGITS = 3  # that a signal's number has at most


def parse_signal_value(sig: int | str | None) -> int:
    """The number of a signal given as a number, as digits or by name, with or without `SIG`, in any case.

    Raises ValueError when there is no such signal.
    """
    number: int | None = None
    if isinstance(sig, str):
        text = sig.strip().upper()
        if text.isdecimal():
            number = int(text) if len(text) <= _SIGNAL_DIGITS else None
        else:
            name = text if text.startswith("SIG") else f"SIG{text}"
            number = signal.Signals.__members__.get(name)
    elif isinstance(sig, int) and not isinstance(sig, bool):
        number = int(sig)
    if number not in signal.valid_signals():
        raise ValueError(f"{quoted(sig)} is not a signal")
    return int(number)


# Addresses and sockets


def parse_address(netloc: str, default_port: int = 8000) -> tuple[str, int] | str:
    """Split `host:port`, `[v6]:port`, `host` or `:port` into (host, port); `unix:PATH` gives PATH.

    An empty host means every interface. Raises RuntimeError for a bad port.
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
    """Whether `addr` is an IPv6 address, without brackets."""
    try:
        socket.inet_pton(socket.AF_INET6, addr.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def is_ssl(url: str) -> bool:
    """Whether `url` is reached over TLS: its scheme is https or wss."""
    return urlsplit(url).scheme in ("https", "wss")


def bind_sockets(
    addr: str | tuple[str, int], backlog: int = 128, allows_unix_socket: bool = False
) -> list[socket.socket]:
    """Listening sockets, not blocking, for `addr`: an address as in `parse_address`, or (host, port).

    A name with several addresses gets one socket for each, all on one port. A UNIX socket is made with mode 0600
    and replaces one that nobody listens on. Raises RuntimeError for a UNIX address unless
    `allows_unix_socket`, UntrustedFile when others may replace the socket, and OSError when the address can't be
    bound.
    """
    parsed = parse_address(addr) if isinstance(addr, str) else addr
    if isinstance(parsed, str):
        if not allows_unix_socket:
            raise RuntimeError(f"a UNIX socket is not allowed here: {addr!r}")
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
                # `localhost` also names ::1 on hosts without IPv6.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                absent = error
            else:
                sockets.append(sock)
                port = sock.getsockname()[1]  # when any port will do, all addresses share the first one's
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
            # Without IPv4-mapped addresses, so that 0.0.0.0 can have its own socket on the port.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix_socket(path: str, backlog: int) -> socket.socket:
    # So that nobody can put a link there before chmod, nor another socket later.
    check_directory(path, Path(path).absolute().parent.resolve())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _remove_stale_socket(path)
        sock.bind(path)
        os.chmod(path, 0o600)  # before listen(): until then nobody can connect
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
        raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # its backlog is full, so somebody listens
            raise OSError(errno.EADDRINUSE, "another process listens on it", path) from None
        else:
            raise OSError(errno.EADDRINUSE, "another process listens on it", path)


def hostname() -> str:
    """The fully qualified name of this host, or its plain name where it has no other."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def parse_ssl_options(client_options: Mapping[str, Any]) -> "ssl.SSLContext":
    """A TLS client context from `validate_cert` (default true), `ca_certs`, `client_cert` and `client_key`.

    Raises OSError (ssl.SSLError is one) when a file can't be read or holds no certificate.
    """
    import ssl

    context = ssl.create_default_context(cafile=client_options.get("ca_certs"))
    if not client_options.get("validate_cert", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := client_options.get("client_cert"):
        context.load_cert_chain(certificate, client_options.get("client_key"))
    return context


# Text and time


def bytes2human(n: int) -> str:
    """A number of bytes in the largest unit of 1024 steps, cut to a whole number: `9K`, `12M`, `100B`."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"a number of bytes is an int, not {type(n).__name__}")
    power = min((n.bit_length() - 1) // 10, 8) if n > 0 else 0
    return f"{n >> 10 * power}{'BKMGTPEZY'[power]}"


def bytestring(s: str) -> str:
    """`s` itself: text needs no other form on Python 3."""
    return s


def ord_(c: int | str | bytes) -> int:
    """The number of a character; an element of a bytes object is one already."""
    return c if isinstance(c, int) else ord(c)


def nanotime(s: float | None = None) -> int:
    """`s` seconds in nanoseconds; the wall clock's time without an argument."""
    return time.time_ns() if s is None else round(s * 1_000_000_000)


def from_nanotime(n: int) -> float:
    """`n` nanoseconds in seconds."""
    return n / 1_000_000_000


# The process


def getcwd() -> str:
    """The working directory, spelled as in $PWD (through its symbolic links) when that is the same directory."""
    cwd = os.getcwd()
    spelled = os.environ.get("PWD", "")
    try:
        same = os.path.isabs(spelled) and os.path.samefile(spelled, cwd)
    except OSError:
        same = False
    return spelled if same else cwd


def setproctitle_(title: str) -> None:
    """Set the title that `ps` shows, where the setproctitle package is installed."""
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle  # type: ignore[import-not-found]

        setproctitle(title)


def daemonize(wait: bool = False) -> Callable[[], None]:
    """Go to the background: a new session without a terminal, umask 022, standard streams on /dev/null.

    The calling process exits with status 0. With `wait` it stays until the daemon calls the returned function,
    keeping the standard streams as they are until then, and exits with status 1 when the daemon ended before.
    Call it before starting threads or a loop.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) or not wait else 1)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(0o022)

    def leave() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if null > 2:
            os.close(null)
        with contextlib.suppress(BrokenPipeError):
            os.write(writer, b"\0")
        os.close(writer)

    if not wait:
        leave()
        return lambda: None
    return leave
