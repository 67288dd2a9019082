"""Differences between a job and the configuration file. Pure."""

from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName
from gaffer.schemas.views import DriftInfo
from gafferd.config.on_disk import Contents
from gafferd.config.reload import differences


def drift_of_file(name: JobName, applied: JobConfig | None, contents: Contents) -> DriftInfo | None:
    """Return how the file as it is now differs from what was applied of it, for one job; None for no difference."""
    config, problems = contents
    wanted = config.jobs.get(name)
    if applied is not None and problems:
        return _drift(f"the configuration file is invalid: {problems[0].path}: {problems[0].message}")
    if wanted == applied:
        return None
    if wanted is None:
        return _drift("the configuration file no longer has this job: a reload removes it")
    section = config.described[name].section
    place = f"{section.file}:{section.line}"
    if applied is None:
        return _drift(f"{place} describes this job, but it was loaded otherwise: a reload updates it")
    return _drift(f"{place} has changes that are not applied: {', '.join(differences(applied, wanted))}")


def drift_of_job(applied: JobConfig, running: JobConfig, count: int) -> DriftInfo | None:
    """Return how a job with `count` wanted processes differs from what was applied of the file."""
    if running == applied and count == applied.numprocesses:
        return None  # quickly, as it is the rule
    changed = [name for name in differences(applied, running) if name != "numprocesses"]
    if count != applied.numprocesses:
        changed.append(f"numprocesses ({count} instead of {applied.numprocesses})")
    if not changed:
        return None
    return {"kind": "job", "reason": f"differs from the configuration file: {', '.join(changed)}"}


def _drift(reason: str) -> DriftInfo:
    return {"kind": "file", "reason": reason}
