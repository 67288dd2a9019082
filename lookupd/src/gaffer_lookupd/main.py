"""The command `gaffer_lookupd`."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, MutableMapping, Sequence

from gaffer.errors import ConfigError, GafferError, Problem
from gaffer.loop import new_loop, spare_memory
from gaffer.pidfile import hold_pidfile
from gaffer.runtime import startup
from gaffer.runtime.activation import PassedSocket, take_sockets
from gaffer.runtime.daemonize import ProcessTitle, daemonize
from gaffer.runtime.log import setup_logging
from gaffer.runtime.service_manager import ServiceManager
from gaffer.runtime.status import StatusReporter
from gaffer.sig_handler import BaseSigHandler
from gaffer_lookupd.config import Settings, make_settings, parse_options
from gaffer_lookupd.server import LookupServer


def command(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run gaffer_lookupd; return its exit status: 130 after SIGINT during startup, 0 after other signals."""
    try:
        options = parse_options(argv)
        title = ProcessTitle("gaffer_lookupd", argv)
        passed = take_sockets(environ)
        settings = make_settings(options, environ, [each.address for each in passed])
        run(settings, title, ServiceManager.take(environ), passed)
    except ConfigError as error:
        return _fail(2, error.problems)
    except GafferError as error:
        return _fail(2 if error.errno == 400 else 1, [Problem(error.path or "", error.message, error.hint)])
    except startup.Interrupted as interrupted:
        return interrupted.status
    except MemoryError:
        return _fail(1, [Problem("gaffer_lookupd", "out of memory")])
    return 0


def run(settings: Settings, title: ProcessTitle, services: ServiceManager, passed: Sequence[PassedSocket] = ()) -> None:
    """Serve until QUIT, TERM or INT, on the `passed` sockets if there are any; raises GafferError if it can't start."""
    detach = daemonize(wait=True) if settings.daemon else _stay
    setup_logging(settings.log_level, settings.error_log, settings.log_format)
    title.show("starting")
    if os.getpid() == 1:
        # The orphans of a container become children of process 1. We start no process, so none needs its exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    startup.hold_signals()
    with (
        contextlib.closing(services),
        hold_pidfile(settings.pidfile),
        asyncio.Runner(loop_factory=lambda: new_loop(settings.loop)) as runner,
    ):
        runner.run(_serve(LookupServer(settings, [each.socket for each in passed]), title, services, detach))


async def _serve(
    server: LookupServer, title: ProcessTitle, services: ServiceManager, detach: Callable[[], None]
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    reporter = StatusReporter(services, lambda: server.status, title.show)
    spare_memory(loop)
    _Signals(stopped).start(loop)
    server.start(reporter.changed)
    startup.spare_collector()
    reporter.start(loop)
    try:
        for address in server.addresses:
            print(f"listening on {address}", file=sys.stderr)
        sys.stderr.flush()  # `detach` may close it
        detach()
        reporter.ready()
        await stopped.wait()
    finally:
        reporter.stopping("stopping")
        await server.stop()
        reporter.stop()


class _Signals(BaseSigHandler):
    """A signal handler that sets an event on QUIT, TERM and INT; USR1 reopens the log file, and HUP has no
    effect, as there is nothing to reload."""

    REOPEN_SIGNAL = startup.REOPEN_SIGNAL

    def __init__(self, stopped: asyncio.Event) -> None:
        super().__init__()
        self._stopped = stopped

    def handle_quit(self, handle: object, signum: int) -> None:
        self._stopped.set()

    def handle_reload(self, handle: object, signum: int) -> None:
        pass


def _stay() -> None:
    """Do nothing: stay in the foreground."""


def _fail(code: int, problems: Iterable[Problem]) -> int:
    for problem in problems:
        place = f"{problem.path}: " if problem.path not in ("", "gaffer_lookupd") else ""
        hint = f" ({problem.hint})" if problem.hint else ""
        print(f"gaffer_lookupd: {place}{problem.message}{hint}", file=sys.stderr)
    return code
