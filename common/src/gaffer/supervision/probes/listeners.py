"""A watcher for ports that open: cheap for many, and fast, so that a process is seen to be ready when it listens."""

import asyncio
import errno
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gaffer.runtime.sockdiag import Listener, SockDiag

log = logging.getLogger("gaffer.supervision.probes")

INTERVAL = 0.004  # seconds between two looks
SHARE = 20  # a look waits this many times as long as the last one took
BATCH = 50  # callbacks for a look; the others wait for the next one

_TRANSIENT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN))


class ListenerWatch:
    """Looks at the listening sockets of this host every few milliseconds while somebody waits for a port.

    Where the kernel or a sandbox refuses netlink sockets, it calls everybody back once and then does nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.works = True  # as far as is known
        self._loop = loop
        self._waiters: dict[Callable[[], Any], int] = {}  # ports
        self._known: set[Listener] = set()
        self._due: deque[Callable[[], Any]] = deque()  # to be called
        self._diag: SockDiag | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, port: int, opened: Callable[[], Any]) -> None:
        """Call `opened()` on the loop whenever a socket begins to listen on `port`, and if one does so already."""
        if not self.works:
            return
        self._waiters[opened] = port
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)

    def remove(self, opened: Callable[[], Any]) -> None:
        """Undo `add`; unknown ones are ignored."""
        if self._waiters.pop(opened, None) is not None and not self._waiters:
            self.close()

    def close(self) -> None:
        """Forget all waiters and release the socket."""
        self._waiters.clear()
        self._known.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._diag is not None:
            self._diag.close()
            self._diag = None

    def _look(self) -> None:
        began = time.thread_time()
        new: set[Listener] = set()
        try:
            if self._diag is None:
                self._diag = SockDiag()
            found = self._diag.listeners()
            new, self._known = found - self._known, found
        except OSError as error:
            if error.errno not in _TRANSIENT:
                log.info("can't watch ports (%s): processes are found to be ready by polling", error.strerror)
                self.works = False
                waiters = list(self._waiters)
                self.close()
                for opened in waiters:
                    opened()
                return
        cost = time.thread_time() - began
        self._timer = self._loop.call_later(max(INTERVAL, SHARE * cost), self._look)
        ports = {listener.port for listener in new}
        self._due += [opened for opened, port in self._waiters.items() if port in ports]
        for _ in range(min(BATCH, len(self._due))):
            opened = self._due.popleft()
            if opened in self._waiters:
                opened()
