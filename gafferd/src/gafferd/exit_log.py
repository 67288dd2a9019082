"""Log of process exits, failed rollouts and disabled jobs. Frequent exits of one job are summarized."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from gaffer import Manager
from gaffer.jobs.rollout import RolloutKind
from gaffer.jobs.states import Disabled, describe_exit, exit_failed

logger = logging.getLogger("gafferd.exits")

BURST = 5  # exits of a job per PERIOD that are logged individually
PERIOD = 60.0  # seconds

_OUT_OF_MEMORY = {"oom": True, "killed (possibly out of memory)": None}


class _Period(Struct):
    """The exits of a job within PERIOD seconds of `begin`: `left_out` were not logged, `last` is the last line."""

    begin: float
    logged: int = 0
    left_out: int = 0
    last: str = ""


class Throttle:
    """Rate limit for log lines about jobs. Pure; `now` in monotonic seconds."""

    def __init__(self) -> None:
        self._periods: dict[str, _Period] = {}

    def admit(self, job: str, line: str, now: float) -> bool:
        """Return whether to log `line` about `job` now; otherwise it is counted for `collect`."""
        period = self._periods.setdefault(job, _Period(now))
        if period.logged < BURST:
            period.logged += 1
            return True
        period.left_out += 1
        period.last = line
        return False

    def collect(self, now: float, *, all_periods: bool = False) -> list[str]:
        """Return summaries of the suppressed lines of the periods that ended by `now`, or of all periods.

        A job with suppressed lines gets only one summary per period until a period passes without an exit.
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
        """Whether nothing is left to collect."""
        return not self._periods


class ExitLog:
    """Application that logs failures as warnings, other exits, rollbacks and disabled jobs as info.

    Each level has its own limit, so that the exits of a rolling restart do not suppress a failure.
    """

    def __init__(self) -> None:
        self._throttles = {logging.WARNING: Throttle(), logging.INFO: Throttle()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._manager: Manager | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Start logging."""
        self._loop, self._manager = loop, manager
        for event, listener in self._listeners().items():
            manager.events.subscribe(event, listener)

    def stop(self) -> None:
        """Stop logging, and log the remaining summaries."""
        if self._manager is not None:
            for event, listener in self._listeners().items():
                self._manager.events.unsubscribe(event, listener)
        if self._timer is not None:
            self._timer.cancel()
        self._collect(all_periods=True)

    def _on_exit(self, evtype: str, event: Mapping[str, Any]) -> None:
        assert self._loop is not None
        line = describe(event)
        failed = exit_failed(event["exit_code"], event["reason"], stopped=event["stopped"])
        level = logging.WARNING if failed else logging.INFO
        if self._throttles[level].admit(event["job"], line, self._loop.time()):
            logger.log(level, "%s: %s", event["job"], line, extra=_about(event))
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._again)

    def _on_rollout(self, evtype: str, event: Mapping[str, Any]) -> None:
        if event["rollout"] == RolloutKind.ROLLBACK:
            logger.info("%s: rolling back", event["job"], extra=_about(event))

    def _on_rollout_failed(self, evtype: str, event: Mapping[str, Any]) -> None:
        logger.warning("%s: %s stopped: %s", event["job"], event["rollout"], event["reason"], extra=_about(event))

    def _on_disabled(self, evtype: str, event: Mapping[str, Any]) -> None:
        logger.info("%s: %s", event["job"], Disabled(event["reason"], 0.0, event["until"]))

    def _on_enabled(self, evtype: str, event: Mapping[str, Any]) -> None:
        logger.info("%s: enabled", event["job"])

    def _listeners(self) -> dict[str, Callable[[str, Mapping[str, Any]], None]]:
        return {
            "exit": self._on_exit,
            "rollout": self._on_rollout,
            "rollout_failed": self._on_rollout_failed,
            "disabled": self._on_disabled,
            "enabled": self._on_enabled,
        }

    def _again(self) -> None:
        assert self._loop is not None
        self._collect()
        self._timer = None if self._idle else self._loop.call_later(PERIOD, self._again)

    @property
    def _idle(self) -> bool:
        return all(throttle.idle for throttle in self._throttles.values())

    def _collect(self, *, all_periods: bool = False) -> None:
        assert self._loop is not None
        for level, throttle in self._throttles.items():
            for line in throttle.collect(self._loop.time(), all_periods=all_periods):
                logger.log(level, "%s", line, extra={"job": line.partition(": ")[0]})


def _about(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a log line concerns."""
    return {"job": event["job"], "pid": event.get("pid")}


def describe(event: Mapping[str, Any]) -> str:
    """Return the log line of an `exit` event."""
    reason = event["reason"]
    how = describe_exit(event["exit_code"], event["term_signal"], _OUT_OF_MEMORY.get(reason, False))
    asked = ", as requested" if reason == "stopped" else f" ({reason})" if event["stopped"] else ""
    restarts = event["restarts"]
    return (
        f"process {event['pid']} (os pid {event['os_pid']}) {how} after {event['uptime']:.1f} s{asked}; "
        f"{restarts} restart{'' if restarts == 1 else 's'} so far"
    )
