"""Names of log files: `SESSION.JOB.SLOT.STREAM.log`. No I/O."""

import re
from typing import NamedTuple, Self

STREAMS = ("out", "err")

_NAME = re.compile(r"(.+)\.(0|[1-9][0-9]{0,5})\.(out|err)\.log(?:\.[1-9][0-9]{0,2})?", re.ASCII | re.DOTALL)


class LogName(NamedTuple):
    """The log of the qualified `job`, of a `slot` (0 for processes that run once) and the stream `out` or `err`."""

    job: str
    slot: int
    stream: str

    @classmethod
    def parse(cls, file: str) -> Self | None:
        """Return the log that the file of this name is part of, or None."""
        found = _NAME.fullmatch(file)
        return cls(found[1], int(found[2]), found[3]) if found else None

    @property
    def label(self) -> str:
        """What distinguishes it from other logs of the job, such as `1.out`."""
        return f"{self.slot}.{self.stream}"

    def __str__(self) -> str:
        return f"{self.job}.{self.slot}.{self.stream}.log"
