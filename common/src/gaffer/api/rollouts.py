"""Replacing the processes of a job, its earlier definitions, and how its processes ended."""

from typing import Annotated, Literal

import msgspec

from gaffer.api.node import NodeHandler
from gaffer.errors import BadRequest, GenerationNotFound, JobDisabled, NotStored, PortConflict
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas import bodies, responses
from gaffer.schemas.bodies import DisableBody
from gaffer.schemas.common import Done

_MAX_DIGITS = 9  # of a generation

Flag = Literal["true", "false"]


class RestartQuery(msgspec.Struct):
    """How to replace processes."""

    rolling: Annotated[
        Flag, msgspec.Meta(description="`true`: a few at a time, as `max_unavailable` and `surge` allow.")
    ] = "false"


class JobRestartHandler(NodeHandler):
    """Restarting a job."""

    @operation(Done, status=202, query=RestartQuery, errors=(PortConflict, JobDisabled, NotStored))
    async def post(self) -> None:
        """Replace all processes of the job, at once or, with `rolling=true`, a few at a time. Returns 202.

        A rolling restart replaces a ready process only while enough others are ready. It stops when a new process does
        not become ready; `rollout` in the info of the job shows its progress. A further one takes its place. A job that
        has completed or failed is started.
        """
        await self.change(self.manager.restart_job, self.job, rolling=self.flag("rolling"))
        self.done(202)


class JobReloadHandler(NodeHandler):
    """Reloading a job."""

    @operation(Done, status=202, errors=(PortConflict, JobDisabled, NotStored))
    async def post(self) -> None:
        """Send the `reload_signal` of the job to its processes; without one, replace them. Returns 202."""
        await self.change(self.manager.reload, self.job)
        self.done(202)


class JobDisableHandler(NodeHandler):
    """Keeping a job from running."""

    @operation(Done, status=202, body=DisableBody, errors=(NotStored,))
    async def post(self) -> None:
        """Stop the job and keep it from running for `for` seconds, or until it is enabled. Returns 202.

        The body is `{"reason", "for"}`; the reason is shown in the info of the job. The job keeps its desired state,
        can be scaled and configured, and runs again once it is enabled. It stays disabled over reloads and restarts.
        """
        body = self.body_as(DisableBody)
        await self.change(self.manager.disable, self.job, body.reason, body.seconds)
        self.done(202)


class JobEnableHandler(NodeHandler):
    """Letting a disabled job run again."""

    @operation(Done, status=202, errors=(NotStored,))
    async def post(self) -> None:
        """Let a disabled job run again, if it was started. Returns 202, also for a job that is not disabled."""
        await self.change(self.manager.enable, self.job)
        self.done(202)


class RollbackQuery(msgspec.Struct):
    """The definition to return to."""

    to: Annotated[
        str, msgspec.Meta(pattern="^[0-9]{0,9}$", description="Its generation; by default, that before the current.")
    ] = ""


class JobRollbackHandler(NodeHandler):
    """Earlier definitions of a job."""

    @operation(
        bodies.DoneGeneration, status=202, query=RollbackQuery, errors=(GenerationNotFound, PortConflict, NotStored)
    )
    async def post(self) -> None:
        """Return to an earlier definition of the job, which becomes a new generation. Returns 202 and `{"generation"}`.

        Processes are replaced a few at a time, as in a rolling restart; 409 `no_such_generation` if it is not kept.
        """
        to = self.get_query_argument("to", "")
        if to and not (to.isascii() and to.isdecimal() and len(to) <= _MAX_DIGITS):
            raise BadRequest(f"invalid value to={to!r}", reason="bad_value", hint="use the number of a generation")
        generation = await self.change(self.manager.rollback, self.job, int(to) if to else None)
        self.done(202, generation=generation)


class JobDefinitionsHandler(NodeHandler):
    """The last definitions of a job."""

    @operation(responses.DefinitionList)
    def get(self) -> None:
        """Return `{"definitions": [{"generation", "config"}]}`, newest first: the last 10 definitions of the job.

        The first one is the current. Without the scope `define` the values of `env` are null.
        """
        kept = self.manager.definitions(self.job)
        self.reply(
            {
                "definitions": [
                    {"generation": number, "config": self.grant.shown(config.to_dict())} for number, config in kept
                ]
            }
        )


class JobExitsHandler(NodeHandler):
    """How the processes of a job ended."""

    @operation(responses.ExitList)
    def get(self) -> None:
        """Return `{"exits": [...]}`, newest first: the last 20 exits and failed starts of the job.

        Each has `pid`, `slot`, `exit_code`, `term_signal`, `reason`, `oom`, `uptime`, `at`, `output` and `rusage`. An
        `exit_code` of null with a `term_signal` of null is unknown.
        """
        self.reply({"exits": self.manager.exits(self.job)})


ROUTES = [
    Route("/jobs/{sid}/{job}/restart", JobRestartHandler, {"POST": Scope.CONTROL}),
    Route("/jobs/{sid}/{job}/reload", JobReloadHandler, {"POST": Scope.CONTROL}),
    Route("/jobs/{sid}/{job}/disable", JobDisableHandler, {"POST": Scope.CONTROL}),
    Route("/jobs/{sid}/{job}/enable", JobEnableHandler, {"POST": Scope.CONTROL}),
    Route("/jobs/{sid}/{job}/rollback", JobRollbackHandler, {"POST": Scope.CONTROL}),
    Route("/jobs/{sid}/{job}/definitions", JobDefinitionsHandler, {"GET": Scope.READ}),
    Route("/jobs/{sid}/{job}/exits", JobExitsHandler, {"GET": Scope.READ}),
]
