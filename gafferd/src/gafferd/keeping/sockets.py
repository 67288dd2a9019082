"""The listening sockets of jobs in the keeper."""

import os
from urllib.parse import quote, unquote

from gafferd.keeping.link import KeeperLink

_PREFIX = "socket:"
_PLAIN = ":=|[]*"  # a name may have 512 bytes, so only what must be quoted is


class KeptSockets:
    """The socket keeper of a manager, see `gaffer.processes.sockets.SocketKeeper`: the connection to the keeper."""

    def __init__(self, link: KeeperLink) -> None:
        self._link = link

    def take(self) -> list[tuple[str, int]]:
        """Return the names and descriptors of the sockets that the keeper holds, once; raises GafferError."""
        found = []
        for name in self._link.names(_PREFIX):
            descriptor, *others = self._link.take_descriptors(name)
            found.append((unquote(name.removeprefix(_PREFIX)), descriptor))
            for each in others:
                os.close(each)
        return found

    def keep(self, name: str, descriptor: int) -> None:
        """Have a socket kept."""
        self._link.store_descriptors(_kept_as(name), [descriptor])

    def drop(self, name: str) -> None:
        """Have a socket closed."""
        self._link.remove_descriptors(_kept_as(name))


def _kept_as(name: str) -> str:
    return _PREFIX + quote(name, safe=_PLAIN)
