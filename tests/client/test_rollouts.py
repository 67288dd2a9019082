"""`restart`, `reload` and `rollback`: the commands against a real node, and what they read from the info of a job."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaffer_client import Server
from gaffer_client.progress import RolloutWatch, readiness, rollout_text
from support.client import Commands
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.poll import eventually


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
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the application `shop`, in which commands run; no process is ready while it has a file `broken`."""
    root = tmp_path / "shop"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


def load(server: Server, shop: Path, **settings: Any) -> list[int]:
    """Load the job shop.web with two processes, and return their pids once they are ready."""
    probe = {"ready": "exec:test ! -e broken", "ready_interval": 0.1, "start_timeout": 1}
    config = {"name": "web", "cmd": "sleep 1000", "numprocesses": 2, "cwd": str(shop), "startsecs": 0}
    server.load({**config, **probe, **settings}, "shop")
    eventually(lambda: ready(server) == 2)
    return server.get_job("shop.web").pids


def ready(server: Server) -> int:
    return sum(each["state"] == "ready" for each in server.get_job("shop.web").info()["instances"])


def rollout_state(server: Server) -> str | None:
    rollout = server.get_job("shop.web").info().get("rollout")
    return rollout["state"] if rollout else None


# restart


def test_restart_keeps_the_scale(gaffer: Commands, gafferctl: Commands, server: Server, shop: Path) -> None:
    before = load(server, shop)
    server.get_job("shop.web").scale(1)
    assert gaffer("restart", "web") == (0, "Restarting shop.web\n", "")
    eventually(lambda: ready(server) == 3)
    assert not set(before) & set(server.get_job("shop.web").pids)
    assert json.loads(gafferctl("restart", "shop.web", "--json").out) == {"ok": True}


def test_restart_and_wait(gaffer: Commands, server: Server, shop: Path) -> None:
    before = load(server, shop)
    ran = gaffer("restart", "shop.web", "--wait")
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"\nRestarted shop\.web in \d+\.\d s: 2 of 2 ready\n$", ran.out)
    assert ready(server) == 2
    assert not set(before) & set(server.get_job("shop.web").pids)


def test_a_rolling_restart_shows_its_progress(gaffer: Commands, server: Server, shop: Path) -> None:
    before = load(server, shop)
    ran = gaffer("restart", "web", "--rolling")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("Restarting shop.web: 1 of 2 replaced, 1 ready")
    assert re.fullmatch(r"Restarted shop\.web in \d+\.\d s: 2 of 2 replaced, 2 ready", lines[-1])
    assert not set(before) & set(server.get_job("shop.web").pids)


def test_progress_in_json_is_one_document_a_line(gaffer: Commands, server: Server, shop: Path) -> None:
    load(server, shop)
    documents = [json.loads(line) for line in gaffer("restart", "web", "--rolling", "--json").out.splitlines()]
    assert documents[0]["rollout"]["state"] == "running"
    assert documents[-1]["rollout"] == {
        "kind": "restart",
        "state": "done",
        "processes": 2,
        "replaced": 2,
        "reason": None,
    }
    assert len(documents) < 30


def test_progress_is_one_line_on_a_terminal(server: Server, shop: Path) -> None:
    load(server, shop)
    ours, theirs = pty.openpty()
    try:
        command = [command_path("gaffer"), "restart", "--rolling", "web", "--endpoint", server.url]
        subprocess.run(command, stdout=theirs, env=clean_env({"TERM": "xterm"}), timeout=30, check=True)
        text = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert text.count("\n") == 1
    *_, last = text.split("\r\x1b[K")
    assert re.fullmatch(r"Restarted shop\.web in \d+\.\d s: 2 of 2 replaced, 2 ready\r\n", last)


def test_a_rolling_restart_that_fails_says_why(gaffer: Commands, server: Server, shop: Path) -> None:
    before = load(server, shop, ready_failures=1000)
    (shop / "broken").touch()
    ran = gaffer("restart", "web", "--rolling")
    assert ran.status == 1
    message, hint = ran.err.splitlines()
    assert re.match(
        r"gaffer: restarting shop\.web failed: process \d+ did not become ready within 1 s: exited with 1", message
    )
    assert hint == "  `gaffer exits shop.web --verbose` shows the output of its last processes"
    assert set(before) & set(server.get_job("shop.web").pids)
    shown = gaffer("ps").out
    assert re.search(r"\nRolling restart stopped, 1 of 2 processes replaced: process \d+ did not become ready", shown)
    assert "Rolling restart stopped, 1 of 2" in gaffer_status(server)
    # A second one that fails in the same way is recognized as well.
    assert gaffer("restart", "web", "--rolling").status == 1


