"""Where a reader of a feed is to resume. Pure, also for clients."""

import re
from typing import NamedTuple, Self

PATTERN = r"(?:([0-9A-Za-z]{1,64}):)?([0-9]{1,18})"

_POSITION = re.compile(PATTERN, re.ASCII)


class Position(NamedTuple):
    """A place to resume reading at: `EPOCH:OFFSET`, or an offset alone, which is one of the source as it is now."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return None for what is not a position."""
        found = _POSITION.fullmatch(text)
        return cls(found[1] or "", int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}" if self.epoch else str(self.offset)
