"""The shapes of what a manager tells of jobs and processes, as it stands in answers of the API."""

from typing import Annotated, TypedDict

from msgspec import Meta

from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import JobState
from gaffer.schemas.common import EndpointInfo, Later
from gaffer.schemas.job import JobSettings, ShownVariables


class Instance(TypedDict):
    """A place in a job for one process, or a process that runs once (slot 0)."""

    pid: Annotated[int | None, Meta(description="The number that Gaffer gave the process.")]
    os_pid: Annotated[int | None, Meta(description="The number that the system gave it.")]
    slot: Later[Annotated[int, Meta(description="From 1 on.")]]
    state: SlotState
    started_at: Later[Annotated[float | None, Meta(description="Seconds since 1970.")]]
    uptime: Later[Annotated[float, Meta(description="In seconds.")]]
    port: Later[Annotated[int | None, Meta(description="Its variable PORT.")]]
    endpoints: Later[list[EndpointInfo]]


class LastExit(TypedDict):
    """How the last process of a job ended."""

    exit_code: int | None
    term_signal: Annotated[int | None, Meta(description="0 unless a signal ended it.")]
    reason: Annotated[str, Meta(description="A sentence for people.")]
    uptime: Annotated[float, Meta(description="In seconds.")]
    output: Annotated[str | None, Meta(description="The end of what it wrote.")]


class JobStatus(TypedDict):
    """A job's numbers."""

    active: Annotated[bool, Meta(description="Whether it should run and was not given up.")]
    running: Annotated[int, Meta(description="Live processes, except draining and stopping ones.")]
    numprocesses: Annotated[int, Meta(description="Processes that should run.")]
    max_processes: Annotated[int, Meta(description="The same; its name in 0.4.")]


class JobInfo(TypedDict):
    """A job: what is wanted of it and how it is."""

    name: Annotated[str, Meta(description="Qualified: `session.job`.")]
    active: Annotated[bool, Meta(description="Whether it is wanted to run and was not given up.")]
    running: Annotated[int, Meta(description="Processes that are alive, except draining and stopping ones.")]
    running_out: Annotated[int, Meta(description="Those of them that run once.")]
    max_processes: Annotated[int, Meta(description="Processes that are wanted.")]
    processes: Annotated[list[int], Meta(description="The pids of `running`.")]
    config: JobSettings
    state: JobState
    reason: Annotated[str | None, Meta(description="Why it is in this state, for people.")]
    restarts: Later[Annotated[int, Meta(description="Processes that ended and were replaced.")]]
    instances: list[Instance]
    last_exit: Later[LastExit | None]


class ProcessInfo(TypedDict):
    """A process."""

    pid: Annotated[int, Meta(description="The number that Gaffer gave it.")]
    os_pid: Annotated[int, Meta(description="The number that the system gave it.")]
    name: Annotated[str, Meta(description="Its job; the bare name in session `default`.")]
    job: Annotated[str, Meta(description="Its job: `session.job`.")]
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
    commited: Annotated[bool, Meta(description="The same, as version 0.5 spelled it.")]
