"""Runs jobs in the foreground for `gaffer start`: the console shows their output, Ctrl-C stops them."""

import logging
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from gaffer import Manager
from gaffer.console_output import ConsoleOutput, wants_color
from gaffer.jobs.names import DEFAULT_SESSION
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.processes.cgroups import own_cgroup
from gaffer.runtime import dispositions
from gaffer.runtime.descriptors import raise_descriptors
from gaffer.sig_handler import SigHandler
from gaffer_client.cli.errors import Exit

_EVENTS = ("spawn", "exit", "start_failed", "flap")
_MORE_EVENTS = ("start", "stop", "restart", "reap", "stop_pid")


def run_in_foreground(configs: Sequence[ProcessConfig], *, verbose: bool = False) -> Exit:
    """Run the jobs until a signal arrives, the terminal closes or the output can't be written.

    The jobs are then stopped gracefully; a second Ctrl-C kills them. `verbose` shows all events of the jobs.
    """
    dispositions.reset_inherited()
    logging.getLogger("gaffer.manager").setLevel(logging.ERROR)  # its warnings are shown on the console
    raise_descriptors()
    loop = new_loop()
    # The id marks the processes, so that those that left their process group can be found.
    manager = Manager(loop, subreaper=True, cgroup=own_cgroup(), node_id=uuid.uuid4().hex)
    signals = _Signals()
    console = ConsoleOutput(
        wants_color(sys.stdout),
        actions=[*_EVENTS, *(_MORE_EVENTS if verbose else ())],
        on_broken=signals.output_broke,
        align=True,
        numbered=True,
    )
    try:
        manager.load_all(configs, DEFAULT_SESSION)
        manager.start([signals, console])
        manager.run()
    finally:
        loop.close()
    return signals.status


class _Signals(SigHandler):
    """Stops the manager on INT, TERM, QUIT, HUP or broken output; `status` is the exit status of the command."""

    def __init__(self) -> None:
        super().__init__()
        self.status = Exit.OK

    def handle_quit(self, handle: object, *args: Any) -> None:
        assert self.manager is not None
        if args != (signal.SIGINT,):
            self.manager.stop()
            return
        again = self.status is Exit.INTERRUPTED
        self.status = Exit.INTERRUPTED
        self.manager.stop(now=again)
        if not again and sys.stderr.isatty():
            print("\nstopping; press Ctrl-C again to kill all processes", file=sys.stderr)

    def handle_reload(self, handle: object, *args: Any) -> None:
        if self._previous.get(signal.SIGHUP) is not dispositions.ignore:  # nohup(1)
            self.handle_quit(handle, signal.SIGHUP)

    def output_broke(self) -> None:
        assert self.manager is not None
        self.status = Exit.BROKEN_PIPE
        self.manager.stop()
