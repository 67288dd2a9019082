"""A limit on warnings about peers, which must not be able to fill the log."""

from enum import Enum, auto

PERIOD = 60.0  # seconds
PER_ADDRESS = 20  # warnings per period
TOTAL = 200


class Verdict(Enum):
    """The decision on a warning; LAST: log that further ones are omitted."""

    LOG = auto()
    LAST = auto()
    DROP = auto()


class WarningBudget:
    """A count of warnings by address, in periods that begin with the first warning."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._total = 0
        self._spent: dict[str, int] = {}

    def spend(self, address: str, now: float) -> Verdict:
        """Count a warning about the address and return what to do with it."""
        if now >= self._ends:
            self._ends, self._total = now + PERIOD, 0
            self._spent.clear()
        spent = self._spent.get(address, 0)
        if self._total > TOTAL or spent > PER_ADDRESS:
            return Verdict.DROP
        self._spent[address] = spent + 1
        self._total += 1
        return Verdict.LAST if spent == PER_ADDRESS or self._total > TOTAL else Verdict.LOG
