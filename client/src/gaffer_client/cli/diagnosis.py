"""Finds out what answers at a URL when a command fails there: another kind of server, or plain HTTP behind https."""

import http.client
import json
from typing import Literal
from urllib.parse import urlsplit

from gaffer_client.cli.table import Asks

Kind = Literal["gafferd", "gaffer_lookupd", "http", "nothing"]

_TIMEOUT = 1.0  # seconds for the question what a server is
_WELCOME: dict[str, Kind] = {"gaffer": "gafferd", "gaffer-lookupd": "gaffer_lookupd"}
_MISTAKEN: dict[tuple[Asks, Kind], str] = {
    ("node", "gaffer_lookupd"): "that is a gaffer_lookupd: give it with -L, and the URL of a gafferd with --endpoint",
    ("lookup", "gafferd"): "that is a gafferd: give it with --endpoint, and the URL of a gaffer_lookupd with -L",
}


def hint_at(url: str, asks: Asks) -> str | None:
    """What is wrong with `url` as the address of what a command asks, None when nothing is found."""
    parts = urlsplit(url)
    if parts.scheme == "https" and kind_of(url) != "nothing":
        return f"that port speaks plain http: use http://{parts.netloc}"
    return _MISTAKEN.get((asks, kind_of(url))) if parts.scheme == "http" else None


def kind_of(url: str) -> Kind:
    """What answers at the host and port of `url` over plain HTTP."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/", headers={"Accept": "application/json"})
        body = connection.getresponse().read(4096)
    except (OSError, http.client.HTTPException):
        return "nothing"
    finally:
        connection.close()
    try:
        return _WELCOME.get(json.loads(body)["welcome"], "http")
    except (ValueError, TypeError, KeyError):
        return "http"
