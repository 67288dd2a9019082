"""The position at which a reader of a feed resumes. No I/O; also used by clients."""

import re
from typing import NamedTuple, Self

PATTERN = r"(?:([0-9A-Za-z]{1,64}):)?([0-9]{1,18})"

_POSITION = re.compile(PATTERN, re.ASCII)


class Position(NamedTuple):
    """A position to resume reading at: `EPOCH:OFFSET`, or only an offset, which refers to the current source."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the position in `text`, or None if it is invalid."""
        found = _POSITION.fullmatch(text)
        return cls(found[1] or "", int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}" if self.epoch else str(self.offset)
