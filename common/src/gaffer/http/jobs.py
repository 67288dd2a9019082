"""Jobs and sessions: R-40 to R-55."""

from typing import Annotated, Any

import msgspec

from gaffer.config import ProcessConfig
from gaffer.errors import BadRequest, ConfigError
from gaffer.http.access import Scope
from gaffer.http.node import NodeHandler, config_for
from gaffer.http.routes import Route


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    """`scale`: how many more (an integer), or "+n", "-n", "=n"."""

    scale: int | str


class SignalBody(msgspec.Struct, forbid_unknown_fields=True):
    """`signal`: a number or a name."""

    signal: int | str


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """`graceful_timeout` in seconds; `env` is added to the job's own."""

    graceful_timeout: Annotated[float, msgspec.Meta(ge=0)] = 0
    env: dict[str, str] | None = None


class Sessions(NodeHandler):
    """R-40."""

    def get(self) -> None:
        self.reply({"sessions": [session for session in self.manager.sessions if self.grant.sees(session)]})


class Jobs(NodeHandler):
    """R-41."""

    def get(self) -> None:
        self.reply({"jobs": self.visible(self.manager.jobs())})


class SessionJobs(NodeHandler):
    """R-42 lists the jobs of a session; R-43 loads one, or with `{"jobs": [...]}` all of them or none."""

    def get(self) -> None:
        self.reply({"sessionid": self.sid, "jobs": self.manager.jobs(self.sid)})

    def post(self) -> None:
        session, body = self.sid, self.json_body()
        if "jobs" in body:
            self.manager.load_all(_configs_of(body, session), session)
        else:
            config = config_for(body, session)
            self.manager.load(config, session)
        self.done()


class Job(NodeHandler):
    """R-44 to R-47: `PUT` replaces the description, `DELETE` stops the job and forgets it.

    DELETE needs `define` like loading does: who may only control jobs could not bring it back.
    """

    def get(self) -> None:
        self.reply(self.manager.info(self.job))

    def put(self) -> None:
        config = self.replacement(self.json_body())
        self.manager.update(config, self.sid, start=config.start)
        self.done(201)

    def delete(self) -> None:
        self.manager.unload(self.job)
        self.done()


class JobStats(NodeHandler):
    """R-48."""

    def get(self) -> None:
        self.reply(self.manager.stats(self.job))


class JobNumprocesses(NodeHandler):
    """R-49, and R-50 to scale."""

    def get(self) -> None:
        self.reply({"numprocesses": self.manager.info(self.job)["max_processes"]})

    def post(self) -> None:
        self.reply({"numprocesses": self.manager.scale(self.job, self.body_as(ScaleBody).scale)})


class JobPids(NodeHandler):
    """R-51."""

    def get(self) -> None:
        self.reply({"pids": self.manager.info(self.job)["processes"]})


class JobSignal(NodeHandler):
    """R-52: the signal goes to every process of the job."""

    def post(self) -> None:
        self.manager.killall(self.job, self.body_as(SignalBody).signal)
        self.done(202)


class JobState(NodeHandler):
    """R-53: `1` or `0` as text. R-54: `1` starts, `0` stops, `2` reloads."""

    def get(self) -> None:
        self.reply_text("1" if self.manager.info(self.job)["active"] else "0")

    def post(self) -> None:
        commands = {b"1": self.manager.start_job, b"0": self.manager.stop_job, b"2": self.manager.reload}
        command = commands.get(self.body.strip())
        if command is None:
            raise BadRequest("the body is not a state", hint="send 1 to start, 0 to stop or 2 to reload")
        command(self.job)
        self.done(202)


class JobCommit(NodeHandler):
    """R-55: run one more process, once.

    `control` is enough for the command as it was loaded; `env` could make another one of it and needs `define`.
    """

    def post(self) -> None:
        body = self.body_as(CommitBody) if self.body.strip() else CommitBody()
        if body.env is not None:
            self.grant.require(Scope.DEFINE)
        self.reply({"pid": self.manager.commit(self.job, body.graceful_timeout, body.env)})


def _configs_of(body: dict[str, Any], session: str) -> list[ProcessConfig]:
    """The descriptions in `{"jobs": [...]}`; raises ConfigError with the mistakes of all of them."""
    jobs = body["jobs"]
    if not isinstance(jobs, list):
        raise BadRequest("jobs: expected a list of process descriptions", path="$.jobs")
    if unknown := sorted(set(body) - {"jobs"}):
        raise BadRequest(f"unknown key {unknown[0]!r} beside jobs", path=f"$.{unknown[0]}")
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
    Route("/sessions", Sessions, {"GET": _READ}),
    Route("/jobs", Jobs, {"GET": _READ}),
    Route("/jobs/{sid}", SessionJobs, {"GET": _READ, "POST": _DEFINE}),
    Route("/jobs/{sid}/{job}", Job, {"GET": _READ, "PUT": _DEFINE, "DELETE": _DEFINE}),
    Route("/jobs/{sid}/{job}/stats", JobStats, {"GET": _READ}),
    Route("/jobs/{sid}/{job}/numprocesses", JobNumprocesses, {"GET": _READ, "POST": _CONTROL}),
    Route("/jobs/{sid}/{job}/pids", JobPids, {"GET": _READ}),
    Route("/jobs/{sid}/{job}/signal", JobSignal, {"POST": _CONTROL}),
    Route("/jobs/{sid}/{job}/state", JobState, {"GET": _READ, "POST": _CONTROL}),
    Route("/jobs/{sid}/{job}/commit", JobCommit, {"POST": _CONTROL}),
]
