"""Schemas of the reload of a node's configuration file."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

ReloadAction = Literal["add", "remove", "update", "scale"]


class JobChange(TypedDict):
    """A change of a job."""

    job: Annotated[str, Meta(description="Qualified: `session.job`.")]
    action: ReloadAction
    settings: Annotated[list[str], Meta(description="The settings that an update or a scale changes.")]
    restart: Annotated[bool, Meta(description="Whether its processes are replaced.")]


class FailedChange(TypedDict):
    """A change of a job that could not be applied; the next reload retries it."""

    job: Annotated[str, Meta(description="Qualified: `session.job`.")]
    action: ReloadAction
    error: Annotated[str, Meta(description="A stable code for programs.")]
    message: Annotated[str, Meta(description="Human-readable message.")]
    hint: Annotated[str | None, Meta(description="How to fix the problem.")]


class WebhookChange(TypedDict):
    """A change of a webhook."""

    event: str
    url: Annotated[str, Meta(description="Without user, password and query.")]
    action: Literal["add", "remove"]


class FileProblem(TypedDict):
    """A mistake, or possible mistake, in the configuration file."""

    path: Annotated[str, Meta(description="Its place, `FILE:LINE`.")]
    message: Annotated[str, Meta(description="Human-readable message.")]
    hint: Annotated[str | None, Meta(description="How to fix the problem.")]


class ReloadResult(TypedDict):
    """What a reload of the configuration file changed, or would change."""

    dry_run: Annotated[bool, Meta(description="Whether nothing was changed.")]
    changes: Annotated[list[JobChange], Meta(description="In the order in which they apply.")]
    failed: list[FailedChange]
    webhooks: list[WebhookChange]
    restart_required: Annotated[
        list[str],
        Meta(description="Changed settings of gafferd, and `endpoint:NAME`, that only a restart of gafferd applies."),
    ]
    warnings: Annotated[list[FileProblem], Meta(description="Possible mistakes in the file.")]


class ReloadState(TypedDict):
    """The outcome of the last reload, or of the start if there was none."""

    path: Annotated[str | None, Meta(description="The configuration file; null if gafferd runs without one.")]
    applied_at: Annotated[float | None, Meta(description="When the file was last applied, seconds since 1970.")]
    error: Annotated[str | None, Meta(description="Why the last reload changed nothing; null if it did not fail.")]
    problems: Annotated[list[FileProblem], Meta(description="The mistakes that it found in the file.")]
    failed: list[FailedChange]
    restart_required: list[str]
