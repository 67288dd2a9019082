"""The gradual replacement of the processes of a job. Pure.

Outdated processes that don't serve are replaced at once, those that are ready only while enough others are. With
`surge`, additional processes start first. A rollout ends when no process is outdated and all are ready, and stops when
a new process does not become ready.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from gaffer.jobs.slot import Slot, SlotState


class RolloutKind(StrEnum):
    """Why processes are replaced."""

    RESTART = "restart"
    UPDATE = "update"
    ROLLBACK = "rollback"
    RECYCLE = "recycle"  # some exceeded a limit


class RolloutState(StrEnum):
    """How far it is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Rollout(Struct):
    """One replacement; `total` processes are to be replaced, `replaced` have been stopped for that.

    `origin` is the generation of the definition to return to when an update does not become ready.
    """

    kind: RolloutKind
    total: int
    origin: int
    replaced: int = 0
    state: RolloutState = RolloutState.RUNNING
    reason: str = ""  # why it failed, or why an update was rolled back

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.state is RolloutState.RUNNING


def enlist(rollout: Rollout | None, slot: Slot, kind: RolloutKind, generation: int) -> Rollout:
    """Have one more process replaced, by `rollout` if it goes on; return the rollout.

    `generation` is that of the current definition.
    """
    if rollout is None or not rollout.running:
        rollout = Rollout(kind, 0, generation - 1)
    slot.outdated = True
    rollout.total += 1
    return rollout


def replaceable(slots: Sequence[Slot], target: int, max_unavailable: int, surge: int) -> list[Slot]:
    """Return those of `slots`, of which `target` are to be ready, whose processes can be replaced now."""
    ready = [slot for slot in slots if slot.state is SlotState.READY]
    outdated = [slot for slot in slots if slot.outdated]
    spare = len(ready) - max(0, target - (0 if surge else max_unavailable))
    serving = [slot for slot in outdated if slot.state is SlotState.READY]
    return [slot for slot in outdated if slot.state is not SlotState.READY] + serving[: max(0, spare)]
