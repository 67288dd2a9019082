"""Changes that follow from a changed configuration file. Pure."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName
from gaffer.process import ProcessConfig
from gaffer.schemas.reload import ReloadAction
from gafferd.config.file import Config, EndpointConfig
from gafferd.config.settings import SETTINGS, Settings


class Change(NamedTuple):
    """A change of one job."""

    job: JobName
    action: ReloadAction


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
            changes.append(Change(job, "scale" if differences(old, config) == ["numprocesses"] else "update"))
    return changes


def starts(old: ProcessConfig | None, new: ProcessConfig) -> bool:
    """Return whether the new file starts a job that the old file left stopped (`start = no`)."""
    return old is not None and bool(new.start) and not old.start


def differences(old: JobConfig, new: JobConfig) -> list[str]:
    """Return the names of the settings that differ."""
    names = (field.name for field in dataclasses.fields(old))
    return [name for name in names if getattr(old, name) != getattr(new, name)]


def outdated_settings(settings: Settings, given: Collection[str], before: Config, after: Config) -> Iterator[str]:
    """Yield what a daemon that runs with the `settings` would only get from the file `after` by a restart.

    Names of settings, except those `given` by flags and variables, and `endpoint:NAME` for the endpoints of the file,
    which contained `before` at the start.
    """
    for name, declared in SETTINGS.items():
        if name not in given and getattr(settings, name) != after.settings.get(name, declared.default):
            yield name
    old, new = _endpoints(before), _endpoints(after)
    for name in old.keys() & new.keys():  # names that come or go are in http_endpoints
        if old[name] != new[name]:
            yield f"endpoint:{name}"


def _endpoints(config: Config) -> dict[str, EndpointConfig]:
    return dict(zip(config.settings.get("http_endpoints") or (), config.endpoints, strict=True))
