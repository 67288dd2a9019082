"""What a job remembers of its failures, and the delays that follow from them. Pure."""

from msgspec import Struct

from gaffer.jobs.queries import RESET_AFTER, JobQueries
from gaffer.jobs.slot import Slot, SlotState
from gaffer.jobs.states import Phase


class SlotFailures(Struct, frozen=True):
    """Short lives and unwanted exits in a row; `retry_at` is when its back-off ends, 0 without one."""

    failures: int = 0
    crashes: int = 0
    retry_at: float = 0.0


class Failures(Struct, frozen=True):
    """The failures of a job, for a manager that goes on with it. Times are monotonic seconds.

    `definition` is the launch digest of the definition that has failed, `slots` are by index. `exits`, `retries` and
    `paused_until` are those of flapping detection, `held` is whether it pauses the job. `why` is the reason that the
    job shows.
    """

    definition: str
    slots: dict[int, SlotFailures] = {}
    exits: list[float] = []
    retries: int = 0
    paused_until: float = 0.0
    held: bool = False
    why: str = ""


class JobFailures(JobQueries):
    """The failures of one job."""

    @property
    def failures(self) -> Failures | None:
        """Its failures, None if none count any more."""
        slots = {
            slot.index: SlotFailures(slot.failures, slot.crashes, slot.retry_at if waits else 0.0)
            for slot in self.slots.values()
            if (waits := slot.state is SlotState.BACKOFF) or slot.failures or slot.crashes
        }
        exits, retries, paused_until = self._flaps.counted
        if not (slots or exits or retries):
            return None
        held = self.phase is Phase.HELD
        return Failures(self.config.launch_digest, slots, exits, retries, max(0.0, paused_until), held, self.why)

    def _remember_failures(self, failures: Failures) -> list[tuple[Slot, float]]:
        """Go on with the failures that an earlier manager has counted; return the empty slots to delay, in seconds."""
        self._flaps.restore(failures.exits, failures.retries, failures.paused_until)
        self.why = failures.why
        delayed = []
        for index, each in failures.slots.items():
            slot = self.slots.get(index)
            if slot is None and index <= self._wanted and each.retry_at > self._now:
                slot = self.slots[index] = Slot(index)
                delayed.append((slot, each.retry_at - self._now))
            if slot is not None:
                slot.failures, slot.crashes = each.failures, each.crashes
        return delayed

    def _forget_failures(self) -> None:
        self._flaps.reset()
        self.why = ""
        for slot in self.slots.values():
            slot.failures = slot.crashes = 0

    def _backoff(self, slot: Slot, lived: float) -> float:
        """Return the seconds before the next start after an uptime of `lived` seconds, and count it if it was short."""
        if lived >= RESET_AFTER:
            slot.failures = 0
        lasted = lived >= self.config.startsecs and not slot.failed and (slot.served or not slot.probed)
        if lasted or self.config.flapping is not None:
            return 0.0
        slot.failures += 1
        return self.config.backoff_after(slot.failures) * (0.8 + 0.4 * self._rand())
