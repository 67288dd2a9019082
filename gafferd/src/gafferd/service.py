"""Reports the state of the daemon to the service manager that started it."""

import asyncio
import os

from gaffer import Manager
from gaffer.runtime.service_manager import ServiceManager

_STATUS_INTERVAL = 1.0  # seconds between two statuses


class Service:
    """Application that keeps the status current, and tells that the loop is alive if a watchdog wants to know.

    Call `ready` once the node listens.
    """

    def __init__(self, services: ServiceManager) -> None:
        self._services = services
        self._manager: Manager | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._status: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._shown = ""

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to report."""
        self._loop, self._manager = loop, manager
        if self._services.present:
            manager.on_change(self._changed)
            self._beat()

    def ready(self) -> None:
        """Report that the node serves."""
        self._shown = self._text()
        self._services.notify(READY=1, MAINPID=os.getpid(), STATUS=self._shown)

    def reloading(self) -> None:
        """Report that the configuration is read again; `ready` follows."""
        self._services.reloading()

    def quiesce(self) -> None:
        """Report that the node stops."""
        self._services.notify(STOPPING=1, STATUS="stopping the jobs")

    def stop(self) -> None:
        """Stop reporting."""
        if self._manager is not None:
            self._manager.off_change(self._changed)
        for timer in (self._status, self._watchdog):
            if timer is not None:
                timer.cancel()

    def _beat(self) -> None:
        if self._services.watchdog is not None:
            assert self._loop is not None
            self._services.notify(WATCHDOG=1)
            self._watchdog = self._loop.call_later(self._services.watchdog / 3, self._beat)

    def _changed(self) -> None:
        if self._status is None:
            assert self._loop is not None
            self._status = self._loop.call_later(_STATUS_INTERVAL, self._report)

    def _report(self) -> None:
        self._status = None
        assert self._manager is not None
        if not self._manager.stopping and (text := self._text()) != self._shown:
            self._shown = text
            self._services.notify(STATUS=text)

    def _text(self) -> str:
        assert self._manager is not None
        jobs, processes = len(self._manager.jobs()), len(self._manager.running)
        drained = ", drained" if self._manager.draining else ""
        return f"{jobs} job{'' if jobs == 1 else 's'}, {processes} process{'' if processes == 1 else 'es'}{drained}"
