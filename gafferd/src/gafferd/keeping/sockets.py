"""The listening sockets of jobs in the keeper."""

import os
from urllib.parse import quote, unquote

from gafferd.keeping.link import KeeperLink

_PREFIX = "socket:"
_PLAIN = ":=|[]*"  # a name has a limit, so only what must be quoted is


class KeptSockets:
    """The socket keeper of a manager, see `gaffer.processes.sockets.SocketKeeper`: the connection to the keeper."""

    def __init__(self, link: KeeperLink) -> None:
        self._link = link

    def claim(self, name: str) -> int | None:
        """Return the descriptor of one socket that the keeper holds, once; raises GafferError."""
        found = self._link.take_descriptors(_kept_as(name))
        for each in found[1:]:
            os.close(each)
        return found[0] if found else None

    def take(self) -> list[tuple[str, int]]:
        """Return the names and descriptors of the sockets that the keeper holds, once; raises GafferError."""
        names = [unquote(name.removeprefix(_PREFIX)) for name in self._link.names(_PREFIX)]
        return [(name, descriptor) for name in names if (descriptor := self.claim(name)) is not None]

    def keep(self, name: str, descriptor: int) -> None:
        """Have a socket kept."""
        self._link.store_descriptors(_kept_as(name), [descriptor])

    def drop(self, name: str) -> None:
        """Have a socket closed."""
        self._link.remove_descriptors(_kept_as(name))


def _kept_as(name: str) -> str:
    return _PREFIX + quote(name, safe=_PLAIN)