def gaffer_status(server: Server) -> str:
    done = subprocess.run(
        [command_path("gafferctl"), "status", "shop.web", "--connect", server.url],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_waiting_ends_at_the_timeout(gaffer: Commands, server: Server, shop: Path) -> None:
    load(server, shop, start_timeout=60)
    (shop / "broken").touch()
    ran = gaffer("restart", "web", "--wait", "--timeout=0.5")
    assert ran.status == 1
    assert ran.err.startswith("gaffer: restarting shop.web is not done after 0.5 s: 0 of 2 ready")
    assert "\n  the node goes on with it; use --timeout to wait longer\n" in ran.err


def test_jobs_that_end(gaffer: Commands, server: Server, shop: Path) -> None:
    server.load({"name": "task", "cmd": "true", "kind": "once"}, "shop")
    server.load({"name": "bad", "cmd": "sh -c 'exit 3'", "kind": "once"}, "shop")
    ran = gaffer("restart", "task", "bad", "none", "--wait")
    assert ran.status == 5
    assert "Restarted shop.task in " in ran.out
    assert "gaffer: restarting shop.bad failed: the job has failed: the last process exited with 3" in ran.err
    assert "shop.none" in ran.err
    assert gaffer("restart", "none", "shop.nix").status == 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["restart", "web", "--timeout=soon"], "--timeout: 'soon' is not a valid number of seconds"),
        (["restart", "web", "--timeout=nan"], "--timeout: 'nan' is not a valid number of seconds"),
        (["restart", "web", "--wait", "--no-wait"], "--wait and --no-wait are mutually exclusive"),
        (["restart", "a b"], "not a valid"),
        (["rollback", "web", "--to=x"], "--to: 'x' is not a generation"),
    ],
)
def test_mistakes(gaffer: Commands, server: Server, shop: Path, arguments: list[str], complaint: str) -> None:
    ran = gaffer(*arguments)
    assert (ran.status, ran.out, complaint in ran.err) == (2, "", True)


# reload


@pytest.mark.row("CL-31")
def test_reload_by_signal(gaffer: Commands, server: Server, shop: Path) -> None:
    command = "sh -c 'trap \"echo x >> reloads\" HUP; while true; do sleep 0.05; done'"
    before = load(server, shop, cmd=command, reload_signal="HUP")
    ran = gaffer("reload", "web")
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"Reloaded shop\.web in \d+\.\d s: 2 of 2 ready\n$", ran.out)
    eventually(lambda: (shop / "reloads").exists() and (shop / "reloads").read_text() == "x\nx\n")
    assert server.get_job("shop.web").pids == before


def test_reload_waits_until_the_processes_are_ready_again(gaffer: Commands, server: Server, shop: Path) -> None:
    command = "sh -c 'trap \"sleep 1; echo ready\" HUP; echo ready; while true; do sleep 0.05; done'"
    before = load(server, shop, cmd=command, reload_signal="HUP", ready="log:^ready", start_timeout=30)
    ran = gaffer("reload", "web")
    assert ran.status == 0
    assert "0 of 2 ready; process" in ran.out
    assert ready(server) == 2
    assert server.get_job("shop.web").pids == before


def test_reload_waits_for_the_successors_of_processes_that_it_ended(
    gaffer: Commands, server: Server, shop: Path
) -> None:
    before = load(server, shop, reload_signal="HUP")  # which sleep(1) does not handle
    ran = gaffer("reload", "web")
    assert (ran.status, ready(server)) == (0, 2)
    assert not set(before) & set(server.get_job("shop.web").pids)


def test_reload_without_a_signal_replaces_the_processes(gaffer: Commands, server: Server, shop: Path) -> None:
    before = load(server, shop)
    assert gaffer("reload", "web").out.endswith(": 2 of 2 ready\n")
    after = server.get_job("shop.web").pids
    assert not set(before) & set(after)
    assert gaffer("reload", "web", "--no-wait") == (0, "Reloading shop.web\n", "")
    eventually(lambda: ready(server) == 2 and not set(after) & set(server.get_job("shop.web").pids))


# rollback


def test_rollback(gaffer: Commands, server: Server, shop: Path) -> None:
    load(server, shop, env={"A": "1", "B": "1"}, redirect_output=["out"])
    job = server.get_job("shop.web")
    config = job.info()["config"]
    server.update({**config, "cmd": "sleep 1001", "env": {"A": "2", "C": "1"}}, "shop", rolling=True)
    eventually(lambda: rollout_state(server) == "done")
    assert gaffer("definitions", "web").out.splitlines() == [
        "GENERATION   CHANGES",
        "2 (current)  cmd: sleep 1000 -> sleep 1001",
        "             env: A changed, B removed, C added",
        "1            first definition",
    ]
    ran = gaffer("rollback", "web")
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"\nRolled back shop\.web in \d+\.\d s: 2 of 2 replaced, 2 ready\n$", ran.out)
    assert job.info()["config"]["cmd"] == "sleep 1000"
    assert json.loads(gaffer("definitions", "web", "--json").out) == {"definitions": job.definitions()}
    assert [each["generation"] for each in job.definitions()] == [3, 2, 1]
    assert json.loads(gaffer("rollback", "web", "--to=2", "--no-wait", "--json").out) == {"ok": True, "generation": 4}
    ran = gaffer("rollback", "web", "--to", "9")
    assert (ran.status, ran.err) == (1, "gaffer: shop.web has no definition 9\n  kept: 1, 2, 3, 4\n")


