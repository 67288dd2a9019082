"""Making way for the program on disk, which continues with the processes."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gaffer import Manager
from gaffer.errors import GafferError
from gaffer.runtime.version import __version__
from gaffer.schemas.upgrade import UpgradeStarted
from gafferd.history.recorder import History
from gafferd.keeping.link import HANDOVER, KeeperLink
from gafferd.threads import call_in_thread

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 30.0
"""Seconds within which the program on disk must have checked the configuration."""

EXIT_TIMEOUT = 2.0
"""Seconds from the beginning of the handover to the exit, whatever blocks: a disk, a plugin, a thread."""

_MAX_SHOWN = 2048  # bytes of the output of the check
_MAX_WRITTEN = 16 * 1024 * 1024  # bytes that it may write to any file


class NoKeeper(GafferError):
    """An upgrade of a gafferd that no keeper would start again."""

    errno = 409
    reason = "no_keeper"


class UpgradeInProgress(GafferError):
    """A second upgrade during the first."""

    errno = 409
    reason = "upgrade_in_progress"


class CheckFailed(GafferError):
    """The program on disk can't start; nothing was changed."""

    errno = 409
    reason = "check_failed"


class Upgrader:
    """An application that hands the node over to the next gafferd; `keeper` starts it, None if there is none."""

    def __init__(self, keeper: KeeperLink | None, history: History) -> None:
        self._keeper = keeper
        self._history = history
        self._manager: Manager | None = None
        self._check: subprocess.Popen[bytes] | None = None
        self._requested: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Upgrades come by `request`, or by `prepare` and `go`."""
        self._manager = manager

    def quiesce(self) -> None:
        """End a check that runs: the node stops."""
        if self._check is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._check.pid, signal.SIGKILL)

    def request(self) -> None:
        """Upgrade, for a signal; another request during the first is ignored. Call it on the loop."""
        if self._requested is None:
            self._requested = asyncio.get_running_loop().create_task(self._upgrade_by_signal())

    async def _upgrade_by_signal(self) -> None:
        try:
            await self.prepare()
        except GafferError as error:
            hint = f"; {error.hint}" if error.hint else ""
            logger.error("not upgraded, and nothing has changed: %s%s", error.message, hint)
            self._history.note("upgrade", caller="signal", outcome="failed", message=error.message)
        else:
            self._history.note("upgrade", caller="signal")
            self.go()
        finally:
            self._requested = None

    async def prepare(self, *, force: bool = False) -> UpgradeStarted:
        """Check that the next gafferd can start, unless `force` is set; call `go` at once afterwards.

        Raises NoKeeper, UpgradeInProgress, CheckFailed and ManagerStopping; nothing has changed then.
        """
        assert self._manager is not None
        if self._keeper is None:
            raise NoKeeper("gafferd runs without a keeper", hint="start it without --no-keeper or `keeper = no`")
        if self._check is not None:
            raise UpgradeInProgress("another upgrade is in progress", hint="wait for it, see `gaffer history`")
        if not force:
            await self._check_program()
        if not self._manager.active:
            raise self._manager.refusal
        if (error := self._keeper.state["error"]) is not None:
            raise NoKeeper(error, hint="restart gafferd with its keeper")
        return {
            "version": __version__,
            "pid": os.getpid(),
            "processes": len(self._manager.running),
            "checked": not force,
        }

    def go(self) -> None:
        """Hand over; call it right after `prepare`, on the loop."""
        assert self._manager is not None
        assert self._keeper is not None
        logger.warning("handing over to the program on disk; %d processes keep running", len(self._manager.running))
        limit = threading.Timer(EXIT_TIMEOUT, _exit)
        limit.daemon = True
        limit.start()
        self._keeper.handing_over = True
        self._manager.hand_over()

    async def _check_program(self) -> None:
        command = [sys.executable, *sys.orig_argv[1:], "--check-config"]
        with _sink() as output:
            try:
                self._check = check = _start(command, output)
            except OSError as error:
                raise CheckFailed(
                    f"the program on disk can't be run: {command[0]}: {error.strerror}", hint=_HINT
                ) from None
            try:
                status = await call_in_thread(lambda: _wait(check))
            finally:
                self._check = None
            shown = os.pread(output, _MAX_SHOWN, max(0, os.fstat(output).st_size - _MAX_SHOWN))
        if status == 0:
            return
        text = shown.decode(errors="replace").strip() or "it wrote nothing"
        end = f"did not end within {CHECK_TIMEOUT:g} s" if status is None else f"ended with {status}"
        raise CheckFailed(f"the program on disk can't take over: `gafferd --check-config` {end}: {text}", hint=_HINT)


_HINT = "mend it and try again; `force=true` (`gaffer upgrade --force`) skips the check"


def _exit() -> None:
    logger.error("the handover took longer than %g s: exiting at once", EXIT_TIMEOUT)
    logging.shutdown()
    os._exit(HANDOVER)


@contextmanager
def _sink() -> Iterator[int]:
    descriptor = os.memfd_create("gafferd-check", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _start(command: Sequence[str], output: int) -> "subprocess.Popen[bytes]":
    check = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(check.pid, resource.RLIMIT_FSIZE, (_MAX_WRITTEN, _MAX_WRITTEN))
    return check


def _wait(check: "subprocess.Popen[bytes]") -> int | None:
    """Return the exit status, negative for a signal; None if it was killed because it took too long."""
    try:
        return check.wait(CHECK_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(check.pid, signal.SIGKILL)
        check.wait()
        return None
