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
    ip = _parse_ip(address)
    return ip is not None and ip.is_loopback


def network_of(address: str) -> str:
    """The /64 network of an IPv6 address; any other address as it is."""
    ip = _parse_ip(address.partition("%")[0])
    return str(ipaddress.ip_network((ip, 64), strict=False)) if isinstance(ip, ipaddress.IPv6Address) else address


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
    return _parse_ip(host) is not None


@lru_cache(_REMEMBERED)
def is_unspecified(host: str) -> bool:
    """Whether it is `0.0.0.0` or `::`, however written: systems connect to themselves then, and no host has it."""
    ip = _parse_ip(host)
    return ip is not None and ip.is_unspecified


def _parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, one of IPv4 for `::ffff:a.b.c.d`; None for a name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def checked_host(host: str) -> str:
    """A host name without port, in lower case; raises GafferError (400 `bad_host`)."""
    parts = split_authority(f"[{host}]" if ":" in host and is_ip(host) else host)
    if parts is None or parts[1] is not None or is_unspecified(parts[0]):
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
