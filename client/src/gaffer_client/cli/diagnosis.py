"""Diagnosis after a failed command: identifies another kind of server, or plain HTTP instead of TLS, at its URL."""

import json
import socket
from typing import Literal
from urllib.parse import urlsplit

from gaffer_client.cli.table import Target
from gaffer_client.errors import GafferClientError, MalformedAnswer, Unreachable
from gaffer_client.plain import PlainSender
from gaffer_client.transport import Transport

Kind = Literal["gafferd", "gaffer_lookupd", "http", "nothing"]

_TIMEOUT = 1.0  # seconds in total
_WELCOME: dict[str, Kind] = {"gaffer": "gafferd", "gaffer-lookupd": "gaffer_lookupd"}
_MISTAKEN: dict[tuple[Target, Kind], str] = {
    (
        "node",
        "gaffer_lookupd",
    ): "this is a gaffer_lookupd: use its URL with `gaffer -L`, and give the URL of a gafferd here",
    ("lookup", "gafferd"): "this is a gafferd: use its URL with --endpoint, and give the URL of a gaffer_lookupd here",
}


def hint_at(url: str, target: Target) -> str | None:
    """Return a hint if `url` is not the address of the kind of server that a command needs, else None."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return None
    kind = kind_of(url)
    if parts.scheme == "https":
        return f"this port uses plain http: use http://{parts.netloc}" if kind != "nothing" else None
    if kind == "nothing" and _speaks_tls(parts.hostname or "", parts.port or 80):
        return f"this port uses TLS: use https://{parts.netloc}"
    return _MISTAKEN.get((target, kind))


def kind_of(url: str) -> Kind:
    """Identify the server that answers plain HTTP at the host and port of `url`."""
    try:
        with Transport(f"http://{urlsplit(url).netloc}", timeout=_TIMEOUT, sender=PlainSender) as transport:
            body = transport.request("GET", "/").body
    except (Unreachable, MalformedAnswer):
        return "nothing"
    except GafferClientError:
        return "http"
    try:
        return _WELCOME.get(json.loads(body)["welcome"], "http")
    except (ValueError, RecursionError, TypeError, KeyError):
        return "http"


def _speaks_tls(host: str, port: int) -> bool:
    import ssl  # not needed by most commands

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no data is sent
    try:
        with socket.create_connection((host, port), _TIMEOUT) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False
