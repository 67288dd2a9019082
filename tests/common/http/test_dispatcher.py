"""Commands by name, for clients of websockets (SJS-20)."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from gaffer import Manager
from gaffer.api.dispatcher import COMMANDS, Dispatcher
from gaffer.errors import BadValue, CommandError, CommandNotFound, ConfigError, ProcessConflict, ProcessNotFound
from gaffer.http.access import ALL_SCOPES, Forbidden, Grant, Scope
from gaffer.http_handler import ROUTES
from gaffer.jobs.rules import FlappingInfo
from gaffer.process import ProcessConfig
from support.managers import running_manager
from support.poll import eventually

pytestmark = pytest.mark.row("SUP-06")

SLEEP = "/bin/sleep 1000"
OK = {"ok": True}


@pytest.fixture
def manager() -> Iterator[Manager]:
    with running_manager() as manager:
        yield manager


@pytest.fixture
def dispatcher(manager: Manager) -> Dispatcher:
    return Dispatcher(manager)


def test_the_commands() -> None:
    assert COMMANDS.keys() == set(
        "sessions jobs pids load unload reload update start_job stop_job scale info stats stopall killall commit "
        "process_info process_stats stop_process send kill restart_job rollback exits disable enable".split()
    )


def test_jobs_from_load_to_unload(manager: Manager, dispatcher: Dispatcher) -> None:
    execute = dispatcher.execute
    config = {"name": "j", "cmd": SLEEP, "env": {"A": "1", "B": "1"}}
    assert execute("load", [config], {"sessionid": "s", "env": {"B": "2"}, "start": False}) == OK
    assert manager.get("s.j").env == {"A": "1", "B": "2"}
    assert execute("sessions") == {"sessions": ["s"]}
    assert execute("jobs") == {"jobs": ["s.j"]}
    assert execute("jobs", ["s"]) == {"jobs": ["s.j"], "sessionid": "s"}
    assert execute("pids") == {"pids": []}
    assert execute("start_job", ["s.j"]) == OK
    eventually(lambda: execute("pids", ["s.j"]) == {"pids": [1]})
    assert execute("info", [], {"name": "s.j"})["info"]["processes"] == [1]
    assert execute("stats", ["s.j"])["stats"]["stats"][0]["pid"] == 1
    assert execute("scale", ["s.j", "=2"]) == {"numprocesses": 2}
    assert execute("scale", ["s.j", 1]) == {"numprocesses": 3}
    eventually(lambda: len(manager.pids("s.j")) == 3)
    assert execute("reload", ["j", "s"]) == OK
    eventually(lambda: manager.pids("s.j") == [4])
    assert execute("stopall", ["s.j"]) == OK
    eventually(lambda: manager.pids("s.j") == [5])
    assert execute("update", [{"name": "s.j", "cmd": "sleep 1001"}]) == OK
    eventually(lambda: manager.pids("s.j") == [6])
    assert manager.get("s.j").cmd == "sleep 1001"
    assert execute("stop_job", ["s.j"]) == OK
    eventually(lambda: manager.info("s.j")["state"] == "stopped")
    assert execute("update", [{"name": "j", "cmd": SLEEP}], {"sessionid": "s", "start": True}) == OK
    eventually(lambda: manager.pids("s.j"))
    assert execute("unload", ["s.j"]) == OK
    assert execute("jobs") == {"jobs": []}


def test_restarts_rollbacks_and_exits(manager: Manager, dispatcher: Dispatcher) -> None:
    execute = dispatcher.execute
    manager.load(ProcessConfig("j", SLEEP, startsecs=0), "s")
    eventually(lambda: execute("pids", ["s.j"]) == {"pids": [1]})
    assert execute("restart_job", ["s.j"]) == OK
    eventually(lambda: execute("pids", ["s.j"]) == {"pids": [2]})
    assert execute("restart_job", ["s.j"], {"rolling": True}) == OK
    eventually(lambda: execute("pids", ["s.j"]) == {"pids": [3]})
    rollout = manager.info("s.j")["rollout"]
    assert rollout is not None
    assert rollout["kind"] == "restart"
    assert [(each["pid"], each["term_signal"]) for each in execute("exits", ["s.j"])["exits"]] == [(2, 15), (1, 15)]
    assert execute("update", [{"name": "s.j", "cmd": "sleep 1001", "graceful_timeout": 2}]) == OK
    assert execute("rollback", ["s.j"]) == {**OK, "generation": 3}
    assert manager.get("s.j").cmd == SLEEP
    assert execute("rollback", ["s.j"], {"to": 2}) == {**OK, "generation": 4}
    assert manager.get("s.j").cmd == "sleep 1001"


def test_processes(manager: Manager, dispatcher: Dispatcher) -> None:
    execute = dispatcher.execute
    manager.load(ProcessConfig("cat", "cat", redirect_input=True, redirect_output=["out"]))
    process = eventually(lambda: manager.running.get(1))
    assert execute("process_info", [1])["info"]["os_pid"] == process.os_pid
    assert execute("process_stats", [1])["stats"]["os_pid"] == process.os_pid
    assert execute("send", [1, "one\n"]) == OK
    assert execute("send", [1, ["two\n", "three\n"], "stdin"]) == OK
    eventually(lambda: process.ring("out").read(0).data == b"one\ntwo\nthree\n")
    assert execute("commit", ["cat"], {"graceful_timeout": 1.5, "env": {"A": "1"}}) == {"ok": True, "pid": 2}
    committed = eventually(lambda: manager.running.get(2))
    eventually(lambda: committed.active)
    assert execute("kill", [1, "KILL"]) == OK
    eventually(lambda: manager.pids("cat") == [3])
    assert execute("killall", ["cat"], {"sig": 9}) == OK
    eventually(lambda: 2 not in manager.running and 3 not in manager.running)
    pid = eventually(lambda: manager.pids("cat"))[0]
    assert execute("stop_process", [pid]) == OK
    eventually(lambda: manager.pids("cat") not in ([], [pid]))


def test_results_are_json(manager: Manager, dispatcher: Dispatcher) -> None:
    manager.load(ProcessConfig("j", SLEEP, flapping=FlappingInfo(2, 1.0, 7.0, 5), port="auto"))
    eventually(lambda: manager.pids("j"))
    for name, *args in (["sessions"], ["jobs"], ["pids"], ["info", "j"], ["stats", "j"], ["process_info", 1]):
        result = dispatcher.execute(str(name), args)
        assert msgspec.json.decode(msgspec.json.encode(result)) == result


def test_an_unknown_command(dispatcher: Dispatcher) -> None:
    with pytest.raises(CommandNotFound) as caught:
        dispatcher.execute("start_jobs", ["j"])
    error = caught.value
    assert (error.errno, error.reason, error.hint) == (404, "command_not_found", "did you mean 'start_job'?")
    with pytest.raises(CommandNotFound):
        dispatcher.execute("__class__")


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message", "path"),
    [
        ("info", [], {}, "info: missing a required argument: 'name'", None),
        ("info", ["j", 1], {}, "info: too many positional arguments", None),
        ("info", ["j"], {"name": "k"}, "info: multiple values for argument 'name'", None),
        ("info", [], {"nam": "j"}, "info: missing a required argument: 'name'", None),
        ("jobs", [], {"x": 1}, "jobs: got an unexpected keyword argument 'x'", None),
        ("info", [1], {}, "info: expected `str`, got `int`", "$.name"),
        ("kill", ["1", 9], {}, "kill: expected `int`, got `str`", "$.pid"),
        ("kill", [1], {"sig": 1.5}, "kill: expected `int | str`, got `float`", "$.sig"),
        ("send", [1, ["a", 2]], {}, "send: expected `str`, got `int`", "$.lines[1]"),
        ("load", ["j"], {}, "load: expected `object`, got `str`", "$.config"),
        ("load", [{}], {"start": "yes"}, "load: expected `bool`, got `str`", "$.start"),
        ("commit", ["j"], {"env": {"A": 1}}, "commit: expected `str`, got `int`", "$.env[...]"),
        ("commit", ["j", -1], {}, "commit: expected `float` >= 0.0", "$.graceful_timeout"),
    ],
)
def test_wrong_arguments(
    dispatcher: Dispatcher, name: str, args: list[Any], kwargs: dict[str, Any], message: str, path: str | None
) -> None:
    with pytest.raises(CommandError) as caught:
        dispatcher.execute(name, args, kwargs)
    error = caught.value
    assert (error.errno, error.reason) == (400, "bad_command")
    assert (error.message, error.path) == (message, path)
    assert (error.hint or "").startswith(f"use {name}(")


def test_what_the_manager_refuses(manager: Manager, dispatcher: Dispatcher) -> None:
    manager.load(ProcessConfig("j", SLEEP, start=False))
    with pytest.raises(ConfigError) as config:
        dispatcher.execute("load", [{"name": "k"}])
    assert config.value.path == "$.config.cmd"
    with pytest.raises(ProcessConflict):
        dispatcher.execute("load", [{"name": "j", "cmd": "true"}])
    with pytest.raises(ProcessNotFound):
        dispatcher.execute("stop_process", [99])
    for name, args in (("scale", ["j", "*2"]), ("killall", ["j", "NOPE"])):
        with pytest.raises(BadValue):
            dispatcher.execute(name, args)


# What does the same over HTTP.
SAME = {
    "sessions": ("GET", "/sessions"),
    "jobs": ("GET", "/jobs/{sid}"),
    "pids": ("GET", "/jobs/{sid}/{job}/pids"),
    "load": ("POST", "/jobs/{sid}"),
    "unload": ("DELETE", "/jobs/{sid}/{job}"),
    "reload": ("POST", "/jobs/{sid}/{job}/state"),
    "restart_job": ("POST", "/jobs/{sid}/{job}/restart"),
    "disable": ("POST", "/jobs/{sid}/{job}/disable"),
    "enable": ("POST", "/jobs/{sid}/{job}/enable"),
    "rollback": ("POST", "/jobs/{sid}/{job}/rollback"),
    "exits": ("GET", "/jobs/{sid}/{job}/exits"),
    "update": ("PUT", "/jobs/{sid}/{job}"),
    "start_job": ("POST", "/jobs/{sid}/{job}/state"),
    "stop_job": ("POST", "/jobs/{sid}/{job}/state"),
    "scale": ("POST", "/jobs/{sid}/{job}/numprocesses"),
    "info": ("GET", "/jobs/{sid}/{job}"),
    "stats": ("GET", "/jobs/{sid}/{job}/stats"),
    "stopall": ("DELETE", "/{pid:digits}"),  # of each of its processes
    "killall": ("POST", "/jobs/{sid}/{job}/signal"),
    "commit": ("POST", "/jobs/{sid}/{job}/commit"),
    "process_info": ("GET", "/{pid:digits}"),
    "process_stats": ("GET", "/{pid:digits}/stats"),
    "stop_process": ("DELETE", "/{pid:digits}"),
    "send": ("POST", "/streams/{pid}/{label}"),
    "kill": ("POST", "/{pid:digits}/signal"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_needs_the_scope_of_its_http_route_and_no_other(manager: Manager, name: str) -> None:
    method, pattern = SAME[name]
    (needed,) = {route.scope(method) for route in ROUTES if route.pattern == pattern}
    assert isinstance(needed, Scope)
    with pytest.raises(Forbidden):
        Dispatcher(manager, Grant(ALL_SCOPES - {needed})).execute(name)
    with contextlib.suppress(CommandError):  # for want of arguments
        Dispatcher(manager, Grant(frozenset({needed}))).execute(name)


def test_another_environment_needs_the_right_to_define(manager: Manager) -> None:
    manager.load(ProcessConfig("j", SLEEP, start=False))
    dispatcher = Dispatcher(manager, Grant(frozenset({Scope.CONTROL})))
    assert dispatcher.execute("commit", ["j"])["ok"]
    with pytest.raises(Forbidden):
        dispatcher.execute("commit", ["j"], {"env": {}})


@pytest.fixture
def neighbours(manager: Manager) -> Manager:
    """A manager with a job in each of two sessions: process 1 is of ours, process 2 of theirs."""
    for session in ("ours", "theirs"):
        manager.load(ProcessConfig("j", "cat", redirect_input=True), session)
        eventually(partial(manager.pids, f"{session}.j"))
    return manager


JOB = {"name": "k", "cmd": SLEEP}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("jobs", ["theirs"]),
        ("pids", ["theirs.j"]),
        ("load", [JOB, "theirs"]),
        ("load", [JOB]),  # in the default session
        ("load", [{**JOB, "name": "theirs.k"}]),
        ("load", [{**JOB, "name": "theirs.k"}, "ours"]),
        ("unload", ["theirs.j"]),
        ("unload", ["theirs.j", "ours"]),
        ("unload", ["j", "theirs"]),
        ("reload", ["theirs/j"]),
        ("update", [{**JOB, "name": "theirs:j"}]),
        ("start_job", ["theirs.j"]),
        ("stop_job", ["theirs.j"]),
        ("scale", ["theirs.j", 1]),
        ("info", ["theirs.j"]),
        ("stats", ["theirs.j"]),
        ("stopall", ["theirs.j"]),
        ("killall", ["theirs.j", "KILL"]),
        ("commit", ["theirs.j"]),
        ("process_info", [2]),
        ("process_stats", [2]),
        ("stop_process", [2]),
        ("send", [2, "x"]),
        ("kill", [2, "KILL"]),
    ],
)
def test_a_key_of_a_session_commands_nothing_of_another(neighbours: Manager, name: str, args: list[Any]) -> None:
    def state() -> Any:
        info = neighbours.info("theirs.j")
        return neighbours.jobs(), [info[key] for key in ("active", "max_processes", "processes", "config")]

    before = state()
    with pytest.raises(Forbidden, match="this key is not valid for the session"):
        Dispatcher(neighbours, Grant(ALL_SCOPES, frozenset({"ours"}))).execute(name, args)
    assert state() == before


def test_a_key_of_a_session_commands_that_and_sees_no_other(neighbours: Manager) -> None:
    execute = Dispatcher(neighbours, Grant(ALL_SCOPES, frozenset({"ours"}))).execute
    assert execute("sessions") == {"sessions": ["ours"]}
    assert execute("jobs") == execute("jobs", [None]) == {"jobs": ["ours.j"]}
    assert execute("pids") == execute("pids", ["ours.j"]) == {"pids": [1]}
    assert execute("send", [1, "x"]) == OK
    assert execute("load", [JOB, "ours"]) == OK
    assert execute("unload", ["ours.k"]) == OK
    assert neighbours.jobs() == ["ours.j", "theirs.j"]


def test_values_of_env_are_shown_only_with_define(manager: Manager) -> None:
    manager.load(ProcessConfig("j", SLEEP, env={"PASSWORD": "hunter2"}))
    [pid] = eventually(lambda: manager.pids("j"))
    for scopes, shown in (({Scope.READ}, None), ({Scope.READ, Scope.CONTROL}, None), (ALL_SCOPES, "hunter2")):
        dispatcher = Dispatcher(manager, Grant(frozenset(scopes)))
        assert dispatcher.execute("info", ["j"])["info"]["config"]["env"] == {"PASSWORD": shown}
        assert dispatcher.execute("process_info", [pid])["info"]["env"] == {"PASSWORD": shown}


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ([1e300], "$.graceful_timeout"),
        ([0, {"A": "a\0b"}], "$.env.A"),
        ([0, {"A=": "a"}], "$.env"),
        ([0, {"A": "x" * 131072}], "$.env.A"),
    ],
)
def test_what_a_process_cannot_be_given_is_not_committed(manager: Manager, args: list[Any], path: str) -> None:
    manager.load(ProcessConfig("j", SLEEP), start=False)
    with pytest.raises(BadValue) as caught:
        Dispatcher(manager).execute("commit", ["j", *args])
    assert caught.value.path == path
    assert manager.pids("j") == []
