"""Job changes that follow from a changed configuration file. Pure."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from gaffer.jobs.names import JobName
from gaffer.process import ProcessConfig

Action = Literal["add", "remove", "update", "scale"]


class Change(NamedTuple):
    """A change of one job."""

    job: JobName
    action: Action

    def to_dict(self) -> dict[str, str]:
        """Return the change as a JSON object, for the response of POST /reload."""
        return {"job": str(self.job), "action": self.action}


def plan(
    before: Mapping[JobName, ProcessConfig], after: Mapping[JobName, ProcessConfig], loaded: Collection[JobName]
) -> list[Change]:
    """Return the changes from the file `before` to the file `after` on a node with the jobs `loaded`.

    Removals come first, in reverse order, then the others in the order of `after`. Manual changes on the node (a
    different scale, an additional job) are kept unless the file changed for that job.
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
    """Return whether the new file starts a job that the old file left stopped (`start = no`)."""
    return old is not None and bool(new.start) and not old.start


def _differ_in_number_only(old: ProcessConfig, new: ProcessConfig) -> bool:
    return {**old.to_dict(), "numprocesses": new.numprocesses} == new.to_dict()
