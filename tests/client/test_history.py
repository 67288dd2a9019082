"""`exits`, `definitions`, `history` and `exec`, and what `watch`, `status` and `ps` show, against a real node."""

import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaffer_client import Server
from gaffer_client.cli.commands.watching import details
from gaffer_client.cli.output import moment
from gaffer_client.errors import BadRequest, Conflict, NotFound
from support.client import Commands
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.poll import eventually


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(
    node: Daemon, monkeypatch: pytest.MonkeyPatch, gaffer: Commands, gafferctl: Commands, tmp_path: Path
) -> Iterator[Server]:
    """The node, which the commands find in the environment; what a test loads is unloaded."""
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids(), message="the jobs are still stopping")


def load(server: Server, name: str, cmd: str, **settings: Any) -> None:
    server.load({"name": name, "cmd": cmd, **settings}, "shop")


def state(server: Server, name: str) -> str:
    return server.get_job(f"shop.{name}").info()["state"]


# exits


def test_exits(gaffer: Commands, gafferctl: Commands, server: Server) -> None:
    load(server, "bad", "sh -c 'echo one; printf \"two\\033[2J\"; exit 3'", kind="once")
    load(server, "killed", "sh -c 'kill -9 $$'", kind="once")
    load(server, "missing", "no-such-program", kind="once")
    eventually(lambda: all(server.get_job(f"shop.{name}").exits() for name in ("bad", "killed", "missing")))
    ran = gaffer("exits", "bad", "-v")
    assert (ran.status, ran.err) == (0, "")
    header, row, *output = ran.out.splitlines()
    assert header.split() == ["WHEN", "PID", "SLOT", "EXIT", "REASON", "UPTIME", "MEMORY"]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+ +1 +3 +exited +\d\.\d s +", row)
    assert output == ["    one", "    two\N{REPLACEMENT CHARACTER}[2J"]
    assert len(gafferctl("exits", "shop.bad").out.splitlines()) == 2
    assert len(gafferctl("exits", "shop.bad", "--verbose").out.splitlines()) == 4
    assert re.search(r" 1 +SIGKILL ", gaffer("exits", "killed").out)
    assert re.search(r" 1 +not started +program_not_found ", gaffer("exits", "missing").out)
    assert json.loads(gaffer("exits", "bad", "--json").out) == {"exits": server.get_job("shop.bad").exits()}
    load(server, "web", "sleep 1000")
    assert gaffer("exits", "web").out == "No process of shop.web has ended.\n"
    assert gaffer("exits", "none").status == 4


# exec

ACTIONS = {
    "migrate": "sh -c 'echo out; echo err >&2; printf \"\\377\"; exit 3'",
    "die": "sh -c 'kill -9 $$'",
    "wait": "sleep 1000",
    "where": "pwd",
}


@pytest.fixture
def web(server: Server) -> Server:
    load(server, "web", "sleep 1000", action=ACTIONS, cwd=os.getcwd())
    return server


