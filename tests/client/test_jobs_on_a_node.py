"""The verbs of `gaffer` for jobs and processes of a node, and the channels to their input and output."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer_client import Server
from support.client import Commands
from support.daemons import Daemon, clean_env, command_path, gafferd, run_command
from support.poll import eventually

COLOURED = r"""sh -c 'while read line; do printf "\033[31m%s\033[0m\n" "$line"; done'"""


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(node: Daemon, monkeypatch: pytest.MonkeyPatch, gaffer: Commands, tmp_path: Path) -> Iterator[Server]:
    """The node, with two jobs of the application in the current directory."""
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    with Server(node.url) as server:
        server.load({"name": "web", "cmd": "sleep 1000", "numprocesses": 2, "port": "8000+"}, "shop")
        server.load({"name": "echo", "cmd": COLOURED, "redirect_output": ["out"], "redirect_input": True}, "shop")
        eventually(lambda: len(server.pids()) == 3)
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids())


def test_status_has_a_row_for_each_process(gaffer: Commands, server: Server) -> None:
    server.load({"name": "cron", "cmd": "true", "start": False}, "shop")
    ran = gaffer("status")
    heading, *rows = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert heading.split("  ")[0] == "NAME"
    [one, two, echo, cron] = [re.split(r"\s{2,}", row) for row in rows]
    processes = server.get_job("shop.web").info()["instances"]
    assert [one[0], one[3], one[4]] == ["shop.web.1", "8000", str(processes[0]["os_pid"])]
    assert [two[0], two[3]] == ["shop.web.2", "8001"]
    assert echo[0] == "shop.echo.1"
    assert cron[:5] == ["shop.cron", "stopped", "-", "-", "-"]
    assert [job["name"] for job in json.loads(gaffer("status", "--json", "web").out)["jobs"]] == ["shop.web"]


@pytest.mark.row("CL-30")
def test_stop_and_start_wait_for_all_jobs_of_a_session(gaffer: Commands, server: Server) -> None:
    ran = gaffer("ps:stop", "shop.*", "--wait")
    assert (ran.status, ran.err) == (0, "")
    assert server.pids() == []
    ran = gaffer("start", "shop.web", "--wait", "--timeout=30")
    assert (ran.status, ran.err) == (0, "")
    assert "Started shop.web" in ran.out
    assert server.get_job("shop.web").running == 2
    assert gaffer("ps:start", "echo").out == "Starting shop.echo\n"
    assert gaffer("stop", "echo", "--wait").status == 0
    assert gaffer("start", "echo", "-g", server.url).out == "Starting shop.echo\n"


@pytest.mark.row("CL-30")
def test_signals_reach_a_job_or_one_of_its_processes(gaffer: Commands, server: Server) -> None:
    first, second = server.get_job("shop.web").pids
    assert gaffer("kill", "web.2", "KILL").out == f"Sent KILL to process {second}\n"
    eventually(lambda: second not in server.pids())
    assert first in server.pids()
    assert gaffer("ps:kill", "web", "KILL").status == 0
    eventually(lambda: first not in server.pids())
    ran = gaffer("kill", "web.9", "KILL")
    assert (ran.status, ran.err.splitlines()[0]) == (4, "gaffer: shop.web has no process in slot 9")


def test_a_process_is_stopped_by_its_pid_and_replaced(gaffer: Commands, server: Server) -> None:
    pid = server.get_job("shop.web").pids[0]
    assert gaffer("stop", str(pid)).status == 0
    eventually(lambda: pid not in server.pids() and len(server.get_job("shop.web").pids) == 2)


@pytest.mark.row("CL-30")
def test_info_of_jobs_and_processes(gaffer: Commands, server: Server) -> None:
    out = gaffer("info", "web").out
    assert re.search(r"^Command +sleep 1000$", out, re.MULTILINE)
    assert re.search(r"^Processes +2 of 2$", out, re.MULTILINE)
    pid = server.get_job("shop.web").pids[0]
    assert re.search(r"^Job +shop.web$", gaffer("ps:info", str(pid)).out, re.MULTILINE)
    assert json.loads(gaffer("info", str(pid), "--json").out)["pid"] == pid


@pytest.mark.row("CL-22")
def test_commit_runs_a_process_once(gaffer: Commands, server: Server) -> None:
    ran = gaffer("commit", "web", "--var", "SIZE=3", "--json")
    pid = json.loads(ran.out)["pid"]
    environment = Path(f"/proc/{server.get_process(pid).info()['os_pid']}/environ")
    eventually(lambda: b"SIZE=3" in environment.read_bytes().split(b"\0"))
    assert "shop.web (once)" in gaffer("status", "web").out


def test_names_that_were_perhaps_meant(gaffer: Commands, server: Server) -> None:
    for words in (["stop", "wbe"], ["restart", "shop.wbe"], ["exits", "wbe"], ["info", "wbe"], ["status", "wbe"]):
        ran = gaffer(*words)
        assert (ran.status, ran.err.splitlines()[1]) == (4, "  did you mean 'shop.web'?"), words
    assert gaffer("ps", "shpo").err.splitlines()[1] == "  did you mean 'shop'?"
    assert gaffer("stop", "shpo.*").err.splitlines()[1] == "  did you mean 'shop'?"


def test_what_is_sent_comes_back_without_control_of_the_terminal(server: Server, node: Daemon) -> None:
    """Colours of another program reach a terminal only if --raw asks for them; a pipe gets each byte."""
    pid = server.get_job("shop.echo").pids[0]
    for options, expected in (((), b"\xef\xbf\xbd[31mone\xef\xbf\xbd[0m\r\n"), (("--raw",), b"\x1b[31mone\x1b[0m\r\n")):
        ours, theirs = pty.openpty()
        words = [command_path("gaffer"), "attach", str(pid), *options]
        attached = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env(node), close_fds=True)
        os.close(theirs)
        shown = b""
        while b"to detach" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"one\n")
        while expected not in shown:
            shown += os.read(ours, 4096)
        attached.send_signal(2)
        assert attached.wait(20) == 0
        os.close(ours)


@pytest.mark.row("CL-33", "CL-34")
def test_recv_copies_bytes_to_a_pipe_until_the_end(server: Server, node: Daemon) -> None:
    pid = server.get_job("shop.echo").pids[0]
    assert run_command("gaffer", "send", f"{pid}", "zwei", env=env(node)).returncode == 0
    words = [command_path("gaffer"), "recv", f"{pid}.out", "--tail=1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(node)) as receiving:
        assert receiving.stdout is not None
        assert receiving.stdout.readline() == b"\x1b[31mzwei\x1b[0m\n"
        server.get_job("shop.echo").stop()
        rest, errors = receiving.communicate(timeout=20)
    assert (rest, errors, receiving.returncode) == (b"", b"", 0)


def test_what_can_t_be_sent_or_received(gaffer: Commands, server: Server) -> None:
    pid = server.get_job("shop.web").pids[0]
    assert gaffer("send", str(pid), "x").status == 1
    ran = gaffer("recv", "web")
    assert (ran.status, ran.err.splitlines()[1]) == (2, "  name one of them: web.1, web.2")
    assert gaffer("recv", "99999").status == 4


def env(node: Daemon) -> dict[str, str]:
    return clean_env({"GAFFER_ENDPOINT": node.url, "HOME": os.devnull})


def test_plain_tables_are_lines_of_values(gaffer: Commands, server: Server) -> None:
    rows = [line.split("\t") for line in gaffer("status", "--plain").out.splitlines()]
    assert [row[0] for row in rows] == ["shop.web.1", "shop.web.2", "shop.echo.1"]
    assert {len(row) for row in rows} == {8}
    assert gaffer("status").out.startswith("NAME ")
