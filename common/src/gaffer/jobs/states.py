"""Phases of a job and how orders change them, its visible state, and how a process ended."""

import signal
from collections.abc import Set
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated

from msgspec import Meta, Struct

from gaffer.jobs.slot import SlotState

# Seconds since 1970 that a date can stand for, checked when they are read from a file.
UnixTime = Annotated[float, Meta(ge=datetime.min.replace(tzinfo=UTC).timestamp(), le=253402300799)]


class Phase(StrEnum):
    """What is desired of a job."""

    STOPPED = "stopped"
    STARTED = "started"
    HELD = "held"  # started, but paused by flapping detection
    COMPLETED = "completed"  # all its processes ran to success and none is to follow
    FAILED = "failed"  # given up
    LEAVING = "leaving"  # unloaded, or the manager ends


class JobState(StrEnum):
    """The visible state of a job, derived from its phase and slots."""

    STOPPED = "stopped"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"


class Disabled(Struct, frozen=True):
    """Why and how long a job is kept from running: since `at`, up to `until` (seconds since 1970), None for ever."""

    reason: str
    at: UnixTime
    until: UnixTime | None = None

    def __str__(self) -> str:
        end = f" until {datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M:%S} UTC" if self.until else ""
        return f"disabled{end}: {self.reason}"


class Order(StrEnum):
    """What changes the phase of a job."""

    START = "start"
    STOP = "stop"
    LEAVE = "leave"
    HOLD = "hold"
    RETRY = "retry"
    GIVE_UP = "give up"
    COMPLETE = "complete"


# Phases that are not named for an order ignore it.
PHASES: dict[tuple[Phase, Order], Phase] = {
    (Phase.STOPPED, Order.START): Phase.STARTED,
    (Phase.HELD, Order.START): Phase.STARTED,
    (Phase.FAILED, Order.START): Phase.STARTED,
    (Phase.COMPLETED, Order.START): Phase.STARTED,
    (Phase.STARTED, Order.STOP): Phase.STOPPED,
    (Phase.HELD, Order.STOP): Phase.STOPPED,
    (Phase.FAILED, Order.STOP): Phase.STOPPED,
    (Phase.COMPLETED, Order.STOP): Phase.STOPPED,
    (Phase.STARTED, Order.HOLD): Phase.HELD,
    (Phase.STARTED, Order.GIVE_UP): Phase.FAILED,
    (Phase.HELD, Order.GIVE_UP): Phase.FAILED,
    (Phase.STARTED, Order.COMPLETE): Phase.COMPLETED,
    (Phase.HELD, Order.COMPLETE): Phase.COMPLETED,
    (Phase.HELD, Order.RETRY): Phase.STARTED,
    (Phase.STOPPED, Order.LEAVE): Phase.LEAVING,
    (Phase.STARTED, Order.LEAVE): Phase.LEAVING,
    (Phase.HELD, Order.LEAVE): Phase.LEAVING,
    (Phase.FAILED, Order.LEAVE): Phase.LEAVING,
    (Phase.COMPLETED, Order.LEAVE): Phase.LEAVING,
}


# The first of these that some slot is in decides.
_FROM_SLOTS = (
    (SlotState.READY, JobState.RUNNING),
    (SlotState.DRAINING, JobState.RUNNING),
    (SlotState.STARTING, JobState.STARTING),
    (SlotState.SPAWNING, JobState.STARTING),
    (SlotState.STOPPING, JobState.STOPPING),
    (SlotState.BACKOFF, JobState.BACKOFF),
    (SlotState.WAITING, JobState.WAITING),
)


def visible_state(phase: Phase, slots: Set[SlotState], *, empty: bool) -> JobState:
    """The visible state, from the phase and the states of the slots; `empty` when no process is left.

    A started job without slots is waiting: it is scaled to 0 processes.
    """
    if phase is Phase.FAILED:
        return JobState.FAILED
    if phase is Phase.COMPLETED and empty:
        return JobState.COMPLETED
    if phase not in (Phase.STARTED, Phase.HELD):
        return JobState.STOPPED if empty else JobState.STOPPING
    return next((seen for slot_state, seen in _FROM_SLOTS if slot_state in slots), JobState.WAITING)


EXPECTED = frozenset({"stopped", "restart", "update", "rollback", "max_lifetime", "idle"})
"""Reasons of exits that are no failure of the process."""


def exit_reason(
    exit_code: int | None, term_signal: int | None, out_of_memory: bool | None = False, *, cause: str = ""
) -> str:
    """A word for why a process ended; `out_of_memory` as in Exited, `cause` when Gaffer stopped it."""
    if exit_code is None and not term_signal:
        return "unknown"
    if cause:
        return cause
    if not term_signal:
        return "exited"
    if out_of_memory is None:
        return "killed (possibly out of memory)"
    return "oom" if out_of_memory else "signaled"


def how_it_ended(
    exit_code: int | None, term_signal: int | None, uptime: float, out_of_memory: bool | None = False
) -> str:
    """A human-readable sentence; `uptime` in seconds, `out_of_memory` as in Exited."""
    return f"the last process {describe_exit(exit_code, term_signal, out_of_memory)} after {uptime:.1f} s"


def exit_failed(exit_code: int | None, reason: str, *, stopped: bool) -> bool:
    """Return whether an exit, as in the event `exit`, was a failure of the process."""
    return reason not in EXPECTED and (stopped or exit_code != 0)


def describe_exit(exit_code: int | None, term_signal: int | None, out_of_memory: bool | None = False) -> str:
    """How a process ended, as the end of a sentence: `exited with 3`, `was killed by SIGKILL`."""
    if term_signal:
        cause = {True: ": out of memory", None: " (possibly out of memory)", False: ""}[out_of_memory]
        return f"was killed by {_signal_name(term_signal)}{cause}"
    return "ended in an unknown way" if exit_code is None else f"exited with {exit_code}"


@cache
def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
