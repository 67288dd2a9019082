"""JSON types of job settings, generated from JobConfig: job descriptions in requests, and settings in responses."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from gaffer.jobs import limits, listening, ordering, probing, rules, schedule
from gaffer.jobs.config import PROCESS_KEYS, JobConfig
from gaffer.jobs.names import JOB_NAME_PATTERN

_Text = Annotated[str, Meta(pattern=r"\S")]
_Whole = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0)]
_Label = Annotated[str, Meta(pattern=r"^[^\s/.,:]{1,64}$")]


class FlappingDescription(msgspec.Struct, forbid_unknown_fields=True):
    """When to pause and when to give up a job that keeps crashing."""

    attempts: Annotated[int | str, Meta(description="Exits within the window that pause the job.")] = 2
    window: Annotated[float | str, Meta(description="In seconds.")] = 1.0
    retry_in: Annotated[float | str, Meta(description="Length of a pause in seconds.")] = 7.0
    max_retry: Annotated[int | str, Meta(description="Pauses before the job is given up.")] = 5


_ACCEPTED: Mapping[Callable[..., Any], Any] = {
    rules.text: _Text,
    rules.optional_text: str | None,
    rules.job_name: Annotated[str, Meta(pattern=JOB_NAME_PATTERN)],
    rules.command: _Text,
    rules.boolean: bool,
    rules.count: Annotated[int, Meta(ge=0, le=10_000)],
    rules.optional_whole: _Whole | None,
    rules.seconds: _Seconds | str,
    rules.positive_seconds: Annotated[float, Meta(gt=0)] | str,
    rules.size: _Whole | str,
    rules.backups: Annotated[int, Meta(ge=0, le=100)],
    rules.user_or_group: _Whole | str | None,
    rules.words: list[str | float] | str | None,
    rules.variables: dict[str, str | float] | None,
    rules.outputs: Annotated[list[_Label], Meta(max_length=2)] | str | None,
    rules.extra_streams: list[_Label] | str | None,
    rules.flapping_policy: FlappingDescription | Annotated[list[float | str], Meta(max_length=4)] | str | None,
    rules.port_plan: Annotated[int, Meta(ge=1, le=65535)] | str | None,
    rules.endpoint_list: list[str] | str | None,
    rules.start_mode: bool | Literal["on-connection"],
    rules.job_kind: Literal["service", "once"],
    rules.restart_policy: Literal["always", "on-failure", "never"] | None,
    rules.overlap_policy: Literal["skip", "queue", "replace"],
    rules.missed_policy: Literal["skip", "once"],
    rules.orphan_policy: Literal["adopt", "end"] | None,
    rules.log_format: Literal["raw", "timestamps", "json"],
    rules.exit_codes: list[Annotated[int, Meta(ge=0, le=255)]] | int | str,
    rules.restarts: Annotated[int, Meta(ge=0, le=10**6)],
    rules.at_least_one: Annotated[int, Meta(ge=1, le=10_000)],
    rules.signal_name: int | str,
    rules.optional_signal: int | str | None,
    rules.umask: str | None,
    rules.niceness: Annotated[int, Meta(ge=-20, le=19)] | None,
    rules.paths: list[_Text] | str,
    rules.globs: list[_Text] | str,
    rules.actions: dict[str, _Text],
    rules.optional_command: str | None,
    limits.resource_limit: _Whole | str | None,
    listening.socket_list: list[str] | str,
    ordering.job_list: list[str] | str,
    probing.probe: str | None,
    schedule.cron: str | None,
    schedule.interval: _Seconds | str,
    schedule.time_zone: str | None,
}
"""The JSON type of each rule's input. A rule may reject values that its type allows."""

_SETTINGS = {field.name: field for field in dataclasses.fields(JobConfig) if field.name in PROCESS_KEYS}
_TYPES = get_type_hints(JobConfig)

ShownVariables = Annotated[dict[str, str | None], Meta(description="Values are null for callers without `define`.")]

_annotated: Any = Annotated  # for types that are known at run time only


def _description(name: str, doc: str, *, optional: tuple[str, ...] = ()) -> type[msgspec.Struct]:
    """Return a struct type with the accepted values of each setting."""
    return msgspec.defstruct(
        name,
        [_given(field, optional) for field in _SETTINGS.values()],
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": doc},
    )


def _given(field: "dataclasses.Field[Any]", optional: tuple[str, ...]) -> tuple[Any, ...]:
    rule = field.metadata["rule"]
    accepted = _annotated[_ACCEPTED[rule], Meta(description=_sentence(rule))]
    if field.name in optional:
        return (field.name, accepted | msgspec.UnsetType, msgspec.UNSET)
    if field.default_factory is not dataclasses.MISSING:
        accepted |= None
        return (field.name, accepted, msgspec.field(default_factory=field.default_factory))
    if field.default is dataclasses.MISSING:
        return (field.name, accepted)
    accepted |= None  # the same as leaving it out
    if isinstance(field.default, tuple):
        return (field.name, accepted, msgspec.field(default_factory=partial(list, field.default)))
    return (field.name, accepted, field.default)


def _sentence(rule: Callable[..., Any]) -> str:
    return (inspect.getdoc(rule) or "").partition(" (")[0].rstrip(".") + "."


if TYPE_CHECKING:
    JobSettings = dict[str, Any]
else:
    JobSettings = msgspec.defstruct(
        "JobSettings",
        [(name, ShownVariables if name == "env" else _TYPES[name]) for name in _SETTINGS],
        namespace={"__doc__": "Every setting of a job."},
    )

JobDescription = _description("JobDescription", "A job to load: `name` and `cmd`, and other settings as needed.")
JobReplacement = _description("JobReplacement", "The new description of a job; `name` is optional.", optional=("name",))


class JobDescriptions(msgspec.Struct, forbid_unknown_fields=True):
    """Jobs to load, all or none."""

    jobs: list[JobDescription]  # type: ignore[valid-type]


if TYPE_CHECKING:
    RunningProcess = dict[str, Any]
else:
    RunningProcess = msgspec.defstruct(
        "RunningProcess",
        [("pid", int), ("os_pid", int), ("active", bool)],
        bases=(JobSettings,),
        namespace={"__doc__": "A process: its ids, and the settings of its job."},
    )
