"""A cache of which host names the system can resolve."""

import asyncio
import socket
import time
from collections.abc import Iterable

from gaffer.jobs.names import is_ip

TIMEOUT = 2.0  # seconds that a query waits for new names
FRESH = 30.0  # seconds until a name is resolved again
LIMIT = 1000  # cached names


class Resolver:
    """A resolver that runs one lookup per name at a time.

    A name that resolved before still counts as resolvable while its name server does not respond.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[bool, float]] = {}
        self._asking: dict[str, asyncio.Task[bool]] = {}

    async def find_unresolved(self, hosts: Iterable[str]) -> list[str]:
        """Return the host names in `hosts` that don't resolve, sorted; addresses always do."""
        names = sorted({host for host in hosts if not is_ip(host)})
        if asking := [task for name in names if (task := self._ask(name)) is not None]:
            await asyncio.wait(asking, timeout=TIMEOUT)
        return [name for name in names if not self._found.get(name, (False, 0.0))[0]]

    def _ask(self, name: str) -> "asyncio.Task[bool] | None":
        """Return the lookup of the name, or None if its result is cached."""
        known = self._found.get(name)
        if known is not None and time.monotonic() - known[1] < FRESH:
            return None
        if name not in self._asking and len(self._asking) < LIMIT:
            task = self._asking[name] = asyncio.create_task(self._resolve(name))
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return self._asking.get(name)

    async def _resolve(self, name: str) -> bool:
        loop = asyncio.get_running_loop()
        try:
            await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            resolves = True
        except socket.gaierror as error:
            resolves = error.errno == socket.EAI_AGAIN and self._found.get(name, (False, 0.0))[0]
        self._found.pop(name, None)
        while len(self._found) >= LIMIT:
            del self._found[next(iter(self._found))]
        self._found[name] = resolves, time.monotonic()
        return resolves
