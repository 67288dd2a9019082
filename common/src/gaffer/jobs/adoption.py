"""The slot of a process that an earlier manager left running, and whether that process may stay. Pure."""

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.definitions import Definitions
from gaffer.jobs.slot import Slot, SlotState


def make_slot(event: ev.Adopted, index: int, definitions: Definitions, now: float) -> Slot:
    """Return the slot `index` with the adopted process and the definition that it was started with.

    The current definition stands for one that is not kept. `now` in monotonic seconds.
    """
    current = definitions.kept[0][1]
    slot = Slot(index, pid=event.pid)
    slot.begin(definitions.launched(event.record.definition) or current, now - event.age)
    slot.served = event.record.state is SlotState.READY
    return slot


def is_ready(event: ev.Adopted, slot: Slot, config: JobConfig) -> bool:
    """Return whether the adopted process is ready without any further wait."""
    if not slot.index or event.record.state is SlotState.READY:
        return True
    return not slot.probed and event.age >= config.startsecs


def mark(adopted: bool) -> dict[str, bool]:
    """Return what an event says that an earlier manager has published, if so."""
    return {"adopted": True} if adopted else {}


def why_not(event: ev.Adopted, slot: Slot, definitions: Definitions) -> str | None:
    """Return the cause for which an adopted process must be stopped, None if it may go on, at least until its turn."""
    record, current = event.record, definitions.kept[0][1]
    if record.state in (SlotState.DRAINING, SlotState.STOPPING):
        return "stopped"
    if event.exited:
        return None
    if record.slot != slot.index:
        return "stopped"
    if not (current.detach if record.detach else current.survive):
        return "restart"
    launched = definitions.launched(record.definition)
    if record.outdated is None and (launched is None or launched.needs_restart(current)):
        return "update"
    return None
