"""The command `gaffer_lookupd`."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable

from gaffer.errors import ConfigError, GafferError, Problem
from gaffer.log import setup_logging
from gaffer.loop import new_loop
from gaffer.pidfile import Pidfile
from gaffer.sig_handler import BaseSigHandler
from gaffer.util import daemonize
from gaffer_lookupd.config import Config, make_config, parse_options
from gaffer_lookupd.server import LookupServer


def main() -> None:
    """Run gaffer_lookupd until a signal ends it; exits with 2 for a wrong command line, 1 for what else fails."""
    try:
        run(make_config(parse_options(sys.argv[1:]), os.environ))
    except ConfigError as error:
        sys.exit(_fail(2, error.problems))
    except GafferError as error:
        code = 2 if error.errno == 400 else 1
        sys.exit(_fail(code, [Problem(error.path or "", error.message, error.hint)]))


def run(config: Config) -> None:
    """Serve until QUIT, TERM or INT; raises GafferError when it can't start."""
    detach = daemonize(wait=True) if config.daemon else _stay
    setup_logging(config.log_level, config.error_log)
    pidfile = Pidfile(config.pidfile, lock=True)
    if config.pidfile is not None:
        try:
            pidfile.create(os.getpid())
        except (RuntimeError, OSError) as error:
            raise GafferError(str(error), reason="bad_pidfile") from None
    try:
        with asyncio.Runner(loop_factory=lambda: new_loop(config.loop)) as runner:
            runner.run(_serve(config, detach))
    finally:
        pidfile.unlink()


async def _serve(config: Config, detach: Callable[[], None]) -> None:
    stopped = asyncio.Event()
    _Signals(stopped).start(asyncio.get_running_loop())
    server = LookupServer(config)
    server.start()
    _spare_the_collector()
    try:
        for address in server.addresses:
            print(f"listening on {address}", file=sys.stderr, flush=True)
        detach()
        await stopped.wait()
    finally:
        await server.stop()
        for signum in _Signals.QUIT_SIGNALS:  # a second one must not end it before its pidfile is gone
            signal.signal(signum, signal.SIG_IGN)


def _spare_the_collector() -> None:
    """Nearly all that comes from here on stays for long: look for garbage seldom, and never among the modules."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)


class _Signals(BaseSigHandler):
    """Sets an event on QUIT, TERM and INT; HUP does nothing, for lookupd has nothing to read again."""

    def __init__(self, stopped: asyncio.Event) -> None:
        super().__init__()
        self._stopped = stopped

    def handle_quit(self, handle: object, signum: int) -> None:
        self._stopped.set()

    def handle_reload(self, handle: object, signum: int) -> None:
        pass


def _stay() -> None:
    """In the foreground there is nothing to detach from."""


def _fail(code: int, problems: Iterable[Problem]) -> int:
    for problem in problems:
        place = f"{problem.path}: " if problem.path not in ("", "gaffer_lookupd") else ""
        hint = f" ({problem.hint})" if problem.hint else ""
        print(f"gaffer_lookupd: {place}{problem.message}{hint}", file=sys.stderr)
    return code
