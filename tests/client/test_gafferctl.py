"""The command `gafferctl` against a real gafferd."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gaffer_client import Server
from support.client import Answering, Commands
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.poll import eventually

OK = (0, "ok\n", "")


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(node: Daemon, monkeypatch: pytest.MonkeyPatch, gafferctl: Commands) -> Iterator[Server]:
    """The node, which `gafferctl` finds in the environment, with the template `nap`."""
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    with Server(node.url) as server:
        server.add_process({"name": "nap", "cmd": "sleep 1000"})
        eventually(lambda: server.get_job("nap").running == 1)
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids(), message="the jobs are still stopping")


@pytest.mark.row("GC-03", "CL-50")
def test_processes(gafferctl: Commands, server: Server) -> None:
    server.load({"name": "web", "cmd": "sleep 1"}, "shop", start=False)
    assert gafferctl("processes") == (0, "nap\nshop.web\n", "")
    [pid] = server.pids()
    assert gafferctl("processes", "--running") == (0, f"{pid}\n", "")
    assert json.loads(gafferctl("processes", "--json").out) == ["nap", "shop.web"]


@pytest.mark.row("GC-14", "CL-60", "CL-61", "CL-62", "CL-63")
def test_what_a_template_does(gafferctl: Commands, server: Server) -> None:
    [pid] = server.pids()
    assert gafferctl("status", "nap").out == "active\n"
    assert gafferctl("running", "nap").out == "1\n"
    assert gafferctl("numprocesses", "nap").out == "1\n"
    assert gafferctl("pids", "nap").out == f"{pid}\n"
    assert json.loads(gafferctl("status", "nap", "--json").out)["active"] is True


def test_the_status_of_all_jobs(gafferctl: Commands, server: Server) -> None:
    server.load({"name": "web", "cmd": "sleep 1000", "numprocesses": 2}, "shop", start=False)
    server.get_job("shop.web").disable("disk is replaced")
    eventually(lambda: server.get_job("nap").info()["state"] == "running")
    assert [line.split(maxsplit=3) for line in gafferctl("status").out.splitlines()] == [
        ["JOB", "STATE", "RUNNING", "DETAILS"],
        ["default.nap", "running", "1/1", "-"],
        ["shop.web", "stopped", "0/2", "disabled: disk is replaced"],
    ]
    assert [job["name"] for job in json.loads(gafferctl("status", "--json").out)["jobs"]] == ["default.nap", "shop.web"]
    for name in server.jobs():
        server.unload(name)
    assert gafferctl("status") == (0, "No jobs are loaded.\n", "")


@pytest.mark.row("GC-08", "GC-09", "CL-58", "CL-59", "GC-17")
def test_start_and_stop(gafferctl: Commands, server: Server) -> None:
    assert gafferctl("stop", "nap") == OK
    assert gafferctl("status", "nap").out == "stopped\n"
    eventually(lambda: not server.pids())
    assert gafferctl("start", "nap") == OK
    eventually(server.pids)


@pytest.mark.row("GC-07", "GC-10", "CL-56", "CL-57")
def test_more_and_fewer(gafferctl: Commands, server: Server) -> None:
    assert gafferctl("add", "nap") == (0, "2\n", "")
    assert gafferctl("add", "nap", "3") == (0, "5\n", "")
    assert gafferctl("sub", "nap") == (0, "4\n", "")
    assert gafferctl("stop", "nap", "2") == (0, "2\n", "")
    eventually(lambda: len(server.pids()) == 2)
    assert json.loads(gafferctl("add", "nap", "--json").out) == {"numprocesses": 3}
    ran = gafferctl("add", "nap", "many")
    assert (ran.status, "'many' is not a number of processes" in ran.err) == (2, True)


@pytest.mark.row("GC-16", "CL-64")
def test_kill(gafferctl: Commands, server: Server) -> None:
    [first] = server.pids()
    assert gafferctl("kill", first, "SIGKILL") == OK
    [second] = eventually(lambda: server.pids() != [first] and server.pids())
    assert gafferctl("kill", "nap", "9") == OK
    eventually(lambda: server.pids() and server.pids() != [second])
    ran = gafferctl("kill", "nap", "SIGNONE")
    assert ran.status == 1
    assert "SIGNONE" in ran.err


@pytest.mark.row("GC-15", "CL-52", "CL-53", "CL-54", "CL-55")
def test_templates(gafferctl: Commands, server: Server) -> None:
    assert gafferctl("add_process", "web", "sleep 2000") == OK
    assert gafferctl("status", "web").out == "active\n"
    assert gafferctl("add_process", "--nostart", "idle", "sleep 2000") == OK
    assert gafferctl("status", "idle").out == "stopped\n"
    ran = gafferctl("add_process", "web", "sleep 2000")
    assert (ran.status, "web" in ran.err) == (1, True)
    assert gafferctl("update_process", "web", "sleep 3000") == OK
    template = json.loads(gafferctl("get_process", "web").out)
    assert "3000" in [template["cmd"], *template["args"]] or "3000" in template["cmd"]
    assert gafferctl("del_process", "web") == OK
    assert gafferctl("get_process", "web").status == 4
    assert gafferctl("add_process", "--start", "--nostart", "x", "y").status == 2


@pytest.mark.row("GC-04", "GC-05", "GC-06", "CL-51")
@pytest.mark.parametrize("form", ["load_process FILE", "load FILE", "load_process -"])
def test_load_process(server: Server, tmp_path: Path, form: str) -> None:
    path = tmp_path / "test.json"
    path.write_text('{"name": "somename", "cmd": "sleep 1000", "args": [], "env": {}, "uid": "", "numprocesses": 2}')
    words = [str(path) if word == "FILE" else word for word in form.split()]
    with path.open() as stdin:
        done = subprocess.run(
            [command_path("gafferctl"), "--connect", server.url, *words],
            stdin=stdin,
            capture_output=True,
            env=clean_env(),
            text=True,
            timeout=30,
        )
    assert (done.returncode, done.stdout, done.stderr) == OK
    eventually(lambda: server.get_job("somename").running == 2)


def test_load_process_without_starting(gafferctl: Commands, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_text('{"name": "one", "cmd": "sleep 1", "start": true}')
    assert gafferctl("load_process", "--nostart", path) == OK
    assert gafferctl("status", "one").out == "stopped\n"
    path.write_text('{"name": "two", "cmd": "sleep 1", "start": false}')
    assert gafferctl("load_process", path) == OK
    assert gafferctl("status", "two").out == "stopped\n"
    path.write_text('{"jobs": [{"name": "shop.a", "cmd": "sleep 1000"}, {"name": "shop.b", "cmd": "sleep 1000"}]}')
    assert gafferctl("load_process", path) == OK
    assert server.jobs("shop") == ["shop.a", "shop.b"]


@pytest.mark.parametrize(
    "content", ['{"name": "one"}', '{"cmd": "x"}', '{"name": "one", "cmd": "x", "numproceses": 1}']
)
def test_load_process_mistakes(gafferctl: Commands, server: Server, tmp_path: Path, content: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(content)
    ran = gafferctl("load_process", path)
    assert (ran.status, ran.out) == (1, "")
    assert "$." in ran.err
    assert server.processes() == ["nap"]


@pytest.mark.row("GC-17")
@pytest.mark.parametrize(
    "command",
    ["start", "stop", "add", "sub", "status", "running", "numprocesses", "pids", "get_process", "del_process"],
)
def test_what_is_not_there(gafferctl: Commands, server: Server, command: str) -> None:
    ran = gafferctl(command, "none")
    assert (ran.status, ran.out) == (4, "")
    assert "none" in ran.err.splitlines()[0]


@pytest.mark.row("GC-02")
def test_a_unix_socket(gafferctl: Commands, tmp_path: Path) -> None:
    path = tmp_path / "gafferd.sock"
    with gafferd("--bind", f"unix:{path}"):
        assert gafferctl("--connect", f"unix:{path}", "processes") == (0, "", "")


def test_no_node_is_up(gafferctl: Commands, tmp_path: Path) -> None:
    ran = gafferctl("--connect", f"unix:{tmp_path}/none", "processes")
    assert (ran.status, ran.out) == (3, "")
    assert "no such file or directory" in ran.err


def test_a_malformed_answer_is_one_clear_line(gafferctl: Commands, answering: Callable[..., Answering]) -> None:
    bad = answering()
    bad.answer("/processes", '{"not": "a list"}')
    ran = gafferctl("--connect", bad.url, "processes")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"gafferctl: {bad.url} sent an invalid response")


@pytest.mark.row("CL-66", "GC-02")
def test_version_and_help(gafferctl: Commands) -> None:
    assert gafferctl("version").out == gafferctl("--version").out == gafferctl("-v").out
    assert gafferctl("help").out == gafferctl("-h").out
    assert gafferctl("help", "add").out.startswith("Usage: gafferctl add [options] <name> [<inc>]\n")
    assert gafferctl("help", "ad").status == 2


def test_reload_config(gafferctl: Commands, gaffer: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:web]\ncmd = sleep 1000\n[process:old]\ncmd = sleep 1000\n")
    with gafferd("-c", str(config)) as node:
        monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
        assert gafferctl("reload_config").out == "no changes of jobs and webhooks\n"
        config.write_text(
            "[gaffer]\nlog_level = debug\n[webhooks]\nexit = http://127.0.0.1:9/\n[proces:x]\n"
            "[process:web]\ncmd = sleep 1001\n"
        )
        shown = gafferctl("reload_config", "--dry-run")
        assert shown.out.splitlines() == [
            "would remove default.old",
            "would update default.web: cmd (replaces its processes)",
            "would add webhook exit of http://127.0.0.1:9/",
            "restart gafferd to apply log_level",
        ]
        assert shown.err == f"warning: {config}:5: [proces:x] unknown section, ignored unless a plugin reads it\n"
        assert gafferctl("reload_config").out == shown.out.replace("would ", "")
        gafferctl("add", "web")
        drift = "Drift: differs from the configuration file: numprocesses (2 instead of 1)\n"
        assert drift in gafferctl("status", "web").out
        assert drift in gaffer("ps", "default").out
        config.write_text("[process:web]\ncmd = sleep 1001\nport = 8123\n")
        failed = gafferctl("reload_config")
        assert failed.err.startswith("gafferctl: can't update default.web: port: 2 processes can't share port 8123\n")
        assert failed.status == 1
        config.write_text(config.read_text() + "[process:new]\ncmd = sleep 1000\n")
        assert gafferctl("reload_config", "--json").status == 5
        config.write_text("[process:web]\n[process:new]\n")
        broken = gafferctl("reload_config")
        assert broken.status == 1
        assert broken.err.count(": cmd is missing") + broken.err.count("] cmd is missing") == 2
