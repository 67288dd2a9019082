"""The addresses the node listens on, their safety, and the address it announces."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from gaffer.errors import BadRequest, Problem
from gaffer.http.authority import is_loopback
from gaffer.runtime.activation import PassedSocket
from gaffer.runtime.keyfile import MIN_BITS, warn_about_private_key
from gaffer.runtime.sockets import hostname, is_ipv6, is_ssl, parse_address
from gaffer.runtime.tls import parse_ssl_options
from gafferd.config.file import EndpointConfig
from gafferd.config.settings import Settings

DEFAULT_BIND = ("127.0.0.1:5000",)
DEFAULT_PORT = 5000

_WILDCARDS = ("0.0.0.0", "::")


def choose_endpoints(
    settings: Settings, configured: Sequence[EndpointConfig], passed: Sequence[PassedSocket] = ()
) -> list[tuple[EndpointConfig, list[socket.socket]]]:
    """Return the endpoints to open: the configured ones, and the default one if `bind` is set or there are none.

    Sockets that were `passed` by the service manager take the place of all these addresses: a socket with the name of a
    configured endpoint belongs to that one, any other to the default one. Their endpoints have the actual addresses.
    """
    default = EndpointConfig(settings.bind or DEFAULT_BIND, None, settings.certfile, settings.keyfile)
    if not passed:
        chosen = [*configured, default] if settings.bind or not configured else configured
        return [(endpoint, []) for endpoint in chosen]
    named = dict(zip(settings.http_endpoints, configured, strict=True))
    groups: dict[str, list[PassedSocket]] = {}
    for each in passed:
        groups.setdefault(each.name if each.name in named else "", []).append(each)
    return [
        (
            replace(named.get(name, default), bind=tuple(each.address for each in group)),
            [each.socket for each in group],
        )
        for name, group in groups.items()
    ]


def server_tls(endpoint: EndpointConfig, client_ca: str | None) -> ssl.SSLContext | None:
    """Return the TLS context of an endpoint, or None for plain HTTP; `client_ca` requires client certificates.

    Raises BadRequest if a file does not contain a usable certificate or key.
    """
    if endpoint.certfile is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(
            endpoint.certfile, endpoint.keyfile, password=""
        )  # otherwise OpenSSL would prompt for one
        if endpoint.keyfile is not None:
            warn_about_private_key(endpoint.keyfile)
    except OSError as error:
        raise BadRequest(
            f"can't use the certificate {endpoint.certfile}: {error}",
            reason="bad_certificate",
            hint="use a certificate and its key in PEM format, without a passphrase",
        ) from None
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for lookupds, or None if all use plain HTTP; raise BadRequest like `server_tls`."""
    if not any(is_ssl(url) for url in settings.lookupd_address):
        return None
    options = {
        "ca_certs": settings.cacert,
        "client_cert": settings.client_certfile,
        "client_key": settings.client_keyfile,
    }
    try:
        context = parse_ssl_options(options)
        if settings.client_keyfile is not None:
            warn_about_private_key(settings.client_keyfile)
        return context
    except OSError as error:
        raise BadRequest(
            f"can't use the certificates for the lookupds: {error}",
            reason="bad_certificate",
            hint="check --cacert, --client-certfile and --client-keyfile",
        ) from None


def find_dangers(
    endpoints: Sequence[EndpointConfig], *, has_keys: bool, insecure: bool, weak_key: bool = False
) -> Iterator[Problem]:
    """Yield the reasons not to listen: beyond loopback, keys are required, and TLS or `insecure`."""
    for endpoint in endpoints:
        for address in endpoint.bind:
            if not _is_public(address):
                continue
            if not has_keys:
                yield Problem(
                    address,
                    "this address is reachable from other hosts, but the node has no API key",
                    "create one with `(umask 077; gaffer key:new > api.key)` and add --api-key-file api.key",
                )
            if weak_key:
                yield Problem(
                    address,
                    "this address is reachable from other hosts, but the key in --api-key-file has fewer than"
                    f" {MIN_BITS} bits",
                    "create a new key with `(umask 077; gaffer key:new > api.key)`",
                )
            if endpoint.certfile is None and not insecure:
                yield Problem(
                    address,
                    "this address is reachable from other hosts, and without TLS keys are sent in plain text",
                    "add --certfile and --keyfile, or --insecure if you trust the network",
                )


def announced_host(settings: Settings, endpoints: Sequence[EndpointConfig]) -> str:
    """Return the announced host of this node and its jobs.

    It is the host of the broadcast address, else the specific address of the first TCP endpoint, else the host name.
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
    """Return the public URL of this node, which listens on `urls`.

    The port is the broadcast port, else that of the broadcast address, else that of the first TCP endpoint.
    """
    first = next((urlsplit(url) for url in urls if not url.startswith("unix:")), urlsplit(f"http://{host}"))
    scheme, port = first.scheme, first.port
    if settings.broadcast_address:
        parts = urlsplit(settings.broadcast_address)
        scheme, port = parts.scheme, parts.port or port
    port = settings.broadcast_port or port
    name = f"[{host}]" if is_ipv6(host) else host
    return f"{scheme}://{name}:{port}" if port else f"{scheme}://{name}"


def is_private(host: str) -> bool:
    """Return whether the announced host is reachable only from this host."""
    return host == "localhost" or is_loopback(host)


def _is_public(address: str) -> bool:
    parsed = parse_address(address, DEFAULT_PORT)
    if isinstance(parsed, str):
        return False
    try:
        found = socket.getaddrinfo(parsed[0], parsed[1], type=socket.SOCK_STREAM)
    except OSError:
        return False  # listening will fail and report it
    return not all(is_loopback(str(entry[4][0])) for entry in found)
