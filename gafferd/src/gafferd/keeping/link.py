"""The connection of gafferd to its keeper; `gafferd/keeper.py` describes the messages."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from gaffer.errors import GafferError
from gaffer.runtime.activation import PassedSocket

if TYPE_CHECKING:  # a keeper is started before the slow imports
    import asyncio

    from gaffer import Manager
    from gaffer.schemas.bodies import KeeperState

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 8192
_MAX_PASSED = 253
_ANSWER_TIMEOUT = 20.0  # seconds
_BEATS = 4  # within the time after which the keeper replaces us
_MAX_QUEUE = 1000  # messages that wait for the keeper; more are dropped

HANDOVER = 75
"""The exit status after which the keeper starts gafferd again at once."""

_PASSED, _LISTEN = "passed:", "listen:"


class KeeperLink:
    """The connection to the keeper with the process id `pid`, and the sockets that it keeps.

    An application: start it with the manager, and call `ready` once the node listens. `watchdog` is the number of
    seconds after which the keeper replaces a gafferd that hangs.
    """

    def __init__(self, connection: socket.socket, pid: int, watchdog: float) -> None:
        self.pid = pid
        self.handing_over = False
        self._socket = connection
        self._socket.setblocking(False)
        self._watchdog = watchdog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._error: str | None = None
        self._since = time.time()
        self._last = ""  # how the previous gafferd ended
        self._kept: dict[str, list[socket.socket]] | None = None
        self._send(b"DUMP=1")

    @property
    def state(self) -> KeeperState:
        """The state of the keeper, as in /health."""
        return {"pid": self.pid, "since": round(self._since, 3), "error": self._error}

    # Sockets

    def passed(self) -> list[PassedSocket]:
        """Return the sockets that the service manager passed to an earlier gafferd; raises GafferError."""
        names = [name for name in self._sockets if name.startswith(_PASSED)]
        return [
            PassedSocket(unquote(name.removeprefix(_PASSED)), each)
            for name in names
            for each in self._sockets.pop(name)
        ]

    def store_passed(self, passed: PassedSocket) -> None:
        """Keep a socket that the service manager passed."""
        self._store(_PASSED + quote(passed.name, safe=""), [passed.socket])

    def take(self, uri: str) -> list[socket.socket]:
        """Return the sockets that an earlier gafferd opened for an address; raises GafferError."""
        return self._sockets.pop(_LISTEN + quote(uri, safe=""), [])

    def keep(self, uri: str, sockets: Sequence[socket.socket]) -> None:
        """Keep the new sockets of an address."""
        self._store(_LISTEN + quote(uri, safe=""), sockets)

    def close_unused(self) -> None:
        """Close the sockets of addresses that the configuration no longer has."""
        for name, sockets in self._sockets.items():
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}".encode())
            for each in sockets:
                each.close()
        self._sockets.clear()

    def _store(self, name: str, sockets: Sequence[socket.socket]) -> None:
        self._send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}".encode(), [each.fileno() for each in sockets])

    @property
    def _sockets(self) -> dict[str, list[socket.socket]]:
        if self._kept is None:
            self._kept = {}
            self._receive_dump(self._kept)
        return self._kept

    def _receive_dump(self, kept: dict[str, list[socket.socket]]) -> None:
        """Wait until the keeper has sent everything, which also shows that it works."""
        self._socket.settimeout(_ANSWER_TIMEOUT)
        fields: dict[str, str] = {}
        try:
            while "DUMPED" not in fields:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, _MAX_MESSAGE, _MAX_PASSED, socket.MSG_CMSG_CLOEXEC
                )
                if not data:
                    raise ConnectionError("it has ended")
                lines = [line.partition("=") for line in data.decode().splitlines()]
                names = [value for word, _, value in lines if word == "FDNAME"]
                for name, descriptor in zip(names, descriptors, strict=True):
                    kept.setdefault(name, []).append(socket.socket(fileno=descriptor))
                fields = {word: value for word, _, value in lines}
        except OSError as error:
            raise GafferError(
                f"the keeper (pid {self.pid}) does not answer: {error}",
                hint="see its messages, or start gafferd without a keeper",
            ) from None
        self._socket.setblocking(False)
        self._since = time.time() - float(fields["UPTIME"])
        self._last = fields["LAST"]

    # The application

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to watch the keeper."""
        if self._last:
            logger.warning("started again by the keeper (pid %d): %s", self.pid, self._last)
        self._loop = loop
        loop.add_reader(self._socket, self._receive)
        if self._queue:
            loop.add_writer(self._socket, self._send_queued)

    def ready(self) -> None:
        """Report that the node listens, and from now on that its loop is alive."""
        self._send(f"READY=1\nWATCHDOG={self._watchdog:g}".encode())
        self._beat()

    def quiesce(self) -> None:
        """Report that the node stops, unless another gafferd is to follow."""
        if not self.handing_over:
            self._send(b"STOPPING=1")

    def close(self) -> None:
        """Close the connection; the keeper takes the exit status of this process."""
        self._disconnect()
        self._socket.close()

    def _beat(self) -> None:
        assert self._loop is not None
        if self._error is None:
            self._timer = self._loop.call_later(self._watchdog / _BEATS, self._beat)
            if not self._queue:  # otherwise the keeper is not reading, and will not miss it
                self._send(b"BEAT=1")

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data.startswith(b"ERR="):
            logger.error("the keeper refused a message: %s", data[4:].decode("ascii", "replace"))
        elif not data:
            self._lost("it has ended")

    def _lost(self, reason: str) -> None:
        self._error = f"the keeper (pid {self.pid}) does not protect this node: {reason}"
        logger.error("%s; a gafferd that ends is not started again until you restart it", self._error)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        for _, descriptors in self._queue:
            _close(descriptors)
        self._queue.clear()

    # Sending

    def _send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        if self._error is not None:
            return
        if len(self._queue) >= _MAX_QUEUE:
            self._lost("it does not read")
        elif self._queue or not self._try_send(data, descriptors):
            self._queue.append((data, [os.dup(each) for each in descriptors]))
            if self._loop is not None:
                self._loop.add_writer(self._socket, self._send_queued)

    def _try_send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Return False if the keeper has no room for the message now."""
        try:
            socket.send_fds(self._socket, [data], descriptors)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it has ended, which `_receive` reports
        return True

    def _send_queued(self) -> None:
        while self._queue and self._try_send(*self._queue[0]):
            _close(self._queue.popleft()[1])
        if not self._queue and self._loop is not None:
            self._loop.remove_writer(self._socket)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