def test_a_rollback_that_needs_no_new_processes(gaffer: Commands, server: Server, shop: Path) -> None:
    before = load(server, shop)
    job = server.get_job("shop.web")
    server.update({**job.info()["config"], "numprocesses": 3}, "shop")
    eventually(lambda: ready(server) == 3)
    ran = gaffer("rollback", "web")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith(": 2 of 2 ready\n")
    eventually(lambda: job.pids == before)


# what they read


def info(*states: str, state: str = "running", reason: str | None = None, wanted: int = 2, **more: Any) -> Any:
    instances = [{"pid": 10 + slot, "slot": slot, "state": each} for slot, each in enumerate(states, 1)]
    job: dict[str, Any] = {"state": state, "reason": reason, "active": True, "max_processes": wanted, "config": {}}
    return {**job, "instances": instances, **more}


@pytest.mark.pure
@pytest.mark.parametrize(
    ("job", "text", "done", "failure"),
    [
        (info("ready", "ready"), "2 of 2 ready", True, None),
        (info("stopping", "ready"), "1 of 2 ready", False, None),
        (info("ready", "starting"), "1 of 2 ready", False, None),
        (info("ready", "ready", "ready"), "2 of 2 ready", True, None),
        (info("ready", wanted=1, reason="slow"), "1 of 1 ready", True, None),
        (info("starting", wanted=1, state="starting", reason="slow"), "0 of 1 ready; slow", False, None),
        (info(state="waiting", reason="waiting for db"), "0 of 2 ready; waiting for db", False, None),
        (info(state="backoff", reason="exited"), "0 of 2 ready; in backoff: exited", False, None),
        (info(state="waiting", config={"every": 5}), "waiting", True, None),
        (info(state="waiting", config={"start": "on-connection"}), "waiting", True, None),
        (info(state="completed"), "completed", True, None),
        (info(state="stopped", active=False), "stopped", False, "the job is stopped"),
        (
            info(state="stopped", active=False, reason="disabled: moved", disabled={"reason": "moved"}),
            "disabled: moved",
            False,
            "the job is disabled: moved",
        ),
        (info(state="failed", reason="gone"), "failed: gone", False, "the job has failed: gone"),
        (info(wanted=0), "0 of 0 ready", True, None),
    ],
)
def test_readiness(job: Any, text: str, done: bool, failure: str | None) -> None:
    assert readiness(job) == (text, done, failure)


def rollout(state: str, kind: str = "restart", replaced: int = 1, reason: str | None = None) -> Any:
    return {"kind": kind, "state": state, "processes": 2, "replaced": replaced, "reason": reason}


@pytest.mark.pure
def test_a_rollout_that_was_there_before_is_another_one() -> None:
    failed = rollout("failed", "rollback", reason="old")
    watch = RolloutWatch("rollback", failed)
    assert watch.judge(info("ready", "starting", rollout=failed)) == ("1 of 2 ready", False, None)
    assert watch.judge(info("ready", "ready", rollout=failed)).done
    assert watch.judge(info(rollout=rollout("running", "rollback"))) == ("1 of 2 replaced, 0 ready", False, None)
    assert watch.judge(info(rollout=rollout("failed", "rollback", reason="new"))).failure == "new"


@pytest.mark.pure
def test_the_processes_of_a_surge_count_as_ready() -> None:
    job = info("draining", "ready", "ready", rollout=rollout("running"))
    job["instances"].append({"pid": 1, "slot": 0, "state": "ready"})  # runs once, next to the others
    assert RolloutWatch("restart").judge(job) == ("1 of 2 replaced, 2 ready", False, None)


@pytest.mark.pure
@pytest.mark.parametrize("after", [None, rollout("running", "update")])
def test_a_rollout_that_another_command_ended(after: Any) -> None:
    watch = RolloutWatch("restart")
    assert watch.judge(info("ready", rollout=rollout("running"))) == ("1 of 2 replaced, 1 ready", False, None)
    ended = watch.judge(info("ready", "ready", rollout=after))
    assert (ended.done, ended.failure) == (False, "another command or a restart of the node ended the rolling restart")
    stopped = watch.judge(info(state="stopped", active=False, rollout=None))
    assert stopped.failure == "the job is stopped"


@pytest.mark.pure
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, None),
        (rollout("done"), None),
        (rollout("running", "update"), "rolling update: 1 of 2 processes replaced"),
        (rollout("failed", reason="no"), "rolling restart stopped, 1 of 2 processes replaced: no"),
        (rollout("running", "novel"), "novel: 1 of 2 processes replaced"),
    ],
)
def test_the_text_of_a_rollout(given: Any, text: str | None) -> None:
    assert rollout_text(given) == text
