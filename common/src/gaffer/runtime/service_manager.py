"""Notifications to the service manager that started this program, sd_notify(3)."""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

ADDRESS = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"


class ServiceManager:
    """The service manager, if there is one; otherwise `notify` does nothing.

    `watchdog` is the number of seconds within which it expects WATCHDOG=1 again and again, or None.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self.watchdog = watchdog
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "ServiceManager":
        """Return the service manager that `environ` names, and remove its variables: they are for us alone."""
        address = environ.pop(ADDRESS, None)
        usec, pid = environ.pop(WATCHDOG, ""), environ.pop(WATCHDOG_PID, None)
        ours = pid is None or pid == str(os.getpid())
        watchdog = int(usec) / 1e6 if ours and usec.isdecimal() and int(usec) > 0 else None
        return cls(address, watchdog if address else None)

    @property
    def present(self) -> bool:
        """Whether there is one."""
        return self._socket is not None

    def notify(self, **fields: str | int) -> None:
        """Send fields such as `READY=1`; a service manager that does not listen is ignored."""
        if self._socket is not None:
            message = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items())
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)

    def reloading(self) -> None:
        """Say that the configuration is read again; send READY=1 when that is done."""
        self.notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