def test_exec_streams_the_output_and_exits_like_the_action(web: Server) -> None:
    command = [command_path("gaffer"), "exec", "--endpoint", web.url, "web", "migrate"]
    done = subprocess.run(command, env=clean_env(), capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\nerr\n\xff", b"")


def test_exec_on_a_terminal(web: Server) -> None:
    ours, theirs = pty.openpty()
    try:
        command = [command_path("gaffer"), "exec", "--endpoint", web.url, "web", "where"]
        subprocess.run(command, stdout=theirs, env=clean_env({"TERM": "xterm"}), timeout=30, check=True)
        assert os.read(ours, 65536).decode() == f"{os.getcwd()}\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_exec_shows_output_as_it_comes(web: Server, tmp_path: Path) -> None:
    done = tmp_path / "done"
    load(web, "slow", "sleep 1000", action={"go": f"sh -c 'echo begun; until test -e {done}; do sleep 0.05; done'"})
    command = [command_path("gaffer"), "exec", "--endpoint", web.url, "slow", "go"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_env()) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"begun\n"
        assert running.poll() is None
        done.touch()
        assert running.wait(30) == 0


def test_how_actions_end(gaffer: Commands, gafferctl: Commands, web: Server) -> None:
    assert gafferctl("exec", "shop.web", "die").status == 137
    ran = gaffer("exec", "web", "wait", "--timeout=0.2")
    assert (ran.status, ran.out) == (124, "")
    assert re.fullmatch(r"gaffer: action wait timed out after \d+\.\d s\n", ran.err)
    ran = gaffer("exec", "web", "migrate", "--json")
    document = json.loads(ran.out)
    assert (ran.status, document.pop("uptime") < 30) == (3, True)
    assert document == {
        "outcome": "failed",
        "exit_code": 3,
        "term_signal": 0,
        "output": "out\nerr\n\N{REPLACEMENT CHARACTER}",
        "omitted": 0,
    }


def test_exec_of_a_job_that_is_unloaded(web: Server, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    load(web, "slow", "sleep 1000", action={"go": f"sh -c 'touch {begun}; exec sleep 1000'"})
    command = [command_path("gaffer"), "exec", "--endpoint", web.url, "slow", "go"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=clean_env(), text=True) as running:
        eventually(begun.exists)
        web.unload("shop.slow")
        _, complaint = running.communicate(timeout=30)
    assert running.returncode == 128 + 15
    assert complaint == "gaffer: action go was cancelled: the job was unloaded, or the node was stopped or upgraded\n"


def test_exec_lists_the_actions(gaffer: Commands, web: Server) -> None:
    lines = gaffer("exec", "web").out.splitlines()
    assert lines[0].split() == ["ACTION", "COMMAND"]
    assert [line.split()[0] for line in lines[1:]] == ["die", "migrate", "wait", "where"]
    assert json.loads(gaffer("exec", "web", "--json").out) == {"actions": ACTIONS}
    load(web, "plain", "sleep 1000")
    assert gaffer("exec", "plain").out == "shop.plain has no actions.\n"
    ran = gaffer("exec", "web", "migrat")
    assert (ran.status, ran.out) == (4, "")
    assert ran.err == "gaffer: shop.web has no action 'migrat'\n  did you mean 'migrate'?\n"
    ran = gaffer("exec", "web", "wait", "--timeout=soon")
    assert (ran.status, "timeout='soon'" in ran.err) == (1, True)


# the client library


def test_the_library(web: Server) -> None:
    job = web.get_job("shop.web")
    pieces: list[bytes] = []
    end = job.run_action("migrate", pieces.append)
    assert b"".join(pieces) == b"out\nerr\n\xff"
    assert end._replace(uptime=0) == ("failed", 3, 0, 0, 0)
    assert job.run_action("wait", timeout=0.1).outcome == "timed_out"
    with pytest.raises(NotFound, match="no action 'none'"):
        job.run_action("none")
    with pytest.raises(BadRequest):
        job.run_action("wait", timeout="x")
    with pytest.raises(Conflict, match="no earlier definition"):
        job.rollback()

    def fail(_data: bytes) -> None:
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        job.run_action("migrate", fail)


# ps, status, watch


def test_ps_and_status_say_what_a_job_waits_for(gaffer: Commands, gafferctl: Commands, server: Server) -> None:
    load(server, "db", "sleep 1000", start=False)
    load(server, "api", "sleep 1000", after=["db"])
    load(server, "poll", "true", every=2)
    pattern = r"\nLast run: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\npoll is waiting: the next run is at "
    eventually(lambda: re.search(pattern, gaffer("ps").out))
    shown = gaffer("ps").out
    assert re.search(r"\napi is waiting for shop\.db, which is stopped", shown), shown
    assert re.match(r"active\napi is waiting for shop\.db", gafferctl("status", "shop.api").out)
    assert gafferctl("status", "shop.db").out == "stopped\n"


def test_ps_shows_errors_of_probes(gaffer: Commands, gafferctl: Commands, server: Server) -> None:
    load(server, "web", "sleep 1000", ready="exec:sh -c 'echo no database; false'", ready_interval=0.1)
    eventually(lambda: server.get_job("shop.web").info()["reason"])
    shown = gaffer("ps").out
    assert re.search(r"\nweb\.1: up for \S+, pid \d+, os pid \d+, starting: .*no database\nweb is starting\n", shown)
    assert re.match(r"active\nweb is starting: process \d+ is not ready: .*no database\n", status(gafferctl))


def status(gafferctl: Commands) -> str:
    return gafferctl("status", "shop.web").out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gafferctl", "watch", "proc.shop.bad"], r"proc\.shop\.bad\.failed shop\.bad"),
        (["gaffer", "events", "bad"], "failed"),
        (["gaffer", "events"], "failed"),
    ],
)
def test_events_are_shown_with_their_reasons(server: Server, words: list[str], line: str) -> None:
    load(server, "bad", "sh -c 'exit 3'", kind="once", start=False)
    job = server.get_job("shop.bad")
    lines: list[str] = []
    pattern = rf"^\d\d:\d\d:\d\d shop\.bad \| {line} \(the last process exited with 3 .*\)\n$"
    command = [command_path(words[0]), *words[1:]]
    environ = clean_env({"GAFFER_ENDPOINT": server.url})
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as watch:
        assert watch.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(iter(watch.stdout.readline, ""),))
        reader.start()
        try:
            # The command follows the events from the time of its connection.
            eventually(lambda: job.start() or any(re.search(pattern, shown) for shown in lines))
        finally:
            watch.terminate()
            reader.join()


