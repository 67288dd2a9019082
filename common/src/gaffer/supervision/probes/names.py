"""Lookups of the names of hosts, in threads that nothing waits for: a lookup can take minutes and can't be ended."""

import asyncio
import contextlib
import socket
import threading
from typing import Any, TypeAlias

from gaffer.supervision.probes.failures import OutOfResources

Targets: TypeAlias = list[tuple[socket.AddressFamily, tuple[Any, ...]]]

MAX_LOOKUPS = 16
"""The maximum number of lookups at a time; others wait."""


class Names:
    """Looks up names; all methods are called on the loop."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[Targets | OSError]] = {}
        self._free = asyncio.Semaphore(MAX_LOOKUPS)

    async def look_up(self, host: str, port: int) -> Targets:
        """Return the families and addresses of `port` on `host`; joins a lookup of the host that is running.

        Raises OSError if the name is unknown, and OutOfResources.
        """
        if host not in self._pending:
            await self._free.acquire()
            if host in self._pending:
                self._free.release()
            else:
                self._begin(host)
        found = await asyncio.shield(self._pending[host])
        if isinstance(found, OSError):
            raise found
        return [(family, (address[0], port, *address[2:])) for family, address in found]

    def _begin(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, args=(loop, host), name=f"lookup of {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._free.release()
            raise OutOfResources(str(error)) from None
        self._pending[host] = loop.create_future()

    def _run(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        found: Targets | OSError
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = [(family, address) for family, _, _, _, address in infos]
        except OSError as error:
            found = error
        except UnicodeError:  # a label that is empty or too long
            found = socket.gaierror(socket.EAI_NONAME, "invalid name")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._end, host, found)

    def _end(self, host: str, found: Targets | OSError) -> None:
        self._free.release()
        self._pending.pop(host).set_result(found)
