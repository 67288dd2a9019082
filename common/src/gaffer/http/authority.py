"""Parsing and comparison of Host headers, web origins and addresses for the access policy. Pure."""

import ipaddress
import re
from functools import lru_cache

from gaffer.errors import GafferError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_CACHED_HOSTS = 256  # most requests name the same few hosts

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::([0-9]{1,5}))?", re.ASCII)


def is_loopback(address: str) -> bool:
    """Return whether the IP address is in 127.0.0.0/8 (also written `::ffff:127.0.0.1`) or is ::1."""
    ip = _parse_ip(address)
    return ip is not None and ip.is_loopback


def network_of(address: str) -> str:
    """Return the /64 network of an IPv6 address, and any other address unchanged."""
    ip = _parse_ip(address.partition("%")[0])
    return str(ipaddress.ip_network((ip, 64), strict=False)) if isinstance(ip, ipaddress.IPv6Address) else address


@lru_cache(_CACHED_HOSTS)
def split_authority(authority: str) -> tuple[str, int | None] | None:
    """Split `host[:port]` into host (lower case, without brackets and trailing dot) and port; None if malformed."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    host, port = match[1].strip("[]").lower().removesuffix("."), match[2]
    return (host, int(port) if port else None) if host else None


def is_same_origin(origin: str, scheme: str, host: str) -> bool:
    """Return whether a page of `origin` belongs to the server addressed by that scheme and Host header."""
    parts, own = split_origin(origin), split_authority(host)
    if parts is None or own is None:
        return False
    return parts == (scheme, own[0], own[1] or _DEFAULT_PORTS.get(scheme))


def as_http(origin: str) -> str:
    """Return `http://...` for an origin that a client sent as `ws://...`, and any other origin unchanged."""
    return f"http{origin[2:]}" if origin.startswith(("ws://", "wss://")) else origin


def split_origin(origin: str) -> tuple[str, str, int | None] | None:
    """Split a web origin into scheme, host and port (by default that of the scheme); None if malformed."""
    scheme, found, authority = as_http(origin.lower()).partition("://")
    parts = split_authority(authority)
    if not found or not scheme or parts is None:
        return None
    return scheme, parts[0], parts[1] or _DEFAULT_PORTS.get(scheme)


@lru_cache(_CACHED_HOSTS)
def is_ip(host: str) -> bool:
    """Return whether `host` is an IP address; IPv6 without brackets."""
    return _parse_ip(host) is not None


@lru_cache(_CACHED_HOSTS)
def is_unspecified(host: str) -> bool:
    """Return whether `host` is `0.0.0.0` or `::` in any notation, which connects to the local host."""
    ip = _parse_ip(host)
    return ip is not None and ip.is_unspecified


def _parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address, as IPv4 for `::ffff:a.b.c.d`; None for a name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def checked_host(host: str) -> str:
    """Return a host name without port in lower case; raises GafferError (400 `bad_host`)."""
    parts = split_authority(f"[{host}]" if ":" in host and is_ip(host) else host)
    if parts is None or parts[1] is not None or is_unspecified(parts[0]):
        raise GafferError(
            f"invalid host name {host!r}", reason="bad_host", errno=400, hint="use a name without a port, such as node1"
        )
    return parts[0]


def checked_origin(origin: str) -> str:
    """Return a web origin in lower case; raises GafferError (400 `bad_origin`)."""
    normal = as_http(origin.lower().removesuffix("/"))
    if split_origin(normal) is None:
        raise GafferError(
            f"invalid web origin {origin!r}",
            reason="bad_origin",
            errno=400,
            hint="use the form https://host or http://host:port",
        )
    return normal
