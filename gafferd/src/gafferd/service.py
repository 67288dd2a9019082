"""Reports the status of the node to the service manager and to `ps`."""

import asyncio

from gaffer import Manager
from gaffer.runtime.daemonize import ProcessTitle
from gaffer.runtime.service_manager import ServiceManager
from gaffer.runtime.status import StatusReporter
from gafferd.keeping.link import KeeperLink


class Service:
    """Application that keeps the status of the node `name` current; call `ready` once the node listens."""

    def __init__(
        self, name: str, services: ServiceManager, title: ProcessTitle, keeper: KeeperLink | None = None
    ) -> None:
        self._keeper = keeper
        self._reporter = StatusReporter(
            services,
            self._text,
            lambda status: title.show(f"node {name}, {status}"),
            keeper.pid if keeper is not None else None,
        )
        self._manager: Manager | None = None

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Begin to report."""
        self._manager = manager
        manager.on_change(self._reporter.changed)
        self._reporter.start(loop)

    def ready(self) -> None:
        """Report that the node serves."""
        self._reporter.ready()

    def reloading(self) -> None:
        """Report that the configuration is read again; `ready` follows."""
        self._reporter.reloading()

    def quiesce(self) -> None:
        """Report that the node stops."""
        if self._keeper is not None and self._keeper.handing_over:
            self._reporter.reloading()
        else:
            self._reporter.stopping("stopping the jobs")

    def stop(self) -> None:
        """Stop reporting."""
        if self._manager is not None:
            self._manager.off_change(self._reporter.changed)
        self._reporter.stop()

    def _text(self) -> str:
        assert self._manager is not None
        jobs, processes = len(self._manager.jobs()), len(self._manager.running)
        drained = ", drained" if self._manager.draining else ""
        return f"{jobs} job{'' if jobs == 1 else 's'}, {processes} process{'' if processes == 1 else 'es'}{drained}"
