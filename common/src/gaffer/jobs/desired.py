"""What is desired of a job: the part of its state that outlives the daemon. Pure.

The state machine itself tells what an event would change: a job without processes is made from what is desired, and
gets the event. So a change can be stored before it is made.
"""

from itertools import count
from typing import Self

import msgspec
from msgspec import Struct

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.definitions import Definitions
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.states import Disabled, Phase

_LASTING = {Phase.HELD: Phase.STARTED}  # flapping detection starts over


class Desired(Struct, frozen=True):
    """What is desired of a job: its definition, whether it is to run, and with how many processes.

    `phase` is stopped, started, completed or failed, `why` the reason of the last two; `definitions` are those that a
    rollback can return to, oldest first, the last of which is the current one.
    """

    name: JobName
    phase: Phase
    target: int
    definitions: tuple[tuple[int, JobConfig], ...]
    disabled: Disabled | None = None
    why: str = ""

    @property
    def config(self) -> JobConfig:
        """The current definition."""
        return self.definitions[-1][1]

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Return what is desired of `job`, None once it is unloaded."""
        if job.phase is Phase.LEAVING:
            return None
        phase = _LASTING.get(job.phase, job.phase)
        why = job.why if phase in (Phase.COMPLETED, Phase.FAILED) else ""
        kept = tuple(reversed(job.definitions.kept))
        return cls(job.name, phase, job.target, kept, job.disabled, why)

    @classmethod
    def new(cls, name: JobName, config: JobConfig, *, start: bool) -> Self:
        """Return what is desired of a job that was just loaded, and started if `start`."""
        phase = Phase.STARTED if start and config.start else Phase.STOPPED
        return cls(name, phase, config.numprocesses, ((1, config),))

    def but_disabled(self, disabled: Disabled | None) -> "Desired":
        """Return it with another `disabled`."""
        return msgspec.structs.replace(self, disabled=disabled)

    def apply_to(self, job: Job) -> None:
        """Give a new job all of it but the phase `started`, which takes a StartRequested, and `disabled`."""
        job.definitions = Definitions.restore(self.definitions)
        job.target = self.target
        if self.phase in (Phase.COMPLETED, Phase.FAILED):
            job.phase, job.why = self.phase, self.why

    def disabling(self, now: float) -> ev.DisableRequested | None:
        """Return the order that keeps the job disabled from `now` (seconds since 1970) on, None if it is not."""
        if self.disabled is None:
            return None
        until = self.disabled.until
        if until is None:
            return ev.DisableRequested(self.disabled.reason, self.disabled.at)
        return ev.DisableRequested(self.disabled.reason, self.disabled.at, until, until - now) if until > now else None

    def after(self, event: ev.Event) -> "Desired | None":
        """Return what is desired after `event`, an order; None if that unloads the job."""
        job = Job(self.name, self.config, count(1).__next__)
        self.apply_to(job)
        job.phase, job.disabled = self.phase, self.disabled
        job.handle(event, 0.0)
        return Desired.of(job)
