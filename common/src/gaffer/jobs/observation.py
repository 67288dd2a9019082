"""The probes and the timers of a process that runs. Pure."""

from collections.abc import Callable

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.probing import Question
from gaffer.jobs.slot import Action, Slot

_JITTER = 0.1  # of a lifetime


def observation(
    action: Action, slot: Slot, pid: int, config: JobConfig, rand: Callable[[], float]
) -> list[ev.Instruction]:
    """Return the instructions for OBSERVE, SERVE or FORGET of process `pid`, which was started with `config`."""
    found: list[ev.Instruction] = []
    waits = config.start_timeout if slot.probed else config.startsecs
    deadline = ("start" if slot.probed else "ready", pid)
    if action is Action.OBSERVE:
        if waits:
            found.append(ev.SetTimer(deadline, waits))
        if config.max_lifetime:
            found.append(ev.SetTimer(("lifetime", pid), config.max_lifetime * (1 - _JITTER * rand())))
        if slot.probed:
            found.append(ev.StartProbes(pid, Question.READY))
    elif action is Action.SERVE:
        if slot.probed and waits and not slot.served:
            found.append(ev.CancelTimer(deadline))
        if config.live is not None and not slot.served:
            found.append(ev.StartProbes(pid, Question.LIVE))
    else:
        if waits and not slot.served:
            found.append(ev.CancelTimer(deadline))
        if config.max_lifetime:
            found.append(ev.CancelTimer(("lifetime", pid)))
        if slot.probed or config.live is not None:
            found.append(ev.StopProbes(pid))
    return found
