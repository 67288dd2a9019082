"""Host headers, web origins and addresses as the access policy compares them. Pure."""

import ipaddress
import re
from functools import lru_cache

from gaffer.errors import GafferError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REMEMBERED = 256  # hosts that were asked for lately; most requests come for the same few

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::([0-9]{1,5}))?", re.ASCII)


def is_loopback(address: str) -> bool:
    """Whether the IP address is one of 127.0.0.0/8 or ::1 (also as `::ffff:127.0.0.1`)."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


@lru_cache(_REMEMBERED)
def split_authority(authority: str) -> tuple[str, int | None] | None:
    """Host, in lower case without brackets and final dot, and port of `host[:port]`; None when it is malformed."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    host, port = match[1].strip("[]").lower().removesuffix("."), match[2]
    return (host, int(port) if port else None) if host else None


def is_same_origin(origin: str, scheme: str, host: str) -> bool:
    """Whether a page of the origin is at home on the server that was asked with that scheme and Host header."""
    parts, own = split_origin(origin), split_authority(host)
    if parts is None or own is None:
        return False
    return parts == (scheme, own[0], own[1] or _DEFAULT_PORTS.get(scheme))


def as_http(origin: str) -> str:
    """The web origin of a websocket's URL, as some clients send it: `http://...` for `ws://...`."""
    return f"http{origin[2:]}" if origin.startswith(("ws://", "wss://")) else origin


def split_origin(origin: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port (the scheme's own when none is written) of a web origin; None when it is malformed."""
    scheme, found, authority = as_http(origin.lower()).partition("://")
    parts = split_authority(authority)
    if not found or not scheme or parts is None:
        return None
    return scheme, parts[0], parts[1] or _DEFAULT_PORTS.get(scheme)


@lru_cache(_REMEMBERED)
def is_ip(host: str) -> bool:
    """Whether it is an IP address, a v6 one without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def checked_host(host: str) -> str:
    """A host name without port, in lower case; raises GafferError (400 `bad_host`)."""
    parts = split_authority(f"[{host}]" if ":" in host and is_ip(host) else host)
    if parts is None or parts[1] is not None:
        raise GafferError(
            f"{host!r} is not a host name", reason="bad_host", errno=400, hint="give a name without port, like node1"
        )
    return parts[0]


def checked_origin(origin: str) -> str:
    """A web origin in lower case; raises GafferError (400 `bad_origin`)."""
    normal = as_http(origin.lower().removesuffix("/"))
    if split_origin(normal) is None:
        raise GafferError(
            f"{origin!r} is not a web origin",
            reason="bad_origin",
            errno=400,
            hint="write it as a browser does: https://host or http://host:port",
        )
    return normal
