"""Commands by name, as clients of websockets send them, turned into calls of a manager (SUP-06, SJS-20)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gaffer.config import ProcessConfig
from gaffer.errors import BadRequest, CommandError, CommandNotFound
from gaffer.http.jsonbody import convert
from gaffer.manager import Manager
from gaffer.rules import did_you_mean

Result = dict[str, Any]
Description = dict[str, Any]
Environment = dict[str, str] | None


class Command(NamedTuple):
    """What executes a command, its parameters, and a struct that checks their types."""

    function: Callable[..., Result]
    signature: inspect.Signature
    arguments: type[msgspec.Struct]


COMMANDS: dict[str, Command] = {}


class Controller:
    """Executes commands on a manager."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager

    def execute(self, name: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Result:
        """Execute the command `name` with arguments decoded from JSON; the result is of JSON types too.

        Raises CommandNotFound, CommandError (with the path of a wrong argument, as in `$.pid`), ConfigError (with a
        path below `$.config`), and what the manager raises.
        """
        found = COMMANDS.get(name)
        if found is None:
            raise CommandNotFound(f"there is no command {name!r}", hint=did_you_mean(name, list(COMMANDS)))
        usage = f"use {name}{found.signature}"
        try:
            given = found.signature.bind(*args, **kwargs or {}).arguments
        except TypeError as error:
            raise CommandError(f"{name}: {error}", hint=usage) from None
        try:
            checked = convert(given, found.arguments)
        except BadRequest as error:
            raise CommandError(f"{name}: {error.message}", path=error.path, hint=usage) from None
        return found.function(self.manager, **msgspec.structs.asdict(checked))


def command(function: Callable[..., Result]) -> Callable[..., Result]:
    """Make a function of a manager and arguments the command of its name."""
    name = function.__name__
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "manager"]
    fields = [(p.name, p.annotation) if p.default is p.empty else (p.name, p.annotation, p.default) for p in parameters]
    COMMANDS[name] = Command(
        function,
        signature.replace(parameters=parameters, return_annotation=signature.empty),
        msgspec.defstruct(name, fields),
    )
    return function


@command
def sessions(manager: Manager) -> Result:
    """The sessions."""
    return {"sessions": manager.sessions}


@command
def jobs(manager: Manager, sessionid: str | None = None) -> Result:
    """The qualified names of all jobs, or of a session's."""
    found: Result = {"jobs": manager.jobs(sessionid)}
    return found if sessionid is None else {**found, "sessionid": sessionid}


@command
def pids(manager: Manager, name: str | None = None) -> Result:
    """The ids of all processes, or of a job's."""
    return {"pids": manager.pids(name)}


@command
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


@command
def unload(manager: Manager, name: str, sessionid: str | None = None) -> Result:
    """Stop a job and forget it."""
    manager.unload(name, sessionid)
    return {"ok": True}


@command
def reload(manager: Manager, name: str, sessionid: str | None = None) -> Result:
    """Replace all processes of a job, as many as its config says."""
    manager.reload(name, sessionid)
    return {"ok": True}


@command
def update(
    manager: Manager,
    config: Description,
    sessionid: str | None = None,
    env: Environment = None,
    start: bool = False,
) -> Result:
    """Give a job a new config."""
    manager.update(_config(config), sessionid, env, start)
    return {"ok": True}


@command
def start_job(manager: Manager, name: str) -> Result:
    """Start a job."""
    manager.start_job(name)
    return {"ok": True}


@command
def stop_job(manager: Manager, name: str) -> Result:
    """Stop a job."""
    manager.stop_job(name)
    return {"ok": True}


@command
def scale(manager: Manager, name: str, n: int | str) -> Result:
    """Change the number of processes of a job."""
    return {"numprocesses": manager.scale(name, n)}


@command
def info(manager: Manager, name: str) -> Result:
    """What there is to know about a job."""
    return {"info": manager.info(name)}


@command
def stats(manager: Manager, name: str) -> Result:
    """The stats of a job."""
    return {"stats": manager.stats(name)}


@command
def stopall(manager: Manager, name: str) -> Result:
    """End all processes of a job, which then replaces them."""
    manager.stopall(name)
    return {"ok": True}


@command
def killall(manager: Manager, name: str, sig: int | str) -> Result:
    """Send a signal to all processes of a job."""
    manager.killall(name, sig)
    return {"ok": True}


@command
def commit(manager: Manager, name: str, graceful_timeout: float = 0, env: Environment = None) -> Result:
    """Run one more process of a job, once."""
    return {"ok": True, "pid": manager.commit(name, graceful_timeout, env)}


@command
def process_info(manager: Manager, pid: int) -> Result:
    """What there is to know about a process."""
    return {"info": manager.get_process(pid).info}


@command
def process_stats(manager: Manager, pid: int) -> Result:
    """The stats of a process."""
    return {"stats": manager.get_process(pid).stats}


@command
def stop_process(manager: Manager, pid: int) -> Result:
    """Stop one process; its job starts another in its place."""
    manager.stop_process(pid)
    return {"ok": True}


@command
def send(manager: Manager, pid: int, lines: str | list[str], stream: str | None = None) -> Result:
    """Write to the input of a process."""
    manager.send(pid, lines, stream)
    return {"ok": True}


@command
def kill(manager: Manager, pid: int, sig: int | str) -> Result:
    """Send a signal to a process."""
    manager.kill(pid, sig)
    return {"ok": True}


def _config(description: Description) -> ProcessConfig:
    return ProcessConfig.from_dict(description, path="$.config")
