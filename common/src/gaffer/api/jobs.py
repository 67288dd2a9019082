"""Jobs and sessions."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, get_args

import msgspec

from gaffer.api.dispatcher import info_for
from gaffer.api.node import NodeHandler, config_for
from gaffer.api.rollouts import RestartQuery
from gaffer.errors import (
    BadRequest,
    ConfigError,
    JobDisabled,
    NotStored,
    PortConflict,
    ProcessConflict,
    ProcessNotFound,
    quoted,
)
from gaffer.http.access import Scope
from gaffer.http.operations import TEXT, operation
from gaffer.http.routes import Route
from gaffer.jobs.names import JobName
from gaffer.process import ProcessConfig
from gaffer.schemas import bodies, responses
from gaffer.schemas.bodies import CommitBody, ProcessCount, ScaleBody, SignalBody
from gaffer.schemas.common import Done
from gaffer.schemas.job import JobDescription, JobDescriptions, JobReplacement
from gaffer.schemas.stats import JobStats


class SessionsHandler(NodeHandler):
    """The sessions that have jobs."""

    @operation(bodies.SessionList)
    def get(self) -> None:
        """Return `{"sessions": [...]}`."""
        self.reply({"sessions": [session for session in self.manager.sessions if self.grant.sees(session)]})


View = Literal["names", "info", "stats"]


class JobsQuery(msgspec.Struct):
    """What to return of each job."""

    view: Annotated[
        View,
        msgspec.Meta(description="`names`: its name; `info`: its info; `stats`: its info and resource usage."),
    ] = "names"


class JobsHandler(NodeHandler):
    """The jobs of all sessions."""

    @operation((bodies.JobList, responses.JobInfoList, responses.MeasuredJobList), query=JobsQuery)
    async def get(self) -> None:
        """Return the qualified names as `{"jobs": ["shop.web", ...]}`.

        With `view=info`, jobs are returned as by `/jobs/{sid}/{job}`, with `view=stats` also with their `stats`.
        """
        self.reply({"jobs": await self.jobs_of(None)})

    async def jobs_of(self, session: str | None) -> "list[str] | list[dict[str, Any]]":
        """Return the jobs of a session, or of all, as the query asks; raise NotFound if it has none."""
        view = self.get_query_argument("view", "names")
        if view not in get_args(View):
            raise BadRequest(f"invalid value view={quoted(view)}", reason="bad_value", hint="use names, info or stats")
        names = self.visible(self.manager.jobs(session))
        if view == "names":
            return names
        refreshing = self.manager.drift.refresh()
        if refreshing is not None:
            await refreshing
        return await self.application.batches.run(lambda: self._views(session, measured=view == "stats"))

    def _views(self, session: str | None, *, measured: bool) -> Generator[None, None, list[dict[str, Any]]]:
        names = self.visible(self.manager.jobs(session))
        stats = (yield from self.manager.measuring(names)) if measured else ()
        views = []
        for name in names:
            with suppress(ProcessNotFound):  # unloaded in the meantime
                views.append(info_for(self.grant, self.manager, name))
            yield
        usage = {each["name"]: each for each in stats}
        return [{**view, "stats": usage[view["name"]]} for view in views] if measured else views


class SessionJobsHandler(JobsHandler):
    """The jobs of a session."""

    @operation((bodies.SessionJobList, responses.SessionJobInfoList, responses.MeasuredSessionJobList), query=JobsQuery)
    async def get(self) -> None:
        """Return `{"sessionid", "jobs": [...]}`; 404 if the session has no jobs. The query is that of `/jobs`."""
        self.reply({"sessionid": self.sid, "jobs": await self.jobs_of(self.sid)})

    @operation(Done, body=(JobDescription, JobDescriptions), errors=(ProcessConflict, PortConflict, NotStored))
    async def post(self) -> None:
        """Load the job described by the body (see the settings of a job), and start it unless `start` is false.

        `{"jobs": [...]}` loads all of several jobs or none. Returns `{"ok": true}`; 409 if a name is already in use.
        """
        session, body = self.sid, self.json_body()
        if "jobs" in body:
            await self.change(self.manager.load_all, _configs_of(body, session), session)
        else:
            config = config_for(body, session)
            await self.change(self.manager.load, config, session)
        self.done()


class JobHandler(NodeHandler):
    """One job."""

    @operation(responses.JobInfo)
    def get(self) -> Awaitable[None] | None:
        """Return the state and the config of the job.

        The fields are `name`, `active`, `running`, `running_out`, `max_processes`, `processes`, `config`, `state`,
        `reason`, `disabled`, `restarts`, `instances`, `last_exit`, `generation`, `rollout`, `last_run`, `next_run`,
        `sockets` and `drift`. Without the scope `define` the values of `env` in `config` are null.
        """
        refreshing = self.manager.drift.refresh()
        if refreshing is not None:
            return self._answer_after(refreshing)
        self._answer()
        return None

    async def _answer_after(self, refreshing: Awaitable[None]) -> None:
        await refreshing
        self._answer()

    def _answer(self) -> None:
        job, grant = self.job, self.grant
        self.finish(
            self.application.response_cache.get((job, grant.reveals_env), lambda: info_for(grant, self.manager, job))
        )

    @operation(Done, status=201, body=JobReplacement, query=RestartQuery, errors=(PortConflict, NotStored))
    async def put(self) -> None:
        """Replace the settings of the job by those in the body, and start it unless `start` is false. Returns 201.

        If the change requires new processes, they replace the old ones at once, or a few at a time with `rolling=true`
        and for jobs with `surge` or `auto_rollback`.
        """
        config = self.replacement(self.json_body())
        await self.change(self.manager.update, config, self.sid, start=bool(config.start), rolling=self.flag("rolling"))
        self.done(201)

    @operation(Done, errors=(NotStored,))
    async def delete(self) -> None:
        """Stop and remove the job.

        Requires the scope `define`, like loading: with `control` alone the job could not be restored.
        """
        await self.change(self.manager.unload, self.job)
        self.done()


class JobStatsHandler(NodeHandler):
    """Resource usage of a job."""

    @operation(JobStats)
    async def get(self) -> None:
        """Return `{"name", "stats", "mem", "max_mem", "min_mem", "cpu", "max_cpu", "min_cpu"}`, in percent, or N/A."""
        job = self.job
        [answer] = await self.application.batches.run(lambda: self.manager.measuring([job]))
        self.reply(answer)


class JobNumprocessesHandler(NodeHandler):
    """Desired number of processes of a job."""

    @operation(ProcessCount)
    def get(self) -> None:
        """Return `{"numprocesses"}`."""
        self.reply({"numprocesses": self.manager.status(self.job)["numprocesses"]})

    @operation(ProcessCount, body=ScaleBody, errors=(PortConflict, NotStored))
    async def post(self) -> None:
        """Scale the job by `{"scale": n}`: a number to add, or "+n", "-n", "=n". Returns `{"numprocesses"}`."""
        count = await self.change(self.manager.scale, self.job, self.body_as(ScaleBody).scale)
        self.reply({"numprocesses": count})


class JobPidsHandler(NodeHandler):
    """The processes of a job."""

    @operation(bodies.PidList)
    def get(self) -> None:
        """Return `{"pids": [...]}`."""
        self.reply({"pids": self.manager.pids(self.job)})


class JobSignalHandler(NodeHandler):
    """Signals for a job."""

    @operation(Done, status=202, body=SignalBody)
    def post(self) -> None:
        """Send a signal to each process of the job: `{"signal": n}` with a number or a name. Returns 202."""
        self.manager.killall(self.job, self.body_as(SignalBody).signal)
        self.done(202)


class JobStateHandler(NodeHandler):
    """Desired state of a job."""

    @operation(Literal["0", "1"], media=TEXT)
    def get(self) -> None:
        """Return the text `1`, or `0` if the job is stopped or has been given up."""
        self.reply_text("1" if self.manager.status(self.job)["active"] else "0")

    @operation(
        Done, status=202, body=Literal["0", "1", "2"], body_media=TEXT, errors=(PortConflict, JobDisabled, NotStored)
    )
    async def post(self) -> None:
        """Start the job with the text `1`, stop it with `0`, replace its processes with `2`. Returns 202."""
        commands: dict[bytes, Callable[[JobName], None]] = {
            b"1": self.manager.start_job,
            b"0": self.manager.stop_job,
            b"2": partial(self.manager.restart_job, reset=True),
        }
        command = commands.get(self.body.strip())
        if command is None:
            raise BadRequest("invalid state in the body", hint="send 1 to start, 0 to stop or 2 to reload")
        await self.change(command, self.job)
        self.done(202)


class JobCommitHandler(NodeHandler):
    """Processes of a job that run once."""

    @operation(bodies.NewPid, body=CommitBody | None, errors=(JobDisabled,))
    def post(self) -> None:
        """Run one additional process of the job once; `{"graceful_timeout", "env"}` are optional. Returns `{"pid"}`.

        Requires the scope `control`, and `define` with `env`, which can change the command.
        """
        body = self.body_as(CommitBody) if self.body.strip() else CommitBody()
        if body.env is not None:
            self.grant.require(Scope.DEFINE)
        self.reply({"pid": self.manager.commit(self.job, body.graceful_timeout or 0, body.env)})


def _configs_of(body: dict[str, Any], session: str) -> list[ProcessConfig]:
    """Return the configs in `{"jobs": [...]}`; raises ConfigError with the problems of all jobs."""
    jobs = body["jobs"]
    if not isinstance(jobs, list):
        raise BadRequest("jobs: expected a list of job descriptions", path="$.jobs")
    if unknown := sorted(set(body) - {"jobs"}):
        raise BadRequest(f"unknown key {unknown[0]!r}", path=f"$.{unknown[0]}")
    configs, problems = [], []
    for index, job in enumerate(jobs):
        try:
            configs.append(config_for(job, session, path=f"$.jobs[{index}]"))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return configs


_READ, _CONTROL, _DEFINE = Scope.READ, Scope.CONTROL, Scope.DEFINE

ROUTES = [
    Route("/sessions", SessionsHandler, {"GET": _READ}),
    Route("/jobs", JobsHandler, {"GET": _READ}),
    Route("/jobs/{sid}", SessionJobsHandler, {"GET": _READ, "POST": _DEFINE}),
    Route("/jobs/{sid}/{job}", JobHandler, {"GET": _READ, "PUT": _DEFINE, "DELETE": _DEFINE}),
    Route("/jobs/{sid}/{job}/stats", JobStatsHandler, {"GET": _READ}),
    Route("/jobs/{sid}/{job}/numprocesses", JobNumprocessesHandler, {"GET": _READ, "POST": _CONTROL}),
    Route("/jobs/{sid}/{job}/pids", JobPidsHandler, {"GET": _READ}),
    Route("/jobs/{sid}/{job}/signal", JobSignalHandler, {"POST": _CONTROL}),
    Route("/jobs/{sid}/{job}/state", JobStateHandler, {"GET": _READ, "POST": _CONTROL}),
    Route("/jobs/{sid}/{job}/commit", JobCommitHandler, {"POST": _CONTROL}),
]
