"""Detection of crash loops (TPL-20 to TPL-25). Pure: the time is passed in."""

from collections import deque
from collections.abc import Iterable
from enum import StrEnum

from gaffer.jobs.rules import FlappingInfo


class Verdict(StrEnum):
    """What an exit means for the job."""

    GO_ON = "go on"
    PAUSE = "pause"
    GIVE_UP = "give up"


class FlapDetector:
    """Counts the unwanted exits of a job. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._exits: deque[float] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget all exits and retries."""
        self.retries = 0
        self._exits.clear()
        self.paused_until = float("-inf")

    @property
    def counted(self) -> tuple[list[float], int, float]:
        """The exits and retries that count, and the end of the last pause."""
        return [*self._exits], self.retries, self.paused_until

    def restore(self, exits: Iterable[float], retries: int, paused_until: float) -> None:
        """Go on with what another detector has `counted`."""
        self._exits = deque(exits)
        self.retries, self.paused_until = retries, paused_until

    def record(self, policy: FlappingInfo, now: float) -> tuple[Verdict, str]:
        """Count an exit at `now`; return the verdict and a sentence that explains it."""
        while self._exits and now - self._exits[0] > policy.window:
            self._exits.popleft()
        if not self._exits and now - self.paused_until > policy.window:
            self.retries = 0
        self._exits.append(now)
        count = len(self._exits)
        if count < policy.attempts:
            return Verdict.GO_ON, ""
        self._exits.clear()
        found = f"flapping: {count} exits within {policy.window:g} s"
        if self.retries >= policy.max_retry:
            retries = "1 retry" if self.retries == 1 else f"{self.retries} retries"
            return Verdict.GIVE_UP, f"{found}, given up after {retries}"
        self.retries += 1
        self.paused_until = now + policy.retry_in
        return Verdict.PAUSE, f"{found}, retry {self.retries} of {policy.max_retry} after {policy.retry_in:g} s"
