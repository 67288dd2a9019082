"""What a changed configuration file means for the jobs of a node. Pure."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from gaffer.jobs.names import JobName
from gaffer.process import ProcessConfig

Action = Literal["add", "remove", "update", "scale"]


class Change(NamedTuple):
    """One job that the new file treats differently."""

    job: JobName
    action: Action

    def to_dict(self) -> dict[str, str]:
        """As in the answer of POST /reload."""
        return {"job": str(self.job), "action": self.action}


def plan(
    before: Mapping[JobName, ProcessConfig], after: Mapping[JobName, ProcessConfig], loaded: Collection[JobName]
) -> list[Change]:
    """The changes that lead from the file `before` to the file `after` on a node that has the jobs `loaded`.

    Removals come first, last job first; then the others in the order of `after`. What was changed on the node since
    (a scale, a job loaded by hand) stays as it is unless the file says something new about it.
    """
    changes = [Change(job, "remove") for job in reversed(list(before)) if job not in after and job in loaded]
    for job, config in after.items():
        old = before.get(job)
        if job not in loaded:
            changes.append(Change(job, "add"))
        elif old is None:
            changes.append(Change(job, "update"))
        elif old != config:
            changes.append(Change(job, "scale" if _differ_in_number_only(old, config) else "update"))
    return changes


def starts(old: ProcessConfig | None, new: ProcessConfig) -> bool:
    """Whether the new file starts a job that the old one left stopped (`start = no`)."""
    return old is not None and new.start and not old.start


def _differ_in_number_only(old: ProcessConfig, new: ProcessConfig) -> bool:
    return {**old.to_dict(), "numprocesses": new.numprocesses} == new.to_dict()
