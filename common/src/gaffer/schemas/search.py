"""Schemas of what a search on a node finds, and of its changes."""

from typing import Annotated, TypedDict

from msgspec import Meta

from gaffer.schemas.paging import Found, FoundPage, Key, Removed
from gaffer.schemas.views import Instance, JobSummary


class _Used(TypedDict):
    cpu: Annotated[float | None, Meta(description="Percent of a processor since the previous measurement.")]
    memory: Annotated[int | None, Meta(description="Resident memory in bytes.")]


class FoundJob(JobSummary, _Used):
    """A job of the node; `cpu` and `memory` are sums over its processes, without their children."""

    key: Key


class FoundProcess(Instance, _Used):
    """A running process of the node; `name` is the qualified name of its job."""

    key: Key
    name: str
    session: str


class FoundJobs(FoundPage):
    """Jobs of a node."""

    items: list[FoundJob]


class FoundProcesses(FoundPage):
    """Processes of a node."""

    items: list[FoundProcess]


class ChangedJobs(Found):
    """The event `items`: the jobs that changed and match."""

    changed: list[FoundJob]
    removed: Removed


class ChangedProcesses(Found):
    """The event `items`: the processes that changed and match."""

    changed: list[FoundProcess]
    removed: Removed
