"""Patterns of announced addresses to which keys may be sent. Pure: no I/O.

Anyone with access to a lookupd can announce a node at any address, so users list the nodes that get their key.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from gaffer_client.errors import MalformedAnswer

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS = {"http": 80, "https": 443}
_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_PATTERN = re.compile(
    r"((?P<host>[^\[\]:]+)|\[(?P<bracketed>[0-9a-f:./]+)\])(:(?P<port>[0-9]{1,5}))?|(?P<v6>[0-9a-f:./]+)", re.IGNORECASE
)


class Origin(NamedTuple):
    """The announced address of a node: `http://host[:port]` or `https://host[:port]`."""

    url: str
    scheme: str
    host: str | IPAddress
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse scheme, host name or address (without scope) and optional port; raise MalformedAnswer otherwise."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        host = _host(parts.hostname or "")
        # urlsplit silently removes some characters.
        whole = text.lower() == f"{parts.scheme}://{parts.netloc}".lower() and "@" not in text
        if parts.scheme not in _PORTS or host is None or not whole or port == 0:
            raise MalformedAnswer(
                f"{text!r} is not a valid announced address",
                url=text,
                hint="set broadcast_address of that gafferd to http://HOST:PORT or https://HOST:PORT",
            )
        return cls(text, parts.scheme, host, port or _PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """Whether the address refers to the host of the client."""
        if isinstance(self.host, str):
            return self.host == "localhost" or self.host.endswith(".localhost")
        return self.host.is_loopback or self.host.is_unspecified


class NodePattern(NamedTuple):
    """A pattern of nodes: a host name, `*.DOMAIN`, an address or a CIDR network; any port unless given."""

    host: str | IPNetwork
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `node1`, `*.example.com`, `10.0.0.7:5000`, `10.0.0.0/24`, `fd00::/64` or `[fd00::7]:5000`.

        Raises ValueError with an error message.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a host, a network or *.DOMAIN")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"{text!r} has an invalid port")
        written = match["host"] or match["bracketed"] or match["v6"]
        try:
            return cls(ipaddress.ip_network(written, strict=False), port)
        except ValueError:
            pass  # possibly a name
        name = written.lower().removesuffix(".")
        if not _NAME.fullmatch(name.removeprefix("*.")) or _looks_like_an_address(name):
            raise ValueError(f"{text!r} is not a host, a network or *.DOMAIN")
        return cls(name, port)

    def covers(self, origin: Origin) -> bool:
        """Return whether the pattern matches the address."""
        if self.port is not None and self.port != origin.port:
            return False
        if isinstance(self.host, str):
            if not isinstance(origin.host, str):
                return False
            if self.host.startswith("*."):
                return origin.host.endswith(self.host[1:])
            return self.host == origin.host
        # Names are not resolved: their DNS server could then redirect the key.
        return not isinstance(origin.host, str) and origin.host in self.host


def covered(origin: Origin, patterns: Iterable[NodePattern]) -> bool:
    """Return whether one of the patterns matches the address."""
    return any(pattern.covers(origin) for pattern in patterns)


def _host(text: str) -> str | IPAddress | None:
    """Return a lower-case host name without final dot, or an address without scope; None if invalid."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        name = text.lower().removesuffix(".")
        return name if _NAME.fullmatch(name) and not _looks_like_an_address(name) else None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return None
        return ip.ipv4_mapped or ip
    return ip


def _looks_like_an_address(name: str) -> bool:
    """Return whether resolvers parse the name as a legacy IPv4 address (inet_aton(3)): `127.1`, `0x7f000001`."""
    return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]) is not None
