"""What the actions of a slot mean for its process: signals, probes and timers. Pure."""

import signal
from collections.abc import Callable

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.slot import Action, Slot

_JITTER = 0.1  # of a lifetime


def on_process(
    action: Action, slot: Slot, config: JobConfig, rand: Callable[[], float], now: float, *, hurry: bool
) -> list[ev.Instruction]:
    """Return the instructions for an action on the process in `slot`; `config` is the definition of its job.

    `now` in monotonic seconds; `hurry`: end it without its graceful timeout.
    """
    pid = slot.pid
    assert pid is not None
    match action:
        case Action.OBSERVE | Action.SERVE | Action.FORGET:
            began_with = slot.config or config
            return _observation(action, slot, pid, began_with, rand, now - slot.spawned_at) if slot.index else []
        case Action.START_DRAIN:
            return [ev.SetTimer(("drain", pid), config.drain_timeout)]
        case Action.CANCEL_DRAIN:
            return [ev.CancelTimer(("drain", pid))]
        case Action.RELEASE:
            return [ev.Release(pid)]
        case Action.TERMINATE if not hurry:
            timeout = slot.graceful_timeout if slot.graceful_timeout is not None else config.graceful_timeout
            return [ev.Signal(pid, config.stop_signum), ev.SetTimer(("kill", pid), timeout)]
        case _:
            return [ev.Signal(pid, signal.SIGKILL)]


def _observation(
    action: Action, slot: Slot, pid: int, config: JobConfig, rand: Callable[[], float], age: float
) -> list[ev.Instruction]:
    """Return the instructions for OBSERVE, SERVE or FORGET of process `pid`, which was started with `config`.

    `age` is that of the process, in seconds.
    """
    found: list[ev.Instruction] = []
    waits = config.start_timeout if slot.probed else config.startsecs
    deadline = ("start" if slot.probed else "ready", pid)
    probes = slot.probed or config.live is not None
    match action:
        case Action.OBSERVE:
            left = waits if slot.probed else waits - age
            if left > 0 and not slot.served:
                found.append(ev.SetTimer(deadline, left))
            if config.max_lifetime:
                found.append(_lifetime(pid, config, rand, age))
            if probes:
                found.append(ev.StartProbes(pid, ready=slot.served))
        case Action.SERVE:
            if slot.probed and waits and not slot.served:
                found.append(ev.CancelTimer(deadline))
        case _:
            if waits and not slot.served:
                found.append(ev.CancelTimer(deadline))
            if slot.ages:
                found.append(ev.CancelTimer(("lifetime", pid)))
            if probes:
                found.append(ev.StopProbes(pid))
    return found


def limit_lifetime(
    slot: Slot, config: JobConfig, rand: Callable[[], float], now: float
) -> ev.SetTimer | ev.CancelTimer:
    """Return the instruction that gives the running process in `slot` the maximum lifetime of a changed definition."""
    assert slot.pid is not None
    slot.ages = config.max_lifetime > 0
    if not slot.ages:
        return ev.CancelTimer(("lifetime", slot.pid))
    return _lifetime(slot.pid, config, rand, now - slot.spawned_at)


def _lifetime(pid: int, config: JobConfig, rand: Callable[[], float], age: float) -> ev.SetTimer:
    """Return the timer for the end of a lifetime, of which `age` seconds are over."""
    return ev.SetTimer(("lifetime", pid), max(0.0, config.max_lifetime * (1 - _JITTER * rand()) - age))
