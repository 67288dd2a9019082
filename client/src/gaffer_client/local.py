"""Default address of the node of this host."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gaffer_client.errors import GafferClientError
from gaffer_client.proof import check_server
from gaffer_client.sockets import open_socket
from gaffer_client.transport import DEFAULT_URL, Transport

SYSTEM_STATE_DIR = Path("/var/lib/gaffer")

_SOCKET = "gafferd.sock"
_TIMEOUT = 1.0  # seconds


def default_url(environ: Mapping[str, str]) -> str:
    """Return the unix socket of gafferd in a default state directory, or `http://127.0.0.1:5000` if none responds.

    While gafferd is down, any user can listen on its port, but only its owner can serve a socket in its state
    directory. The user's own node takes precedence over that of the host.
    """
    for folder in _state_dirs(environ):
        url = f"unix:{folder / _SOCKET}"
        try:
            transport = Transport(url, timeout=_TIMEOUT)
            with open_socket(transport) as sock:
                check_server(sock, transport)
        except GafferClientError:
            continue
        return url
    return DEFAULT_URL


def _state_dirs(environ: Mapping[str, str]) -> Iterator[Path]:
    if given := environ.get("GAFFER_STATE_DIR"):
        yield Path(given).absolute()
    if os.geteuid() != 0:
        yield Path(environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "gaffer")
    yield SYSTEM_STATE_DIR