@pytest.mark.pure
@pytest.mark.parametrize(
    ("kind", "message", "text"),
    [
        ("start", {}, ""),
        ("exit", {"exit_code": 3, "term_signal": 0, "reason": "exited"}, "exit code 3"),
        ("exit", {"exit_code": None, "term_signal": 15, "reason": "not live"}, "SIGTERM, not live"),
        ("exit", {"exit_code": None, "term_signal": None, "reason": "unknown"}, "exit code unknown"),
        ("ready", {"pid": 3}, "process 3"),
        ("not_ready", {"pid": 3, "error": "refused"}, "process 3: refused"),
        ("not_live", {"pid": 3, "error": "refused"}, "process 3: refused"),
        ("stop_pid", {"pid": 3, "reason": "not live"}, "not live"),
        ("completed", {"reason": "exited with 0"}, "exited with 0"),
        ("rollout", {"rollout": "restart", "processes": 1}, "rolling restart of 1 process"),
        ("rollout_done", {"rollout": "update", "replaced": 2}, "rolling update: 2 processes replaced"),
        ("rollout_failed", {"rollout": "rollback", "reason": "slow"}, "rollback stopped: slow"),
        ("run", {}, ""),
        ("run_ended", {"success": True}, "succeeded"),
        ("run_ended", {"success": False}, "failed"),
        ("run_skipped", {"reason": "the last run has not ended"}, "the last run has not ended"),
        ("disabled", {"reason": "moved", "until": None}, "moved"),
        ("disabled", {"reason": "moved", "until": 1.5e9}, f"until {moment(1.5e9)}: moved"),
        ("enabled", {}, ""),
        ("limit", {"pid": 3, "reason": "max_memory", "message": "70 of 64 MiB"}, "process 3: 70 of 64 MiB"),
        ("action", {"action": "migrate", "outcome": "timed_out"}, "migrate timed out"),
        ("rollout", {}, "- of ? processes"),
    ],
)
def test_events_in_words(kind: str, message: dict[str, Any], text: str) -> None:
    assert details(kind, message) == text


# history


def test_history(gaffer: Commands, gafferctl: Commands, server: Server) -> None:
    load(server, "web", "sleep 1000", start=False)
    server.get_job("shop.web").scale("=3")
    server.get_job("shop.web").scale("+1")
    with pytest.raises(NotFound):
        server.unload("shop.none")
    ran = gaffer("history", "web")
    assert (ran.status, ran.err) == (0, "")
    header, *rows = ran.out.splitlines()
    assert header.split() == ["WHEN", "WHAT", "JOB", "CALLER", "ADDRESS", "RESULT", "DETAILS"]
    uid = os.getuid()
    assert [re.sub("^[0-9-]{10} [0-9:]{8} +", "", re.sub(" +", " ", row)) for row in rows][:3] == [
        f"POST /jobs/{{sid}}/{{job}}/numprocesses shop.web uid:{uid} 127.0.0.1 ok scale=+1",
        f"POST /jobs/{{sid}}/{{job}}/numprocesses shop.web uid:{uid} 127.0.0.1 ok scale=3",
        f"POST /jobs/{{sid}} shop.web uid:{uid} 127.0.0.1 ok start=false",
    ]
    assert " failed (not_found)" in gafferctl("history", "shop.*", "--limit=1").out
    assert len(json.loads(gafferctl("history", "--limit=2", "--json").out)["entries"]) == 2
    assert json.loads(gaffer("history", "web", "--since=1h", "--json").out)["entries"][0]["details"] == {"scale": "+1"}
    assert gaffer("history", "web", "--since=2100-01-01T00:00").out == "Nothing was recorded.\n"
    for option in ("--since=yesterday", "--limit=0", "--limit=x"):
        assert gaffer("history", option).status == 2
    assert gaffer("history", "a b").status == 2
