"""`disable` and `enable`: the client and the commands against a real node."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator

import pytest

from gaffer_client import Server, errors
from gaffer_client.jobs import Job
from support.client import Commands
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.poll import eventually

HINT = "  enable it first: `gaffer enable shop.web`\n"
UNTIL = r"disabled until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: disk is replaced"


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(node: Daemon, monkeypatch: pytest.MonkeyPatch, gaffer: Commands) -> Iterator[Server]:
    """The node, which the commands find in the environment; what a test loads is unloaded."""
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids(), message="the jobs are still stopping")


@pytest.fixture
def web(server: Server) -> Job:
    """The job shop.web with one process."""
    job = server.load({"name": "web", "cmd": "sleep 1000", "startsecs": 0}, "shop")
    eventually(lambda: job.pids)
    return job


# The library


def test_a_disabled_job_is_stopped_and_can_not_be_started(web: Job) -> None:
    web.disable("disk is replaced", 3600)
    eventually(lambda: web.info()["state"] == "stopped")
    info = web.info()
    assert re.fullmatch(UNTIL, info["reason"] or "")
    assert (info["active"], info["processes"], info["max_processes"]) == (False, [], 1)
    assert info["disabled"] is not None
    assert info["disabled"]["until"] == pytest.approx(info["disabled"]["at"] + 3600)
    for order in (web.start, web.restart, web.reload, web.commit):
        with pytest.raises(errors.JobDisabled) as caught:
            order()
        assert (caught.value.errno, caught.value.reason) == (409, "job_disabled")
        assert caught.value.hint == "enable it first: `gaffer enable shop.web`"
    assert web.scale(1) == 2
    web.enable()
    eventually(lambda: len(web.pids) == 2)
    assert web.info()["disabled"] is None
    web.enable()


def test_it_is_enabled_by_itself(web: Job) -> None:
    (before,) = web.pids
    web.disable("disk is replaced", 0.2)
    eventually(lambda: web.pids and web.pids != [before])
    assert web.info()["disabled"] is None


@pytest.mark.parametrize(
    ("reason", "seconds", "path"),
    [("", None, "$.reason"), ("two\nlines", None, "$.reason"), ("x" * 1001, None, "$.reason"), ("x", 0, "$.for")],
)
def test_mistakes(web: Job, reason: str, seconds: float | None, path: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        web.disable(reason, seconds)
    assert caught.value.path == path
    assert web.info()["disabled"] is None


def test_commands_on_a_channel(server: Server, web: Job) -> None:
    with server.socket() as socket:
        assert socket.execute("disable", "shop.web", "moved", 60) == {"ok": True}
        assert (web.info()["reason"] or "").endswith("UTC: moved")
        assert socket.execute("enable", "shop.web") == {"ok": True}
    eventually(lambda: web.pids)


# The commands


def test_what_commands_say_of_a_disabled_job(gaffer: Commands, gafferctl: Commands, web: Job) -> None:
    ran = gaffer("disable", "shop.web", "--for=2h", "--reason", "disk is replaced")
    assert ran == (0, "Disabled shop.web for 2h\n", "")
    eventually(lambda: web.info()["state"] == "stopped")
    assert re.search(rf"\n\nweb is {UNTIL}\n", gaffer("ps", "shop").out)  # and no slot that waits
    assert re.fullmatch(rf"stopped\nweb is {UNTIL}\n", gafferctl("status", "shop.web").out)
    for ran in (gaffer("restart", "shop.web"), gafferctl("start", "shop.web"), gaffer("restart", "shop.web", "--wait")):
        assert ran.status == 1
        assert re.fullmatch(rf"gaffer(ctl)?: the job shop\.web is {UNTIL}\n{HINT}", ran.err)
    assert re.fullmatch(
        rf"Scaling web processes\.\.\. done, 3 to run after `gaffer enable shop\.web`: web is {UNTIL}\n",
        gaffer("scale", "shop", "web=3").out,
    )
    assert gaffer("enable", "shop.web") == (0, "Enabled shop.web\n", "")
    eventually(lambda: len(web.pids) == 3)


def test_a_job_that_is_not_started_stays_stopped(gaffer: Commands, gafferctl: Commands, web: Job) -> None:
    assert gafferctl("disable", "shop.web", "--reason=moved").out == "Disabled shop.web\n"
    assert gafferctl("stop", "shop.web").status == 0
    eventually(lambda: web.info()["state"] == "stopped")
    assert gafferctl("enable", "shop.web").out == "Enabled shop.web, which is stopped\n"


def test_several_jobs(gaffer: Commands, server: Server, web: Job) -> None:
    server.load({"name": "api", "cmd": "sleep 1000"}, "shop")
    ran = gaffer("disable", "shop.web", "shop.none", "shop.api", "--reason=moved")
    assert (ran.status, ran.out) == (5, "Disabled shop.web\nDisabled shop.api\n")
    assert "shop.none" in ran.err
    assert gaffer("enable", "shop.none").status == 4
    assert gaffer("enable", "shop.web", "shop.api", "--json").out == '{"ok":true}\n{"ok":true}\n'
    assert json.loads(gaffer("disable", "shop.web", "--reason=again", "--json").out) == {"ok": True}
    assert web.info()["reason"] == "disabled: again"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["disable", "shop.web"], "no reason given\n  use --reason to explain it"),
        (["disable", "--reason=x"], "missing or unexpected argument"),
        (["disable", "shop.web", "--reason="], "--reason: the value is empty"),
        (["disable", "shop.web", "--reason=a\nb"], "give a line of 1 to 1000 characters"),
        (["disable", "shop.web", "--reason=x", "--for=soon"], "--for: expected a number of seconds"),
        (["disable", "shop.web", "--reason=x", "--for=0"], "--for: expected a number of seconds, more than 0"),
        (["disable", "a b", "--reason=x"], "not a valid"),
        (["enable"], "missing or unexpected argument"),
    ],
)
def test_usage_errors(gaffer: Commands, web: Job, arguments: list[str], complaint: str) -> None:
    ran = gaffer(*arguments)
    assert (ran.status, ran.out, complaint in ran.err) == (2, "", True)
    assert web.info()["disabled"] is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("1.5", 1.5), ("30s", 30.0), ("5m", 300.0), ("2h", 7200.0), ("1d", 86400.0)]
)
def test_durations(gaffer: Commands, web: Job, text: str, seconds: float) -> None:
    assert gaffer("disable", "shop.web", "--reason=x", "--for", text).status == 0
    info = web.info()["disabled"]
    assert info is not None
    assert info["until"] == pytest.approx(info["at"] + seconds)


def test_a_time_that_is_too_long(gaffer: Commands, web: Job) -> None:
    ran = gaffer("disable", "shop.web", "--reason=x", "--for=5000d")
    assert (ran.status, "$.for: can't disable a job for 432000000.0 seconds" in ran.err) == (1, True)


def test_events_say_why(server: Server, web: Job) -> None:
    lines: list[str] = []
    command = [command_path("gaffer"), "events", "shop.web"]
    environ = clean_env({"GAFFER_ENDPOINT": server.url})
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as watch:
        assert watch.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(iter(watch.stdout.readline, ""),))
        reader.start()
        try:
            # The command follows the events from the time of its connection.
            eventually(lambda: web.disable("moved", 60) or any("| disabled (until " in line for line in lines))
            web.enable()
            eventually(lambda: any(line.endswith("| enabled\n") for line in lines))
        finally:
            watch.terminate()
            reader.join()
    assert any(re.search(r" shop\.web \| disabled \(until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: moved\)\n", x) for x in lines)
