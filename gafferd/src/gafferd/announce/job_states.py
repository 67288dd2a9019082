"""The states of the jobs of a node, as lookupds show them. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from gaffer.jobs.names import JobName
from gaffer.schemas.messages import MAX_REASON, JobReport

_UP = ("starting", "running")


class AnnouncedJob(Protocol):
    """A job announced by the manager."""

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def expected(self) -> int: ...


class Numbered(NamedTuple):
    """A job, and the number of its last change."""

    number: int
    name: JobName
    report: JobReport


class JobStates:
    """The current state of each job. Changes are numbered from 1; `end` is the number of the last one.

    Of a job that has changed several times only the last change is kept, so the memory is bounded by the jobs.
    """

    def __init__(self) -> None:
        self.end = 0
        self._jobs: dict[str, Numbered] = {}  # in the order of their numbers

    def update(self, found: Mapping[JobName, AnnouncedJob], among: Collection[JobName] | None = None) -> None:
        """Update the jobs `among`, or all jobs; those that are not `found` are gone."""
        before = self._jobs if among is None else map(str, among)
        for gone in set(before).difference(map(str, found)):
            self.forget(gone)
        for name, job in found.items():
            report = JobReport(job.state, _shortened(job.reason), job.expected)
            known = self._jobs.get(str(name))
            if known is None or known.report != report:
                self.forget(str(name))
                self.end += 1
                self._jobs[str(name)] = Numbered(self.end, name, report)

    def forget(self, name: str) -> None:
        """Forget the state of a job, so that the next one counts as a change whatever it is."""
        self._jobs.pop(name, None)

    def after(self, number: int) -> list[Numbered]:
        """Return the jobs that have changed after the change with this number, in the order of their changes."""
        found = []
        for job in reversed(self._jobs.values()):
            if job.number <= number:
                break
            found.append(job)
        return found[::-1]

    @property
    def unsettled(self) -> set[JobName]:
        """The jobs that are up in spite of a reason, which can end without an event: a crash loop ends by time."""
        return {job.name for job in self._jobs.values() if job.report.reason and job.report.state in _UP}


def _shortened(reason: str | None) -> str | None:
    """Return a reason as lookupds accept it; undecodable bytes, which names of programs can have, become `?`."""
    if reason is None:
        return None
    text = reason.encode(errors="replace").decode()
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."
