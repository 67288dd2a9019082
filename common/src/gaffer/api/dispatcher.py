"""Execution of commands by name, as sent by websocket clients, on a manager.

One table defines the name, the parameters and the scope of each command; the scope is that of the HTTP route.
"""

import inspect
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol, get_args, get_origin

import msgspec

from gaffer.api.changes import Changer
from gaffer.errors import BadRequest, CommandError, CommandNotFound, GafferError, did_you_mean, quoted
from gaffer.http.access import ALL_SCOPES, Grant, Scope
from gaffer.http.batches import Batches
from gaffer.http.jsonbody import convert
from gaffer.jobs.names import DEFAULT_SESSION, JobName, parse_job_name, split_job_name
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gaffer.processes.stats import finish, measuring

Result = dict[str, Any]
Description = dict[str, Any]
Environment = dict[str, str] | None
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Steps = Generator[None, None, Result]
Function = Callable[..., Result | Steps]


class Command(NamedTuple):
    """The function of a command, the scope it requires, its parameters, and a struct that validates their types.

    The function also takes a manager and, if `takes_grant`, the grant of the caller. It `changes` what is desired of
    jobs, see Manager.rehearse.
    """

    function: Function
    scope: Scope
    signature: inspect.Signature
    arguments: type[msgspec.Struct]
    takes_grant: bool
    changes: bool


_EVERYTHING = Grant(ALL_SCOPES)

COMMANDS: dict[str, Command] = {}


class Audit(Protocol):
    """Called after each command that changes something, with the arguments as far as they are known."""

    def __call__(
        self,
        grant: Grant,
        name: str,
        arguments: Mapping[str, Any],
        began: float,
        error: GafferError | None,
        *,
        is_input: bool,
    ) -> None: ...


