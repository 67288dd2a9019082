"""Auxiliary commands of jobs on the test's own loop."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gaffer.processes.reaper import Reaper
from gaffer.supervision.commands import Commands

# A command that ignores SIGTERM, says when it does, and stays.
STUBBORN = f"""{sys.executable} -u -c '
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(1000)
'"""


@asynccontextmanager
async def running_commands(*, subreaper: bool = False, **settings: Any) -> AsyncIterator[Commands]:
    """Commands on the running loop, of which nothing is left at the end; `settings` go to Commands."""
    loop = asyncio.get_running_loop()
    reaper = Reaper(loop, subreaper=subreaper)
    reaper.start()
    commands = Commands(loop, reaper, **settings)
    try:
        yield commands
    finally:
        await commands.quiesce(now=True)
        assert len(commands) == 0
        reaper.stop()
