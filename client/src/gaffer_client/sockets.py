"""A connected socket to a server at an http, https or unix URL."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from gaffer_client.transport import Transport, tls_failed, unreachable

_PORTS = {"http": 80, "https": 443}


def open_socket(transport: Transport) -> socket.socket:
    """Connect to the server of a transport, with TLS for https; its timeout bounds each step.

    Raises Unreachable.
    """
    if transport.address.socket is not None:
        return _connected_to_path(transport, transport.address.socket)
    parts = urlsplit(transport.address.base)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    with translated_errors(transport.url, transport.timeout):
        try:
            sock = socket.create_connection((host, port), transport.timeout)
        except UnicodeError:
            raise unreachable(transport.url, f"{host!r} can't be the name of a host") from None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _tls_context(transport).wrap_socket(sock, server_hostname=host) if parts.scheme == "https" else sock
        except BaseException:
            sock.close()
            raise


@contextmanager
def translated_errors(url: str, timeout: float) -> Iterator[None]:
    """Turn what sockets raise into Unreachable."""
    try:
        yield
    except ssl.SSLError as error:
        raise tls_failed(url, error) from None
    except TimeoutError:
        raise unreachable(url, f"no answer within {timeout:g} s") from None
    except OSError as error:
        raise unreachable(url, (error.strerror or str(error)).lower()) from None


def _connected_to_path(transport: Transport, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with translated_errors(transport.url, transport.timeout):
            sock.settimeout(transport.timeout)
            sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _tls_context(transport: Transport) -> ssl.SSLContext:
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # whom other requests trust

    security = transport.security
    context = ssl.create_default_context(cafile=security.cacert or DEFAULT_CA_BUNDLE_PATH)
    if security.certfile is not None:
        context.load_cert_chain(security.certfile, security.keyfile)
    return context
