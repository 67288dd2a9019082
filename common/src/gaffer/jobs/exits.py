"""How the processes of a job ended. Pure."""

from typing import Any, Self

from msgspec import Struct

from gaffer.jobs.events import Exited
from gaffer.jobs.usage import ResourceUsage

KEPT = 20  # exits that a job remembers


class ExitRecord(Struct, frozen=True):
    """One exit; `exit_code` and `term_signal` are both None when unknown, and for a process that could not be started.

    `reason` is a word or a short phrase, `uptime` in seconds, `at` in seconds since 1970, `output` its last lines.
    `restarts` is the number of restarts of the job before what follows from this exit, None if it was not kept.
    """

    pid: int
    slot: int
    exit_code: int | None
    term_signal: int | None
    reason: str
    uptime: float
    at: float
    output: str | None = None
    oom: bool | None = False
    usage: ResourceUsage | None = None
    restarts: int | None = None

    @classmethod
    def of(cls, event: Exited, slot: int, reason: str, uptime: float, restarts: int) -> Self:
        """Make the record of the exit of a process in `slot` (0 for one that runs once)."""
        code, signum = event.exit_code, event.term_signal
        oom, usage = event.out_of_memory, event.usage
        return cls(event.pid, slot, code, signum, reason, uptime, event.at, event.output, oom, usage, restarts)

    def to_event(self, event: Exited, *, stopped: bool) -> dict[str, Any]:
        """Return the data of the `exit` event; `stopped`: Gaffer ended the process."""
        return {
            "exit_code": self.exit_code,
            "exit_status": self.exit_code,
            "term_signal": self.term_signal,
            "reason": self.reason,
            "stopped": stopped,
            "uptime": self.uptime,
            "restarts": self.restarts,
            "once": self.slot == 0,
            "os_pid": event.os_pid,
            "oom": self.oom,
            "output": self.output,
            "rusage": self.usage,
        }

    @property
    def shell_code(self) -> int:
        """The exit code that a shell would show: 128 and the number of the signal, if one ended it; 1 if unknown."""
        if self.exit_code is not None:
            return self.exit_code
        return 128 + self.term_signal if self.term_signal else 1
