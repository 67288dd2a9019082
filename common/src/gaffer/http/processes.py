"""The routes of version 0.4: R-10 to R-28. A name is bare, `session.name` or `group:name`; digits are a process id."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gaffer.errors import BadRequest, ConfigError
from gaffer.http.access import Scope
from gaffer.http.base import NotFound
from gaffer.http.node import NodeHandler, config_for
from gaffer.http.routes import Route
from gaffer.names import DEFAULT_SESSION, parse_job_name, split_job_name
from gaffer.util import parse_signal_value

_COUNT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


class Processes(NodeHandler):
    """R-10 lists names, or pids with `running=true`; R-11 loads a job."""

    def get(self) -> None:
        if self.get_query_argument("running", "") in ("true", "1"):
            running = self.manager.running.items()
            self.reply([pid for pid, process in running if self.grant.sees(process.job.session)])
        else:
            self.reply([parse_job_name(name).display for name in self.visible(self.manager.jobs())])

    def post(self) -> None:
        body = self.json_body()
        name = body.get("name")
        session = split_job_name(name)[0] if isinstance(name, str) else DEFAULT_SESSION
        with _process_info():
            config = config_for(body, session)
        self.grant.require_session(session)
        self.manager.load(config, session)
        self.done()


class Template(NodeHandler):
    """R-12 to R-15."""

    def get(self) -> None:
        name = self.job
        self.reply({**self.manager.get(name).to_dict(), "name": name.display})

    def put(self) -> None:
        body = self.json_body()
        with _process_info():
            config = self.replacement(body)
        self.manager.update(config, self.job.session, start=config.start)
        self.done()

    def post(self) -> None:
        self.put()

    def delete(self) -> None:
        self.manager.unload(self.job)
        self.done()


class TemplatePids(NodeHandler):
    """R-16."""

    def get(self) -> None:
        self.done(pids=self.manager.info(self.job)["processes"])


class TemplateStart(NodeHandler):
    """R-17."""

    def post(self) -> None:
        self.manager.start_job(self.job)
        self.done()


class TemplateStop(NodeHandler):
    """R-18."""

    def post(self) -> None:
        self.manager.stop_job(self.job)
        self.done()


class TemplateRestart(NodeHandler):
    """R-19."""

    def post(self) -> None:
        self.manager.reload(self.job)
        self.done()


class TemplateAdd(NodeHandler):
    """R-20."""

    sign = "+"

    def post(self) -> None:
        count = self.params.get("count", "1")
        if not _COUNT.fullmatch(count):
            raise BadRequest(f"{count!r} is not a number of processes", reason="bad_value", hint="use 1 or more")
        self.done(numprocesses=self.manager.scale(self.job, self.sign + count))


class TemplateSub(TemplateAdd):
    """R-21."""

    sign = "-"


class TemplateSignal(NodeHandler):
    """R-22."""

    def post(self) -> None:
        self.manager.killall(self.job, _signal_of(self.params))
        self.done()


class UnknownResource(NodeHandler):
    """R-23."""

    def get(self) -> None:
        raise NotFound(f"there is no resource {self.request.path}", reason="resource_not_found")

    post = put = delete = get


class RunningProcess(NodeHandler):
    """R-24 to R-26: the template of the process with its `pid`, `os_pid` and `active`."""

    def get(self) -> None:
        process = self.process
        self.reply(
            {
                **process.config.to_dict(),
                "name": process.name,
                "pid": process.pid,
                "os_pid": process.os_pid,
                "active": process.active,
            }
        )

    def delete(self) -> None:
        self.manager.stop_process(self.process.pid)
        self.done()


class RunningProcessStop(NodeHandler):
    """R-26."""

    def post(self) -> None:
        self.manager.stop_process(self.process.pid)
        self.done()


class RunningProcessSignal(NodeHandler):
    """R-27."""

    def post(self) -> None:
        self.manager.kill(self.process.pid, _signal_of(self.params))
        self.done()


class Status(NodeHandler):
    """R-28."""

    def get(self) -> None:
        info = self.manager.info(self.job)
        self.reply(
            {
                "active": info["active"],
                "running": info["running"],
                "numprocesses": info["max_processes"],
                "max_processes": info["max_processes"],
            }
        )


@contextmanager
def _process_info() -> Iterator[None]:
    """Gives mistakes in a process description the code they had in 0.4."""
    try:
        yield
    except ConfigError as error:
        error.reason = "invalid_process_info"
        raise


def _signal_of(params: dict[str, str]) -> int:
    if "signal" not in params:
        raise BadRequest("the path ends without a signal", reason="no_signal_number", hint="use .../_signal/TERM")
    try:
        return parse_signal_value(params["signal"])
    except ValueError as error:
        raise BadRequest(str(error), reason="bad_value", hint="use a name such as TERM or its number") from None


_READ, _CONTROL, _DEFINE = Scope.READ, Scope.CONTROL, Scope.DEFINE
_ANY_METHOD = {"GET": _READ, "POST": _READ, "PUT": _READ, "DELETE": _READ}

ROUTES = [
    Route("/processes", Processes, {"GET": _READ, "POST": _DEFINE}),
    Route("/processes/{name}", Template, {"GET": _READ, "PUT": _DEFINE, "POST": _DEFINE, "DELETE": _DEFINE}),
    Route("/processes/{name}/_pids", TemplatePids, {"GET": _READ}),
    Route("/processes/{name}/_start", TemplateStart, {"POST": _CONTROL}),
    Route("/processes/{name}/_stop", TemplateStop, {"POST": _CONTROL}),
    Route("/processes/{name}/_restart", TemplateRestart, {"POST": _CONTROL}),
    Route("/processes/{name}/_add", TemplateAdd, {"POST": _CONTROL}),
    Route("/processes/{name}/_add/{count}", TemplateAdd, {"POST": _CONTROL}),
    Route("/processes/{name}/_sub", TemplateSub, {"POST": _CONTROL}),
    Route("/processes/{name}/_sub/{count}", TemplateSub, {"POST": _CONTROL}),
    Route("/processes/{name}/_signal", TemplateSignal, {"POST": _CONTROL}),
    Route("/processes/{name}/_signal/{signal}", TemplateSignal, {"POST": _CONTROL}),
    Route("/processes/{name}/{resource}", UnknownResource, _ANY_METHOD),
    Route("/processes/{pid:digits}", RunningProcess, {"GET": _READ, "DELETE": _CONTROL}),
    Route("/processes/{pid:digits}/_stop", RunningProcessStop, {"POST": _CONTROL}),
    Route("/processes/{pid:digits}/_signal", RunningProcessSignal, {"POST": _CONTROL}),
    Route("/processes/{pid:digits}/_signal/{signal}", RunningProcessSignal, {"POST": _CONTROL}),
    Route("/status/{name}", Status, {"GET": _READ}),
]