class Dispatcher:
    """The commands that `grant` permits, executed on a manager; by default all commands.

    `changer` makes the changes of jobs, by default at once. `audit` records what `run` changes.
    """

    def __init__(
        self,
        manager: Manager,
        grant: Grant = _EVERYTHING,
        changer: Changer | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.manager = manager
        self.grant = grant
        self._changer = changer
        self._audit = audit

    def execute(self, name: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Result:
        """Execute the command `name` with arguments decoded from JSON; the result consists of JSON types too.

        Raises CommandNotFound, Forbidden, CommandError (with the path of an invalid argument, such as `$.pid`),
        ConfigError (with a path below `$.config`), and the errors of the manager method.
        """
        call, _ = self._prepare(name, args, kwargs)
        begun = call()
        return finish(begun) if isinstance(begun, Generator) else begun

    async def run(self, batches: Batches, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Result:
        """Like `execute`, but let the loop run meanwhile: changes may take time, long commands run in `batches`."""
        found = COMMANDS.get(name)
        if found is None or found.scope is Scope.READ or self._audit is None:
            return await self._run(batches, name, args, kwargs)
        began = time.monotonic()
        failure: GafferError | None = GafferError("the command did not end")
        try:
            result = await self._run(batches, name, args, kwargs)
            failure = None
        except GafferError as error:
            failure = error
            raise
        finally:
            known = _arguments(found, args, kwargs)
            self._audit(self.grant, name, known, began, failure, is_input=found.function is send)
        return result

    async def _run(self, batches: Batches, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Result:
        call, changes = self._prepare(name, args, kwargs)
        begun = await self._changer.change(call) if changes and self._changer is not None else call()
        return await batches.run(lambda: begun) if isinstance(begun, Generator) else begun

    def _prepare(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None
    ) -> tuple[Callable[[], Result | Steps], bool]:
        """Return the call of a checked command, and whether it changes jobs."""
        found = COMMANDS.get(name)
        if found is None:
            raise CommandNotFound(f"there is no command {quoted(name)}", hint=did_you_mean(name, list(COMMANDS)))
        self.grant.require(found.scope)
        usage = f"use {name}{found.signature}"
        try:
            given = found.signature.bind(*args, **kwargs or {}).arguments
        except TypeError as error:
            raise CommandError(f"{name}: {error}", hint=usage) from None
        try:
            checked = msgspec.structs.asdict(convert(given, found.arguments))
        except BadRequest as error:
            raise CommandError(f"{name}: {error.message}", path=error.path, hint=usage) from None
        session = _session_of(self.manager, checked)
        if session is not None:
            self.grant.require_session(session)
        grant = {"grant": self.grant} if found.takes_grant else {}
        return partial(found.function, self.manager, **grant, **checked), found.changes


def command(scope: Scope, *, changes: bool = False) -> Callable[[Function], Function]:
    """Register a function of `manager`, optionally `grant`, and further arguments as the command of the same name.

    Parameters named `pid`, `name`, `config` and `sessionid` identify the session of a command. The grant is checked
    against it before the function is called; the function must restrict its result to what the grant covers.
    """

    def add(function: Function) -> Function:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name not in ("manager", "grant")]
        fields = [
            (p.name, p.annotation) if p.default is p.empty else (p.name, p.annotation, p.default) for p in parameters
        ]
        COMMANDS[function.__name__] = Command(
            function,
            scope,
            signature.replace(parameters=list(map(_readable, parameters)), return_annotation=signature.empty),
            msgspec.defstruct(function.__name__, fields),
            "grant" in signature.parameters,
            changes,
        )
        return function

    return add


def _arguments(found: Command, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call by name; none if they do not fit the command."""
    try:
        return found.signature.bind(*args, **kwargs).arguments
    except TypeError:
        return {}


def _readable(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter for display, without the constraints of its type."""
    annotation = parameter.annotation
    return parameter.replace(annotation=get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation)


def _session_of(manager: Manager, arguments: Mapping[str, Any]) -> str | None:
    """Return the session of a command; None if it concerns all sessions or its arguments are invalid."""
    if "pid" in arguments:
        return manager.get_process(arguments["pid"]).job.session
    name = arguments["config"].get("name") if "config" in arguments else arguments.get("name")
    session: str | None = arguments.get("sessionid")
    return split_job_name(name, session or DEFAULT_SESSION)[0] if isinstance(name, str) else session


@command(Scope.READ)
def sessions(manager: Manager, grant: Grant) -> Result:
    """List the sessions."""
    return {"sessions": [session for session in manager.sessions if grant.sees(session)]}


@command(Scope.READ)
def jobs(manager: Manager, grant: Grant, sessionid: str | None = None) -> Result:
    """List the qualified names of all jobs, or of those in a session."""
    names = [name for name in manager.jobs(sessionid) if grant.sees(parse_job_name(name).session)]
    found: Result = {"jobs": names}
    return found if sessionid is None else {**found, "sessionid": sessionid}


@command(Scope.READ)
def pids(manager: Manager, grant: Grant, name: str | None = None) -> Result:
    """List the pids of all processes, or of those of a job."""
    return {"pids": [process.pid for process in manager.list(name) if grant.sees(process.job.session)]}


@command(Scope.DEFINE, changes=True)
def load(
    manager: Manager,
    config: Description,
    sessionid: str | None = None,
    env: Environment = None,
    start: bool = True,
) -> Result:
    """Load a job."""
    manager.load(_config(config), sessionid, env, start)
    return {"ok": True}


@command(Scope.DEFINE, changes=True)
def unload(manager: Manager, name: str, sessionid: str | None = None) -> Result:
    """Stop and remove a job."""
    manager.unload(name, sessionid)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def reload(manager: Manager, name: str, sessionid: str | None = None) -> Result:
    """Send the reload signal of a job to its processes; without one, replace them, resetting their number."""
    manager.reload(name, sessionid)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def restart_job(manager: Manager, name: str, rolling: bool = False) -> Result:
    """Replace all processes of a job, at once or a few at a time."""
    manager.restart_job(name, rolling)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def rollback(manager: Manager, name: str, to: int | None = None) -> Result:
    """Return to an earlier definition of a job, by default the one before the current."""
    return {"ok": True, "generation": manager.rollback(name, to)}


@command(Scope.READ)
def exits(manager: Manager, name: str) -> Result:
    """Return the last exits of the processes of a job, newest first."""
    return {"exits": manager.exits(name)}


@command(Scope.DEFINE, changes=True)
def update(
    manager: Manager,
    config: Description,
    sessionid: str | None = None,
    env: Environment = None,
    start: bool = False,
) -> Result:
    """Replace the config of a job."""
    manager.update(_config(config), sessionid, env, start)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def start_job(manager: Manager, name: str) -> Result:
    """Start a job."""
    manager.start_job(name)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def stop_job(manager: Manager, name: str) -> Result:
    """Stop a job."""
    manager.stop_job(name)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def disable(manager: Manager, name: str, reason: str, seconds: float | None = None) -> Result:
    """Stop a job and keep it from running."""
    manager.disable(name, reason, seconds)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def enable(manager: Manager, name: str) -> Result:
    """Undo `disable`."""
    manager.enable(name)
    return {"ok": True}


@command(Scope.CONTROL, changes=True)
def scale(manager: Manager, name: str, n: int | str) -> Result:
    """Change the number of processes of a job."""
    return {"numprocesses": manager.scale(name, n)}


@command(Scope.READ)
def info(manager: Manager, grant: Grant, name: str) -> Result:
    """Return the state of a job."""
    return {"info": info_for(grant, manager, name)}


@command(Scope.READ)
def stats(manager: Manager, name: str) -> Steps:
    """Return the stats of a job."""
    [found] = yield from manager.measuring([name])
    return {"stats": found}


@command(Scope.CONTROL)
def stopall(manager: Manager, name: str) -> Result:
    """Stop all processes of a job, which then replaces them."""
    manager.stopall(name)
    return {"ok": True}


@command(Scope.CONTROL)
def killall(manager: Manager, name: str, sig: int | str) -> Result:
    """Send a signal to all processes of a job."""
    manager.killall(name, sig)
    return {"ok": True}


@command(Scope.CONTROL)
def commit(manager: Manager, grant: Grant, name: str, graceful_timeout: Seconds = 0, env: Environment = None) -> Result:
    """Run one additional process of a job once. `env` can change the command, so it requires `define`."""
    if env is not None:
        grant.require(Scope.DEFINE)
    return {"ok": True, "pid": manager.commit(name, graceful_timeout, env)}


@command(Scope.READ)
def process_info(manager: Manager, grant: Grant, pid: int) -> Result:
    """Return the state of a process."""
    return {"info": grant.shown(manager.get_process(pid).info)}


@command(Scope.READ)
def process_stats(manager: Manager, pid: int) -> Steps:
    """Return the stats of a process."""
    [found] = yield from measuring([manager.get_process(pid)])
    return {"stats": found}


@command(Scope.CONTROL)
def stop_process(manager: Manager, pid: int) -> Result:
    """Stop a process, which its job then replaces."""
    manager.stop_process(pid)
    return {"ok": True}


@command(Scope.CONTROL)
def send(manager: Manager, pid: int, lines: str | list[str], stream: str | None = None) -> Result:
    """Write to the input of a process."""
    manager.send(pid, lines, stream)
    return {"ok": True}


@command(Scope.CONTROL)
def kill(manager: Manager, pid: int, sig: int | str) -> Result:
    """Send a signal to a process."""
    manager.kill(pid, sig)
    return {"ok": True}


def info_for(grant: Grant, manager: Manager, name: JobName | str) -> dict[str, Any]:
    """Return `Manager.info` of a job; the values of `env` are None unless the grant reveals them."""
    found = manager.info(name)
    return {**found, "config": grant.shown(found["config"])}


def _config(description: Description) -> ProcessConfig:
    return ProcessConfig.from_dict(description, path="$.config")
