"""Signal handling as an application: QUIT, TERM and INT stop the manager, HUP restarts it."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from gaffer.runtime import log, startup

if TYPE_CHECKING:
    from gaffer.manager import Manager

logger = logging.getLogger(__name__)


class BaseSigHandler:
    """Base class of applications that handle signals: subclasses implement `handle_quit` and `handle_reload`.

    Both are called on the loop; their argument `handle` is this object. Signals can only be caught in the main thread:
    elsewhere `start` logs a warning and catches none. `stop` restores the previous handlers.
    """

    QUIT_SIGNALS = startup.QUIT_SIGNALS
    RELOAD_SIGNAL = signal.SIGHUP
    REOPEN_SIGNAL: ClassVar[signal.Signals | None] = None  # the daemons catch SIGUSR1

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: dict[int, Any] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start catching signals, and handle those that `gaffer.runtime.startup` has held."""
        if threading.current_thread() is not threading.main_thread():
            logger.warning("signals are not caught: the loop is not running in the main thread")
            return
        self._loop = loop
        for signum in self.QUIT_SIGNALS:
            self._catch(signum, self.handle_quit)
        self._catch(self.RELOAD_SIGNAL, self.handle_reload)
        others = {int(self.RELOAD_SIGNAL): self.handle_reload}
        if self.REOPEN_SIGNAL is not None:
            self._catch(self.REOPEN_SIGNAL, self.handle_reopen)
            others[self.REOPEN_SIGNAL] = self.handle_reopen
        for held in startup.take_pending():
            loop.call_soon_threadsafe(others.get(held, self.handle_quit), self, held)

    def _catch(self, signum: int, callback: Callable[[object, int], None]) -> None:
        loop = self._loop
        assert loop is not None

        def on_signal(number: int, frame: FrameType | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback, self, number)

        # Not the loop's own handlers: uvloop loses signals between two runs, such as those of start() and run().
        self._previous[signum] = signal.signal(signum, on_signal)

    def stop(self) -> None:
        """Stop catching signals and restore the previous handlers."""
        if self._loop is None:
            return
        for signum, previous in self._previous.items():
            if previous is not None:  # None: set by C code and can't be restored
                signal.signal(signum, previous)
        self._previous.clear()
        self._loop = None

    def restart(self) -> None:
        """Do nothing; the handlers stay in place."""

    def handle_quit(self, handle: object, signum: int) -> None:
        """Handle one of QUIT_SIGNALS."""
        raise NotImplementedError

    def handle_reload(self, handle: object, signum: int) -> None:
        """Handle SIGHUP."""
        raise NotImplementedError

    def handle_reopen(self, handle: object, signum: int) -> None:
        """Handle REOPEN_SIGNAL: reopen the log file of the daemon."""
        log.reopen()


class SigHandler(BaseSigHandler):
    """A signal handler that stops the manager on QUIT, TERM and INT and restarts it on HUP."""

    def __init__(self) -> None:
        super().__init__()
        self.manager: Manager | None = None

    def start(self, loop: asyncio.AbstractEventLoop, manager: "Manager") -> None:  # type: ignore[override]
        """Start catching signals for `manager`."""
        self.manager = manager
        super().start(loop)

    def handle_quit(self, handle: object, *args: Any) -> None:
        """Stop the manager gracefully."""
        if self.manager is not None:
            self.manager.stop()

    def handle_reload(self, handle: object, *args: Any) -> None:
        """Restart the manager's jobs."""
        if self.manager is not None:
            self.manager.restart()
