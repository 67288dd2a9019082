"""Schemas of simple request and response bodies of the node's API."""

from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from gaffer.schemas.common import Done, Later


class NodeWelcome(TypedDict):
    """The name and version of the server."""

    welcome: Literal["gaffer"]
    version: str


class VersionInfo(TypedDict):
    """The name and version of the program."""

    name: Literal["gaffer"]
    version: str


class LookupdState(TypedDict):
    """The state of the node's connection to a lookup server."""

    address: str
    connected: bool
    error: Annotated[str | None, Meta(description="The reason why it is not connected.")]


class WebhookState(TypedDict):
    """The deliveries to the URL of a webhook since it was configured."""

    url: Annotated[str, Meta(description="Without user, password and query.")]
    pending: Annotated[int, Meta(description="Events that wait or are being posted.")]
    dropped: Annotated[int, Meta(description="Events lost because the queue was full.")]
    delivered: Annotated[int, Meta(description="Events answered with a status 2xx.")]
    failed: Annotated[int, Meta(description="Events given up: refused, or retried for an hour.")]
    unsaved: Later[
        Annotated[int, Meta(description="Events that waited in memory only, because the disk was full or failed.")]
    ]
    last_error: Annotated[str | None, Meta(description="Why the last attempt failed; null if it succeeded.")]


class KeeperState(TypedDict):
    """State of the keeper, the parent of gafferd, which starts it again when it dies or hangs."""

    pid: int
    since: Annotated[float, Meta(description="When it started, in seconds since 1970.")]
    error: Annotated[str | None, Meta(description="Why it no longer protects the node; null if it does.")]


class HealthInfo(TypedDict):
    """Health of the node."""

    status: Annotated[
        Literal["ok", "draining", "stopping"], Meta(description="`stopping`: it accepts no more commands.")
    ]
    name: Later[Annotated[str | None, Meta(description="The name of the node in lookupds, if it has one.")]]
    version: str
    pid: Later[Annotated[int, Meta(description="The process id of gafferd.")]]
    uptime: Annotated[float, Meta(description="In seconds.")]
    jobs: Annotated[int, Meta(description="Number of jobs.")]
    processes: Annotated[int, Meta(description="Number of live processes.")]
    lookupds: list[LookupdState]
    webhooks: list[WebhookState]
    state_error: Annotated[
        str | None, Meta(description="Why changes of jobs can't be stored, so that they are refused; null if they can.")
    ]
    keeper: Later[Annotated[KeeperState | None, Meta(description="Null without a keeper.")]]


class SessionList(TypedDict):
    """A list of sessions."""

    sessions: list[str]


class JobList(TypedDict):
    """A list of qualified job names."""

    jobs: list[str]


class SessionJobList(JobList):
    """The qualified names of the jobs of a session."""

    sessionid: str


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    """A change to the number of processes of a job."""

    scale: Annotated[int | str, Meta(description='The change as an integer, or "+n", "-n", "=n".')]


REASON = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,1000}$"
"""A line of text."""


class DisableBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why and how long a job is disabled."""

    reason: Annotated[str, Meta(pattern=REASON, description="Shown in the info of the job.")]
    seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="How long; null or left out: until it is enabled.")
    ] = msgspec.field(default=None, name="for")


class SignalBody(msgspec.Struct, forbid_unknown_fields=True):
    """A signal to send."""

    signal: Annotated[int | str, Meta(description="Its number or its name.")]


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a process that runs once."""

    graceful_timeout: (
        Annotated[float, Meta(ge=0, description="Graceful timeout in seconds; 0: that of the job.")] | None
    ) = 0
    env: Annotated[dict[str, str] | None, Meta(description="Variables that override the job's.")] = None


class ProcessCount(TypedDict):
    """The number of processes that a job should have."""

    numprocesses: int


class DoneProcessCount(Done):
    """An accepted command, with the number of processes that the job should have."""

    numprocesses: int


class ActionList(TypedDict):
    """The actions of a job."""

    actions: Annotated[dict[str, str], Meta(description="Their command lines by name.")]


class ActionExit(TypedDict):
    """The end of an action."""

    outcome: Annotated[
        Literal["succeeded", "failed", "timed_out", "cancelled"],
        Meta(description="`succeeded`: it exited with 0. `cancelled`: the job was unloaded, or the node stopped."),
    ]
    exit_code: Annotated[int | None, Meta(description="null if a signal ended it.")]
    term_signal: Annotated[int | None, Meta(description="0 unless a signal ended it.")]
    uptime: Annotated[float, Meta(description="In seconds.")]


class ActionResult(ActionExit):
    """The end of an action, and its output."""

    output: Annotated[str, Meta(description="The last 256 KiB of its stdout and stderr.")]
    omitted: Annotated[int, Meta(description="The number of bytes of output before those.")]


class DoneGeneration(Done):
    """An accepted command, with the number of the definition of the job."""

    generation: int


class PidList(TypedDict):
    """A list of processes."""

    pids: list[int]


class DonePidList(Done):
    """The processes of a job."""

    pids: list[int]


class NewPid(TypedDict):
    """The pid of a new process."""

    pid: int


class DrainState(TypedDict):
    """The drain state: whether the node is out of service, whether draining has finished, and the processes left."""

    draining: bool
    drained: bool
    processes: int


class EventMessage(TypedDict):
    """An event. Its other fields depend on the event: `name`, `session`, `job`, `pid`, `os_pid`, `exit_code`..."""

    event: str
