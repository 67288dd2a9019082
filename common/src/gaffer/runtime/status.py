"""The status of a daemon, as `ps` and the service manager that started it show it."""

import asyncio
import os
from collections.abc import Callable

from gaffer.runtime.service_manager import ServiceManager

_INTERVAL = 1.0  # seconds between two reports of a changing status


class StatusReporter:
    """Reports the states of a daemon, and that its loop is alive if the service manager has a watchdog.

    `status` returns a short text such as `3 jobs`; `show` makes it the title of the process; `main_pid` is the process
    that the service manager is to watch, by default this one. Call `start` once the loop
    exists, `ready` once the daemon listens, `changed` when its status may have changed, and `stopping` and `stop` in
    the end.
    """

    def __init__(
        self,
        services: ServiceManager,
        status: Callable[[], str],
        show: Callable[[str], None],
        main_pid: int | None = None,
    ) -> None:
        self._main_pid = main_pid or os.getpid()
        self._services = services
        self._status = status
        self._show_title = show
        self._loop: asyncio.AbstractEventLoop | None = None
        self._report: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._ready = False
        self._shown = ""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to tell the watchdog that the loop is alive."""
        self._loop = loop
        self._beat()

    def ready(self) -> None:
        """Report that the daemon serves."""
        self._ready = True
        self._show(self._status(), READY=1, MAINPID=self._main_pid)

    def changed(self) -> None:
        """Report the status within a second."""
        if self._ready and self._report is None:
            assert self._loop is not None
            self._report = self._loop.call_later(_INTERVAL, self._report_change)

    def reloading(self) -> None:
        """Report that the configuration is read again; `ready` follows."""
        self._services.reloading()

    def stopping(self, status: str) -> None:
        """Report that the daemon stops, with a last status."""
        self._ready = False
        self._show(status, STOPPING=1)

    def stop(self) -> None:
        """Stop reporting."""
        for timer in (self._report, self._watchdog):
            if timer is not None:
                timer.cancel()

    def _beat(self) -> None:
        if self._services.watchdog is not None:
            assert self._loop is not None
            self._services.notify(WATCHDOG=1)
            self._watchdog = self._loop.call_later(self._services.watchdog / 3, self._beat)

    def _report_change(self) -> None:
        self._report = None
        if self._ready and (status := self._status()) != self._shown:
            self._show(status)

    def _show(self, status: str, **fields: int) -> None:
        self._shown = status
        self._services.notify(**fields, STATUS=status)
        self._show_title(status)
