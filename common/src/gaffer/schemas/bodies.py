"""The shapes of what requests of the node's API carry and what it answers, where they are no more than that."""

from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from gaffer.schemas.common import Done


class NodeWelcome(TypedDict):
    """Who answers."""

    welcome: Literal["gaffer"]
    version: str


class VersionInfo(TypedDict):
    """Which program answers."""

    name: Literal["gaffer"]
    version: str


class LookupdState(TypedDict):
    """How a lookup server stands to the node."""

    address: str
    connected: bool
    error: Annotated[str | None, Meta(description="Why it is not connected.")]


class HealthInfo(TypedDict):
    """How the node is."""

    status: Annotated[Literal["ok", "draining", "stopping"], Meta(description="`stopping`: it takes no more orders.")]
    version: str
    uptime: Annotated[float, Meta(description="In seconds.")]
    jobs: Annotated[int, Meta(description="How many there are.")]
    processes: Annotated[int, Meta(description="How many are alive.")]
    lookupds: list[LookupdState]


class SessionList(TypedDict):
    """Sessions."""

    sessions: list[str]


class JobList(TypedDict):
    """Qualified names of jobs."""

    jobs: list[str]


class SessionJobList(JobList):
    """The qualified names of the jobs of a session."""

    sessionid: str


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    """How many processes a job is to have."""

    scale: Annotated[int | str, Meta(description='How many more (an integer), or "+n", "-n", "=n".')]


class SignalBody(msgspec.Struct, forbid_unknown_fields=True):
    """A signal to send."""

    signal: Annotated[int | str, Meta(description="Its number or its name.")]


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """How a process that runs once differs from the others."""

    graceful_timeout: (
        Annotated[float, Meta(ge=0, description="How long it may take to end, in seconds; 0: as the job says.")] | None
    ) = 0
    env: Annotated[dict[str, str] | None, Meta(description="Added to the job's own.")] = None


class ProcessCount(TypedDict):
    """How many processes are wanted of a job."""

    numprocesses: int


class DoneProcessCount(Done):
    """The order was taken; how many processes are wanted now."""

    numprocesses: int


class PidList(TypedDict):
    """Processes."""

    pids: list[int]


class DonePidList(Done):
    """The processes of a job."""

    pids: list[int]


class NewPid(TypedDict):
    """The process that is about to start."""

    pid: int


class DrainState(TypedDict):
    """Whether the node is out of service, whether all has ended, and how many processes have not."""

    draining: bool
    drained: bool
    processes: int


class EventMessage(TypedDict):
    """An event. What else it tells depends on the event: `name`, `session`, `job`, `pid`, `os_pid`, `exit_code`..."""

    event: str
