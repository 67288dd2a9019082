"""Connections to hosts: name lookups of one peer that never delay another's, and staggered attempts (RFC 8305)."""

import asyncio
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

ATTEMPT_DELAY = 0.25  # seconds before the next address is also tried (RFC 8305 section 5)

AddressInfo = tuple[Any, Any, int, str, Any]  # of getaddrinfo


class Resolver:
    """Looks up the addresses of one host, in a thread of its own, of which at most one runs at a time.

    The lookups of the event loop share a few threads: some names whose servers don't respond would block all others.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._running: asyncio.Future[Sequence[AddressInfo]] | None = None

    async def resolve(self, port: int) -> Sequence[AddressInfo]:
        """Return the addresses with `port`, as `getaddrinfo` does; raise OSError if there are none.

        A cancelled lookup continues; the next call waits for it instead of starting another one.
        """
        if _is_numeric(self._host):
            return socket.getaddrinfo(self._host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.done() or self._running.get_loop() is not loop:
            self._running = loop.create_future()
            thread = threading.Thread(target=_look_up, args=(self._host, self._running), name="resolver", daemon=True)
            thread.start()
        found = await asyncio.shield(self._running)
        return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in found]


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _look_up(host: str, future: "asyncio.Future[Sequence[AddressInfo]]") -> None:
    found: Sequence[AddressInfo] | OSError
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        found = error
    loop = future.get_loop()
    try:
        loop.call_soon_threadsafe(_settle, future, found)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _settle(future: "asyncio.Future[Sequence[AddressInfo]]", found: Sequence[AddressInfo] | OSError) -> None:
    if isinstance(found, OSError):
        future.set_exception(found)
        future.exception()  # nobody may be waiting any longer
    else:
        future.set_result(found)


async def connect(addresses: Sequence[AddressInfo]) -> socket.socket:
    """Connect to the first address that responds; raise OSError if none does.

    The next attempt starts when one fails, at the latest after ATTEMPT_DELAY.
    """
    waiting = deque(interleave(addresses))
    attempts: set[asyncio.Task[socket.socket]] = set()
    failure = OSError("the host name has no addresses")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_attempt(waiting.popleft())))
            timeout = ATTEMPT_DELAY if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.remove(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                failure = error
        raise failure
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_late)


def interleave(addresses: Sequence[AddressInfo]) -> list[AddressInfo]:
    """Return the addresses in the order to try them, with alternating families (RFC 8305 section 4)."""
    queues: dict[Any, deque[AddressInfo]] = {}
    for address in addresses:
        queues.setdefault(address[0], deque()).append(address)
    ordered: list[AddressInfo] = []
    while len(ordered) < len(addresses):
        ordered += [queue.popleft() for queue in queues.values() if queue]
    return ordered


async def _attempt(address: AddressInfo) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_late(attempt: "asyncio.Task[socket.socket]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
