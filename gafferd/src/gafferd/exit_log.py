"""Logs how processes end: each exit, and of a job whose processes end all the time a few, then their number."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gaffer import Manager
from gaffer.jobs.states import describe_exit

logger = logging.getLogger("gafferd.exits")

BURST = 5  # exits of a job in PERIOD that are logged one by one
PERIOD = 60.0  # seconds

_OUT_OF_MEMORY = {"oom": True, "killed (possibly out of memory)": None}


@dataclass(slots=True)
class _Period:
    """The exits of one job in PERIOD seconds from `begin` on; `left_out` of them were not logged, `last` is one."""

    begin: float
    logged: int = 0
    left_out: int = 0
    last: str = ""


class Throttle:
    """Decides which lines about a job are logged. Pure; `now` in monotonic seconds."""

    def __init__(self) -> None:
        self._periods: dict[str, _Period] = {}

    def admit(self, job: str, line: str, now: float) -> bool:
        """Whether to log `line` about `job` now; else `collect` counts it."""
        period = self._periods.setdefault(job, _Period(now))
        if period.logged < BURST:
            period.logged += 1
            return True
        period.left_out += 1
        period.last = line
        return False

    def collect(self, now: float, *, all_periods: bool = False) -> list[str]:
        """Lines about what was left out in the periods that are over by `now`, or in all of them.

        A job of which something was left out keeps to one such line a period until a period goes by without an exit.
        """
        lines = []
        for job, period in list(self._periods.items()):
            if not all_periods and now - period.begin < PERIOD:
                continue
            if period.left_out:
                exits = "exit" if period.left_out == 1 else "exits"
                seconds = now - period.begin
                lines.append(f"{job}: {period.left_out} more {exits} in {seconds:.0f} s, the last: {period.last}")
                self._periods[job] = _Period(now, logged=BURST)
            else:
                del self._periods[job]
        return lines

    @property
    def idle(self) -> bool:
        """Whether there is nothing to collect any more."""
        return not self._periods


class ExitLog:
    """The application: logs exits that nobody asked for as warnings, unless they are successful, the others as info."""

    def __init__(self) -> None:
        self._throttle = Throttle()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._manager: Manager | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Log from now on."""
        self._loop, self._manager = loop, manager
        manager.events.subscribe("exit", self._on_exit)

    def stop(self) -> None:
        """Log what is left to say."""
        if self._manager is not None:
            self._manager.events.unsubscribe("exit", self._on_exit)
        if self._timer is not None:
            self._timer.cancel()
        self._collect(all_periods=True)

    def _on_exit(self, evtype: str, event: Mapping[str, Any]) -> None:
        assert self._loop is not None
        line = describe(event)
        if self._throttle.admit(event["job"], line, self._loop.time()):
            failed = event["reason"] != "stopped" and event["exit_code"] != 0
            logger.log(logging.WARNING if failed else logging.INFO, "%s: %s", event["job"], line)
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._again)

    def _again(self) -> None:
        assert self._loop is not None
        self._collect()
        self._timer = None if self._throttle.idle else self._loop.call_later(PERIOD, self._again)

    def _collect(self, *, all_periods: bool = False) -> None:
        assert self._loop is not None
        for line in self._throttle.collect(self._loop.time(), all_periods=all_periods):
            logger.warning("%s", line)


def describe(event: Mapping[str, Any]) -> str:
    """The line about an `exit` event."""
    reason = event["reason"]
    how = describe_exit(event["exit_code"], event["term_signal"], _OUT_OF_MEMORY.get(reason, False))
    asked = ", as asked" if reason == "stopped" else ""
    restarts = event["restarts"]
    return (
        f"process {event['pid']} (os pid {event['os_pid']}) {how} after {event['uptime']:.1f} s{asked}; "
        f"{restarts} restart{'' if restarts == 1 else 's'} so far"
    )
