"""Where the node listens, whether that is safe, and under which address others reach it."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from gaffer.errors import Problem
from gaffer.http.access import is_loopback
from gaffer.util import hostname, is_ipv6, parse_address

from gafferd.config import EndpointConfig
from gafferd.settings import Settings

DEFAULT_BIND = ("127.0.0.1:5000",)
DEFAULT_PORT = 5000

_WILDCARDS = ("0.0.0.0", "::")


def choose_endpoints(settings: Settings, configured: Sequence[EndpointConfig]) -> list[EndpointConfig]:
    """The endpoints to open: those of the configuration, and the default one when asked for or when there are none."""
    chosen = list(configured)
    if settings.bind or not chosen:
        chosen.append(EndpointConfig(settings.bind or DEFAULT_BIND, None, settings.certfile, settings.keyfile))
    return chosen


def tls_options(endpoint: EndpointConfig, client_ca: str | None) -> dict[str, Any] | None:
    """What HttpEndpoint needs for TLS, None for plain HTTP; with `client_ca` callers must show a certificate of it."""
    if endpoint.certfile is None:
        return None
    options: dict[str, Any] = {"certfile": endpoint.certfile}
    if endpoint.keyfile is not None:
        options["keyfile"] = endpoint.keyfile
    if client_ca is not None:
        options |= {"ca_certs": client_ca, "cert_reqs": ssl.CERT_REQUIRED}
    return options


def find_dangers(endpoints: Sequence[EndpointConfig], *, has_keys: bool, insecure: bool) -> Iterator[Problem]:
    """Why the node must not listen there: beyond loopback it needs keys, and TLS or the word that it goes without."""
    for endpoint in endpoints:
        for address in endpoint.bind:
            if not _is_public(address):
                continue
            if not has_keys:
                yield Problem(
                    address,
                    "others can reach this address, and this node has no API key to tell who may run commands",
                    "make one with `(umask 077; gaffer key:new > api.key)` and add --api-key-file api.key",
                )
            if endpoint.certfile is None and not insecure:
                yield Problem(
                    address,
                    "others can reach this address, and without TLS they can read the keys that are sent to it",
                    "add --certfile and --keyfile, or --insecure if you trust the network",
                )


def announced_host(settings: Settings, endpoints: Sequence[EndpointConfig]) -> str:
    """The host under which others reach this node and its jobs.

    That of the broadcast address, else the one address that the first TCP endpoint listens on, else the host's name.
    """
    if settings.broadcast_address:
        return urlsplit(settings.broadcast_address).hostname or ""
    for endpoint in endpoints:
        for address in endpoint.bind:
            parsed = parse_address(address, DEFAULT_PORT)
            if not isinstance(parsed, str):
                return hostname() if parsed[0] in _WILDCARDS else parsed[0]
    return hostname()


def origin(settings: Settings, host: str, urls: Sequence[str]) -> str:
    """The URL under which others reach this node, which listens on `urls`.

    The broadcast address with its port, the broadcast port or that of the first endpoint, in reverse order of weight.
    """
    first = next((urlsplit(url) for url in urls if not url.startswith("unix:")), urlsplit(f"http://{host}"))
    scheme, port = first.scheme, first.port
    if settings.broadcast_address:
        parts = urlsplit(settings.broadcast_address)
        scheme, port = parts.scheme, parts.port or port
    port = settings.broadcast_port or port
    name = f"[{host}]" if is_ipv6(host) else host
    return f"{scheme}://{name}:{port}" if port else f"{scheme}://{name}"


def _is_public(address: str) -> bool:
    parsed = parse_address(address, DEFAULT_PORT)
    if isinstance(parsed, str):
        return False
    try:
        found = socket.getaddrinfo(parsed[0], parsed[1], type=socket.SOCK_STREAM)
    except OSError:
        return False  # nobody can listen there, which the attempt will say
    return not all(is_loopback(str(entry[4][0])) for entry in found)
