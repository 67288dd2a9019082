"""Schemas of what jobs do, without their settings: clients import them much faster than those of the settings."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from gaffer.jobs.rollout import RolloutKind, RolloutState
from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import JobState
from gaffer.schemas.common import EndpointInfo, Later


class Instance(TypedDict):
    """A slot of a job for one process, or a process that runs once (slot 0)."""

    pid: Annotated[int | None, Meta(description="Gaffer's process id.")]
    os_pid: Annotated[int | None, Meta(description="The system's process id.")]
    slot: Later[Annotated[int, Meta(description="The slot number, from 1.")]]
    state: SlotState
    probe_error: Later[Annotated[str | None, Meta(description="The last error of its probes.")]]
    retry_in: Later[
        Annotated[
            float | None, Meta(description="Seconds until its next start after failures; null if none is planned.")
        ]
    ]
    started_at: Later[Annotated[float | None, Meta(description="Seconds since 1970.")]]
    uptime: Later[Annotated[float, Meta(description="In seconds.")]]
    port: Later[Annotated[int | None, Meta(description="The value of its variable PORT.")]]
    endpoints: Later[list[EndpointInfo]]


class UsageInfo(TypedDict):
    """The resources that a process and its reaped descendants used, getrusage(2)."""

    user_time: Annotated[float, Meta(description="In seconds.")]
    system_time: Annotated[float, Meta(description="In seconds.")]
    max_rss: Annotated[int | None, Meta(description="The most memory at a time, in bytes; null if unknown.")]


class ExitInfo(TypedDict):
    """An exit of a process, or a failed start."""

    pid: Later[Annotated[int, Meta(description="Gaffer's process id.")]]
    slot: Later[Annotated[int, Meta(description="The slot number, 0 for a process that ran once.")]]
    exit_code: Annotated[int | None, Meta(description="None if a signal ended it or the status is unknown.")]
    term_signal: Annotated[int | None, Meta(description="0 unless a signal ended it.")]
    reason: Annotated[str, Meta(description="Human-readable message.")]
    oom: Later[Annotated[bool | None, Meta(description="Whether memory ran out; null if that is uncertain.")]]
    uptime: Annotated[float, Meta(description="In seconds.")]
    at: Later[Annotated[float, Meta(description="Seconds since 1970.")]]
    output: Annotated[str | None, Meta(description="The last lines of its output.")]
    rusage: Later[UsageInfo | None]


class RolloutInfo(TypedDict):
    """The gradual replacement of the processes of a job."""

    kind: RolloutKind
    state: RolloutState
    processes: Annotated[int, Meta(description="Processes to replace.")]
    replaced: Annotated[int, Meta(description="Processes that were stopped to be replaced.")]
    reason: Annotated[str | None, Meta(description="Why it failed, or why an update was rolled back.")]


class DriftInfo(TypedDict):
    """A difference between a job and the files that it comes from."""

    kind: Annotated[
        Literal["file", "job", "program"],
        Meta(
            description="`file`: the configuration file has changes that are not applied, or is invalid. `job`: the job"
            " was changed over the API. `program`: a program has changed since its process started."
        ),
    ]
    reason: Annotated[str, Meta(description="Human-readable message.")]


class DisabledInfo(TypedDict):
    """Why and how long a job is kept from running."""

    reason: str
    at: Annotated[float, Meta(description="When it was disabled, seconds since 1970.")]
    until: Annotated[float | None, Meta(description="When that ends, seconds since 1970; null: when it is enabled.")]


class JobView(TypedDict):
    """What a job does: its info without its settings."""

    name: Annotated[str, Meta(description="Qualified: `session.job`.")]
    active: Annotated[bool, Meta(description="Whether it should run and was not given up.")]
    running: Annotated[int, Meta(description="Live processes, except draining and stopping ones.")]
    running_out: Annotated[int, Meta(description="Processes in `running` that run once.")]
    max_processes: Annotated[int, Meta(description="Processes that should run.")]
    expected: Later[
        Annotated[int, Meta(description="Processes that should run now: 0 if it is stopped or between runs.")]
    ]
    processes: Annotated[list[int], Meta(description="The pids of the processes in `running`.")]
    state: JobState
    reason: Annotated[str | None, Meta(description="Human-readable reason for this state.")]
    disabled: Later[DisabledInfo | None]
    restarts: Later[Annotated[int, Meta(description="Number of processes that ended and were replaced.")]]
    instances: list[Instance]
    last_exit: Later[ExitInfo | None]
    generation: Later[Annotated[int, Meta(description="Number of its definition, from 1.")]]
    rollout: Later[RolloutInfo | None]
    last_run: Later[Annotated[float | None, Meta(description="Start of the last scheduled run, seconds since 1970.")]]
    next_run: Later[Annotated[float | None, Meta(description="Start of the next scheduled run, seconds since 1970.")]]
    sockets: Later[
        Annotated[
            list[dict[str, str | int]],
            Meta(description="Its listening sockets: `name`, and `address` and `port` or `path`."),
        ]
    ]
    drift: Later[
        Annotated[list[DriftInfo], Meta(description="How it differs from the files of its configuration and program.")]
    ]
    log_lost_bytes: Later[Annotated[int, Meta(description="Bytes of output that are missing in its log files.")]]


class ExitSummary(TypedDict):
    """An exit of a process, or a failed start, in a list."""

    exit_code: Annotated[int | None, Meta(description="None if a signal ended it or the status is unknown.")]
    term_signal: Annotated[int | None, Meta(description="0 unless a signal ended it.")]
    reason: Annotated[str, Meta(description="Human-readable message.")]
    oom: Annotated[bool | None, Meta(description="Whether memory ran out; null if that is uncertain.")]
    uptime: Annotated[float, Meta(description="In seconds.")]
    at: Annotated[float, Meta(description="Seconds since 1970.")]


class JobSummary(TypedDict):
    """A job in a list: the fields of its info that fit into a row."""

    name: Annotated[str, Meta(description="Qualified: `session.job`.")]
    session: str
    state: JobState
    reason: Annotated[str | None, Meta(description="Human-readable reason for this state.")]
    active: Annotated[bool, Meta(description="Whether it should run and was not given up.")]
    running: Annotated[int, Meta(description="Live processes, except draining and stopping ones.")]
    max_processes: Annotated[int, Meta(description="Processes that should run.")]
    expected: Annotated[int, Meta(description="Processes that should run now: 0 if it is stopped or between runs.")]
    processes: Annotated[list[int], Meta(description="The pids of the processes in `running`.")]
    restarts: Annotated[int, Meta(description="Number of processes that ended and were replaced.")]
    uptime: Annotated[float | None, Meta(description="Of the oldest of these processes, in seconds.")]
    next_run: Annotated[float | None, Meta(description="Start of the next scheduled run, seconds since 1970.")]
    retry_in: Annotated[float | None, Meta(description="Seconds until the next start after failures, of any process.")]
    last_exit: ExitSummary | None
