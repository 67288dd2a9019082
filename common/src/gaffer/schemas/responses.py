"""Schemas of jobs and processes in responses of the node's API."""

from typing import Annotated, TypedDict

from msgspec import Meta

from gaffer.schemas.job import JobSettings, ShownVariables
from gaffer.schemas.stats import JobStats
from gaffer.schemas.views import ExitInfo, JobView


class ExitList(TypedDict):
    """The last exits of a job, newest first."""

    exits: list[ExitInfo]


class JobStatus(TypedDict):
    """The counts of a job."""

    active: Annotated[bool, Meta(description="Whether it should run and was not given up.")]
    running: Annotated[int, Meta(description="Live processes, except draining and stopping ones.")]
    numprocesses: Annotated[int, Meta(description="Processes that should run.")]
    max_processes: Annotated[int, Meta(description="Same as `numprocesses`; the name used by 0.4.")]


class JobInfo(JobView):
    """A job: its settings and its state."""

    config: JobSettings


class JobInfoList(TypedDict):
    """The jobs of a node."""

    jobs: list[JobInfo]


class SessionJobInfoList(JobInfoList):
    """The jobs of a session."""

    sessionid: str


class MeasuredJob(JobInfo):
    """A job with its resource usage."""

    stats: JobStats


class MeasuredJobList(TypedDict):
    """The jobs of a node with their resource usage."""

    jobs: list[MeasuredJob]


class MeasuredSessionJobList(MeasuredJobList):
    """The jobs of a session with their resource usage."""

    sessionid: str


class Definition(TypedDict):
    """A definition of a job."""

    generation: Annotated[int, Meta(description="Its number, from 1.")]
    config: JobSettings


class DefinitionList(TypedDict):
    """The last definitions of a job, newest first."""

    definitions: list[Definition]


class ProcessInfo(TypedDict):
    """A process."""

    pid: Annotated[int, Meta(description="Gaffer's process id.")]
    os_pid: Annotated[int, Meta(description="The system's process id.")]
    name: Annotated[str, Meta(description="The name of its job, without `default.` in the default session.")]
    job: Annotated[str, Meta(description="The qualified name of its job: `session.job`.")]
    active: bool
    cmd: str
    args: list[str]
    env: ShownVariables
    uid: int | str | None
    gid: int | str | None
    redirect_output: list[str]
    redirect_input: bool
    custom_streams: list[str]
    create_time: Annotated[float, Meta(description="Seconds since 1970.")]
    committed: Annotated[bool, Meta(description="Whether it runs once.")]
    commited: Annotated[bool, Meta(description="Same as `committed`; the spelling of 0.5.")]
