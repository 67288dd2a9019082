"""The routes of version 0.4. A name is bare, `session.name` or `group:name`; digits are a pid assigned by Gaffer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec

from gaffer.api.node import NodeHandler, config_for
from gaffer.api.rollouts import RestartQuery
from gaffer.errors import BadRequest, ConfigError, JobDisabled, NotStored, PortConflict, ProcessConflict
from gaffer.http.access import Scope
from gaffer.http.base import NotFound
from gaffer.http.error_body import ErrorBody
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.jobs.names import DEFAULT_SESSION, parse_job_name, split_job_name
from gaffer.runtime.signals import parse_signal_value
from gaffer.schemas import bodies, responses
from gaffer.schemas.bodies import DoneProcessCount
from gaffer.schemas.common import Done
from gaffer.schemas.job import JobDescription, JobReplacement, JobSettings, RunningProcess

_COUNT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


class ProcessesQuery(msgspec.Struct):
    """The content of the list."""

    running: Annotated[str, msgspec.Meta(description="`true` or `1` to list pids instead of names.")] = ""


class ProcessesHandler(NodeHandler):
    """All jobs."""

    @operation((list[str], list[int]), query=ProcessesQuery)
    def get(self) -> None:
        """Return a list of the job names, bare in session `default`; with `running=true` a list of pids."""
        if self.get_query_argument("running", "") in ("true", "1"):
            running = self.manager.running.items()
            self.reply([pid for pid, process in running if self.grant.sees(process.job.session)])
        else:
            self.reply([parse_job_name(name).display for name in self.visible(self.manager.jobs())])

    @operation(Done, body=JobDescription, errors=(ProcessConflict, PortConflict, NotStored))
    async def post(self) -> None:
        """Load the job described by the body, and start it unless `start` is false. Its name may be `session.name`."""
        body = self.json_body()
        name = body.get("name")
        session = split_job_name(name)[0] if isinstance(name, str) else DEFAULT_SESSION
        with _process_info():
            config = config_for(body, session)
        self.grant.require_session(session)
        await self.change(self.manager.load, config, session)
        self.done()


class TemplateHandler(NodeHandler):
    """One job."""

    @operation(JobSettings)
    def get(self) -> None:
        """Return all settings of the job. Without the scope `define` the values of `env` are null."""
        name = self.job
        self.reply({**self.grant.shown(self.manager.get(name).to_dict()), "name": name.display})

    @operation(Done, body=JobReplacement, errors=(PortConflict, NotStored))
    async def put(self) -> None:
        """Replace the settings of the job by those in the body."""
        body = self.json_body()
        with _process_info():
            config = self.replacement(body)
        await self.change(self.manager.update, config, self.job.session, start=bool(config.start))
        self.done()

    @operation(Done, body=JobReplacement, errors=(PortConflict, NotStored))
    async def post(self) -> None:
        """Same as PUT."""
        await self.put()

    @operation(Done, errors=(NotStored,))
    async def delete(self) -> None:
        """Stop and remove the job."""
        await self.change(self.manager.unload, self.job)
        self.done()


class TemplatePidsHandler(NodeHandler):
    """The processes of a job."""

    @operation(bodies.DonePidList)
    def get(self) -> None:
        """Return `{"ok": true, "pids": [...]}`."""
        self.done(pids=self.manager.pids(self.job))


class TemplateStartHandler(NodeHandler):
    """Starting a job."""

    @operation(Done, errors=(PortConflict, JobDisabled, NotStored))
    async def post(self) -> None:
        """Start the job."""
        await self.change(self.manager.start_job, self.job)
        self.done()


class TemplateStopHandler(NodeHandler):
    """Stopping a job."""

    @operation(Done, errors=(NotStored,))
    async def post(self) -> None:
        """Stop the job."""
        await self.change(self.manager.stop_job, self.job)
        self.done()


class TemplateRestartHandler(NodeHandler):
    """Restarting a job."""

    @operation(Done, query=RestartQuery, errors=(JobDisabled, NotStored))
    async def post(self) -> None:
        """Replace all processes of the job, resetting their number to the configured one."""
        await self.change(self.manager.restart_job, self.job, rolling=self.flag("rolling"), reset=True)
        self.done()


class TemplateAddHandler(NodeHandler):
    """Scaling a job."""

    sign = "+"

    @operation(DoneProcessCount, errors=(PortConflict, NotStored))
    async def post(self) -> None:
        """Add (`_add`) or remove (`_sub`) a number of processes, 1 by default. Returns `{"ok", "numprocesses"}`."""
        count = self.params.get("count", "1")
        if not _COUNT.fullmatch(count):
            raise BadRequest(
                f"invalid number of processes {count!r}", reason="bad_value", hint="use a number from 1 to 99999"
            )
        self.done(numprocesses=await self.change(self.manager.scale, self.job, self.sign + count))


class TemplateSubHandler(TemplateAddHandler):
    """Scaling a job down."""

    sign = "-"


class TemplateSignalHandler(NodeHandler):
    """Signals for a job."""

    @operation(Done)
    def post(self) -> None:
        """Send the signal, a number or a name, to each process of the job."""
        self.manager.killall(self.job, _signal_of(self.params))
        self.done()


class UnknownResourceHandler(NodeHandler):
    """Unknown resources of a job."""

    @operation(ErrorBody, status=404)
    def get(self) -> None:
        """Return 404 `resource_not_found`."""
        raise NotFound(f"there is no resource {self.request.path}", reason="resource_not_found")

    post = put = delete = get


class RunningProcessHandler(NodeHandler):
    """One process."""

    @operation(RunningProcess)
    def get(self) -> None:
        """Return the settings of the job, and `pid`, `os_pid`, `active`.

        Without the scope `define` the values of `env` are null.
        """
        process = self.process
        self.reply(
            {
                **self.grant.shown(process.config.to_dict()),
                "name": process.name,
                "pid": process.pid,
                "os_pid": process.os_pid,
                "active": process.active,
            }
        )

    @operation(Done)
    def delete(self) -> None:
        """Stop the process, which its job then replaces."""
        self.manager.stop_process(self.process.pid)
        self.done()


class RunningProcessStopHandler(NodeHandler):
    """Stopping a process."""

    @operation(Done)
    def post(self) -> None:
        """Stop the process, which its job then replaces."""
        self.manager.stop_process(self.process.pid)
        self.done()


class RunningProcessSignalHandler(NodeHandler):
    """Signals for a process."""

    @operation(Done)
    def post(self) -> None:
        """Send the signal, a number or a name."""
        self.manager.kill(self.process.pid, _signal_of(self.params))
        self.done()


class StatusHandler(NodeHandler):
    """Status of a job."""

    @operation(responses.JobStatus)
    def get(self) -> None:
        """Return `{"active", "running", "numprocesses", "max_processes"}`."""
        self.reply(self.manager.status(self.job))


@contextmanager
def _process_info() -> Iterator[None]:
    """Give errors in a job description the code they had in version 0.4."""
    try:
        yield
    except ConfigError as error:
        error.reason = "invalid_process_info"
        raise


def _signal_of(params: dict[str, str]) -> int:
    if "signal" not in params:
        raise BadRequest("missing signal in the path", reason="no_signal_number", hint="use .../_signal/TERM")
    try:
        return parse_signal_value(params["signal"])
    except ValueError as error:
        raise BadRequest(str(error), reason="bad_value", hint="use a name such as TERM, or a number") from None


_READ, _CONTROL, _DEFINE = Scope.READ, Scope.CONTROL, Scope.DEFINE
_ANY_METHOD = {"GET": _READ, "POST": _READ, "PUT": _READ, "DELETE": _READ}

ROUTES = [
    Route("/processes", ProcessesHandler, {"GET": _READ, "POST": _DEFINE}),
    Route("/processes/{name}", TemplateHandler, {"GET": _READ, "PUT": _DEFINE, "POST": _DEFINE, "DELETE": _DEFINE}),
    Route("/processes/{name}/_pids", TemplatePidsHandler, {"GET": _READ}),
    Route("/processes/{name}/_start", TemplateStartHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_stop", TemplateStopHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_restart", TemplateRestartHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_add", TemplateAddHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_add/{count}", TemplateAddHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_sub", TemplateSubHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_sub/{count}", TemplateSubHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_signal", TemplateSignalHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/_signal/{signal}", TemplateSignalHandler, {"POST": _CONTROL}),
    Route("/processes/{name}/{resource}", UnknownResourceHandler, _ANY_METHOD),
    Route("/processes/{pid:digits}", RunningProcessHandler, {"GET": _READ, "DELETE": _CONTROL}),
    Route("/processes/{pid:digits}/_stop", RunningProcessStopHandler, {"POST": _CONTROL}),
    Route("/processes/{pid:digits}/_signal", RunningProcessSignalHandler, {"POST": _CONTROL}),
    Route("/processes/{pid:digits}/_signal/{signal}", RunningProcessSignalHandler, {"POST": _CONTROL}),
    Route("/status/{name}", StatusHandler, {"GET": _READ}),
]
