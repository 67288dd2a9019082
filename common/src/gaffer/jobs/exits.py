"""How the processes of a job ended. Pure."""

from msgspec import Struct

from gaffer.jobs.usage import ResourceUsage

KEPT = 20  # exits that a job remembers


class ExitRecord(Struct, frozen=True):
    """One exit; `exit_code` and `term_signal` are both None when unknown, and for a process that could not be started.

    `reason` is a word or a short phrase, `uptime` in seconds, `at` in seconds since 1970, `output` its last lines.
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
