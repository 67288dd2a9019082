"""Listening sockets that the manager opens for a job: how they are written. No I/O."""

import ipaddress
import re
from typing import Any

from msgspec import Struct

from gaffer.errors import InvalidValue, quoted
from gaffer.jobs.rules import split_list

MAX_SOCKETS = 64
_MAX_PATH = 107  # bytes of sun_path less its NUL byte, unix(7)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TCP = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^\[\]:]*):)?(?P<port>[0-9]{1,5})", re.ASCII)
_HINT = "use tcp:HOST:PORT or unix:PATH, with NAME= before it if the program tells several apart"
_HOST_HINT = "use an IP address (IPv6 in brackets), localhost or *; other names are not resolved"


class SocketSpec(Struct, frozen=True):
    """A socket: `name` as in LISTEN_FDNAMES, and a `path` (unix) or a `host` and a `port` (tcp).

    `host` is an IP address, or empty for all addresses of both families.
    """

    name: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """The address as in a setting, such as `tcp:127.0.0.1:80`."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"tcp:{host}:{self.port}"


def parse_socket(text: str) -> SocketSpec:
    """Parse `[NAME=]tcp:[HOST:]PORT` or `[NAME=]unix:PATH`; raises InvalidValue.

    HOST is an IP address, `localhost` (127.0.0.1), or `*` (default): all addresses of IPv6 and IPv4.
    """
    name, equals, address = text.strip().partition("=")
    if not equals or ":" in name:
        name, address = "", text.strip()
    elif not _NAME.fullmatch(name):
        raise InvalidValue(f"invalid socket name {quoted(name)}", "use letters, digits, _ and -")
    kind, _, rest = address.partition(":")
    if kind == "unix":
        if not rest.startswith("/") or len(rest.encode(errors="replace")) > _MAX_PATH or not rest.isprintable():
            raise InvalidValue(
                f"expected an absolute path of at most {_MAX_PATH} bytes, got {quoted(rest)}", "use unix:/run/app.sock"
            )
        return SocketSpec(name or "unix", path=rest)
    match = _TCP.fullmatch(rest) if kind == "tcp" else None
    if match is None or not 0 <= int(match["port"]) <= 65535:
        raise InvalidValue(f"expected a socket, got {quoted(text)}", _HINT)
    return SocketSpec(name or "tcp", _parse_host(match["host"] or "*"), int(match["port"]))


def _parse_host(host: str) -> str:
    if host == "*":
        return ""
    if host == "localhost":
        return "127.0.0.1"
    try:
        if host.startswith("["):
            address = ipaddress.IPv6Address(host[1:-1])
            return str(address.ipv4_mapped or address)
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise InvalidValue(f"expected the address to listen on, got {quoted(host)}", _HOST_HINT) from None


def socket_list(value: Any, lax: bool) -> tuple[str, ...]:
    """`[NAME=]tcp:HOST:PORT` and `[NAME=]unix:PATH` items; port 0 lets the system choose."""
    items = split_list(value, "a list of sockets")
    if len(items) > MAX_SOCKETS:
        raise InvalidValue(f"too many sockets: {len(items)}", f"use at most {MAX_SOCKETS}")
    seen: set[tuple[str, int, str]] = set()
    for index, item in enumerate(items):
        try:
            if not isinstance(item, str):
                raise InvalidValue(f"expected a socket, got {quoted(item)}", _HINT)
            spec = parse_socket(item)
        except InvalidValue as wrong:
            raise InvalidValue(wrong.message, wrong.hint, f"[{index}]") from None
        address = (spec.host, spec.port, spec.path)
        if address in seen and (spec.port or spec.path):
            raise InvalidValue(f"duplicate socket {quoted(item)}", "remove one of them", f"[{index}]")
        seen.add(address)
    return tuple(items)
