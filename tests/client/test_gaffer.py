"""The command `gaffer` against a real cluster of one node."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gaffer_client import Lookup, Server
from support.client import Answering, Commands
from support.daemons import Daemon, clean_env, command_path, gafferd, lookupd, run_command
from support.poll import eventually

PROCFILE = """\
# the application
web: sleep 1000
api: sh -c 'exec sleep $PORT'
worker: sleep 1001
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd("--ttl", "2", "--interval", "0.5") as registry:
        yield registry


@pytest.fixture(scope="module")
def node(registry: Daemon) -> Iterator[Daemon]:
    with gafferd("--lookupd-address", registry.url, "--node-name", "one") as node:
        yield node


@pytest.fixture
def server(node: Daemon, registry: Daemon, monkeypatch: pytest.MonkeyPatch, gaffer: Commands) -> Iterator[Server]:
    """The node, which `gaffer` finds in the environment; what a test loads is unloaded."""
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    monkeypatch.setenv("GAFFER_LOOKUPD", registry.url)
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids(), message="the jobs are still stopping")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Procfile, in which commands run."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / "Procfile").write_text(PROCFILE)
    (root / ".env").write_text('COLOUR="red"\nSIZE=1\n')
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address where nobody listens, as node and as lookup."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("GAFFER_ENDPOINT", url)
        monkeypatch.setenv("GAFFER_LOOKUPD", url)
        yield url


def config(server: Server, name: str) -> dict[str, Any]:
    return server.get_job(name).info()["config"]


# load


@pytest.mark.row("GF-24", "GF-10", "PF-02")
def test_load_takes_all_types_of_the_folder(gaffer: Commands, server: Server, shop: Path) -> None:
    ran = gaffer("load")
    assert (ran.status, ran.err) == (0, "")
    assert server.jobs() == ["shop.web", "shop.api", "shop.worker"]
    web = config(server, "shop.web")
    assert web["cwd"] == str(shop)
    assert web["redirect_output"] == ["out", "err"]
    assert web["env"] == {"COLOUR": "red", "SIZE": "1"}
    eventually(lambda: all(server.get_job(name).running == 1 for name in server.jobs()))


def test_load_gives_each_type_ports_and_announces_those_that_listen(
    gaffer: Commands, server: Server, shop: Path
) -> None:
    assert gaffer("load").status == 0
    assert [config(server, f"shop.{name}")["port"] for name in ("web", "api", "worker")] == ["8000+", "8100+", "8200+"]
    assert config(server, "shop.web")["endpoints"] is None  # http:$PORT
    assert config(server, "shop.api")["endpoints"] is None
    assert config(server, "shop.worker")["endpoints"] == []
    # A second application gets the next block, and the same again after it was gone.
    assert gaffer("load", "--nostart", "second").status == 0
    assert config(server, "second.web")["port"] == "8300+"
    assert gaffer("unload", "second").status == 0
    assert gaffer("load", "--nostart", "second").status == 0
    assert config(server, "second.web")["port"] == "8300+"


def test_load_with_given_ports(gaffer: Commands, server: Server, shop: Path) -> None:
    assert gaffer("load", "-p", "9100", "--nostart").status == 0
    assert config(server, "shop.api")["port"] == "9200+"
    assert gaffer("load", "--port", "auto", "--nostart", "second").status == 0
    assert config(server, "second.api")["port"] == "auto"


@pytest.mark.row("GF-23", "GF-04", "GF-05")
def test_load_with_concurrency_from_another_folder(
    gaffer: Commands, server: Server, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = tmp_path / "more.env"
    extra.write_text("SIZE=2\n")
    (tmp_path / "last.env").write_text("KIND=new\n")
    files = f"{extra},last.env"
    ran = gaffer("load", "-d", "shop", "-e", files, "-e", "TASTE=sweet", "-c", "web=2,api=0", "-c", "worker=3", ".")
    assert ran.status == 0
    assert {name: config(server, name)["numprocesses"] for name in server.jobs("shop")} == {
        "shop.web": 2,
        "shop.api": 0,
        "shop.worker": 3,
    }
    assert config(server, "shop.web")["env"] == {
        "COLOUR": "red",
        "SIZE": "2",
        "KIND": "new",
        "TASTE": "sweet",
    }
    assert config(server, "shop.web")["cwd"] == str(shop)


@pytest.mark.row("GF-03")
def test_load_from_another_procfile(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "Procfile.dev").write_text("mail: sleep 1000\n")
    assert gaffer("-f", "Procfile.dev", "load", "--nostart").status == 0
    assert server.jobs("shop") == ["shop.mail"]


def test_load_without_starting(gaffer: Commands, server: Server, shop: Path) -> None:
    assert gaffer("load", "--nostart").status == 0
    assert not any(server.get_job(name).active for name in server.jobs())


def test_load_twice_is_a_conflict_and_changes_nothing(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "Procfile").write_text("worker: sleep 1\n")
    assert gaffer("load", "--nostart").status == 0
    (shop / "Procfile").write_text(PROCFILE)
    ran = gaffer("load")
    assert ran.status == 1
    assert ran.out == ""
    assert "shop.worker" in ran.err
    assert "gaffer unload shop" in ran.err
    assert server.jobs() == ["shop.worker"]


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"name": "one", "cmd": "sleep 1000"}, ["default.one"]),
        ({"name": "shop.one", "cmd": "sleep 1000"}, ["shop.one"]),
        (
            {"jobs": [{"name": "one", "cmd": "sleep 1"}, {"name": "two", "cmd": "sleep 1"}]},
            ["default.one", "default.two"],
        ),
    ],
)
def test_load_a_json_file(
    gaffer: Commands, server: Server, tmp_path: Path, document: dict[str, Any], names: list[str]
) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(document))
    assert gaffer("load", "--nostart", path).status == 0
    assert server.jobs() == names


def test_load_json_from_stdin(server: Server) -> None:
    done = subprocess.run(
        [command_path("gaffer"), "load", "--endpoint", server.url, "--app", "shop", "-"],
        input='{"name": "one", "cmd": "sleep 1000"}',
        env=clean_env(),
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert server.jobs() == ["shop.one"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "no job description"),
        ('{"jobs": []}', "no job description"),
        ('{"jobs": ["a"]}', "no job description"),
        ('{"jobs": [{"name": "a.x", "cmd": "y"}, {"name": "b.x", "cmd": "y"}]}', "several sessions: a, b"),
    ],
)
def test_load_what_is_no_job_file(
    gaffer: Commands, server: Server, tmp_path: Path, content: str, complaint: str
) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(content)
    ran = gaffer("load", path)
    assert ran.status == 2
    assert complaint in ran.err
    assert server.jobs() == []


def test_load_shows_each_mistake_that_the_node_finds(gaffer: Commands, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    path.write_text('{"jobs": [{"name": "one", "cmd": "x", "numproceses": 2}, {"name": "two"}]}')
    ran = gaffer("load", path)
    assert ran.status == 1
    assert "$.jobs[0].numproceses" in ran.err
    assert "numprocesses" in ran.err
    assert "$.jobs[1]" in ran.err
    assert server.jobs() == []


@pytest.mark.parametrize(
    ("arguments", "complaint", "hint"),
    [
        (["-c", "wbe=2"], "no type 'wbe'", "did you mean 'web'?"),
        (["-c", "web"], "'web' is not a valid concurrency", "type=number"),
        (["-c", "web=-1"], "not a valid concurrency", "type=number"),
        (["-c", "web=101"], "exceeds the 100 ports of a type", "--port auto"),
        (["-p", "http"], "'http' is not a port", "auto"),
        (["-p", "65500"], "not enough ports", "--port auto"),
        (["-e", "missing.env"], "no such env file: missing.env", "KEY=VALUE"),
        (["-e", "Procfile,missing.env"], "no such env file: missing.env", "KEY=VALUE"),
        (["-f", "Missing"], "no such file", "use -f for the path"),
        (["-f", "open quotation"], "open quotation:2: web: No closing quotation", "close the quotation"),
        (["a.b"], "not a valid session name", "use 1 to 64"),
        (["missing.json"], "can't read missing.json", ""),
        (["--app", "x"], "--app applies only to JSON files", "gaffer load NAME"),
    ],
)
def test_load_mistakes(
    gaffer: Commands, server: Server, shop: Path, arguments: list[str], complaint: str, hint: str
) -> None:
    (shop / "open quotation").write_text("# of a test\nweb: echo it's\n")
    ran = gaffer("load", *arguments)
    assert ran.status in (1, 2)
    assert complaint in ran.err
    assert hint in ran.err
    assert server.jobs() == []


def test_load_a_procfile_without_types(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "Procfile").write_text("nothing here\n")
    ran = gaffer("load")
    assert ran.status == 2
    assert "defines no process types" in ran.err


def test_load_from_a_folder_whose_name_is_no_session(
    gaffer: Commands, server: Server, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop.parent / "my shop"
    shop.rename(folder)
    monkeypatch.chdir(folder)
    ran = gaffer("load")
    assert (ran.status, "my shop" in ran.err, "give a name" in ran.err) == (2, True, True)
    assert gaffer("load", "myshop").status == 0


# unload, apps


@pytest.mark.row("GF-25", "CL-29")
def test_unload(gaffer: Commands, server: Server, shop: Path) -> None:
    gaffer("load", "--nostart")
    gaffer("load", "--nostart", "second")
    assert gaffer("apps").out == "shop\nsecond\n"
    assert gaffer("unload").status == 0
    assert gaffer("unload", "second.web").status == 0
    assert server.jobs() == ["second.api", "second.worker"]
    assert gaffer("unload", "second").status == 0
    assert server.jobs() == []
    ran = gaffer("unload")
    assert (ran.status, ran.out) == (4, "")
    assert ran.err.startswith("gaffer: 'shop' not found")


# scale


@pytest.mark.row("GF-29")
def test_scale(gaffer: Commands, server: Server, shop: Path) -> None:
    gaffer("load")
    ran = gaffer("scale", "web=3", "worker+2", "api-1")
    assert ran.status == 0
    assert ran.out == (
        "Scaling web processes... done, now running 3\n"
        "Scaling worker processes... done, now running 3\n"
        "Scaling api processes... done, now running 0\n"
    )
    eventually(lambda: server.get_job("shop.web").running == 3)
    assert gaffer("scale", "shop", "web=1").out.endswith("now running 1\n")
    assert gaffer("scale", "shop.web+1").out.endswith("now running 2\n")
    assert json.loads(gaffer("--json", "scale", "web=1").out) == {"web": {"numprocesses": 1}}


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["wbe=1"], 4, "can't scale wbe"),
        (["web=2", "wbe=1"], 5, "can't scale wbe"),
        (["none", "web=1"], 4, "can't scale web"),
        ([], 2, "no types to scale"),
        (["shop"], 2, "no types to scale"),
        (["shop", "web"], 2, "'web' is not a valid change"),
        (["web=many"], 2, "'web=many' is not a valid change"),
        (["web=-1"], 2, "'web=-1' is not a valid change of the number of processes\n  use 0 or more"),
    ],
)
def test_scale_mistakes(
    gaffer: Commands, server: Server, shop: Path, arguments: list[str], status: int, complaint: str
) -> None:
    gaffer("load")
    ran = gaffer("scale", *arguments)
    assert ran.status == status
    assert complaint in ran.err


# ps


@pytest.mark.row("GF-26")
def test_ps_shows_a_block_for_each_type(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "gaffer.ini").write_text("[job:web]\nstartsecs = 0\n[job:worker]\nstartsecs = 1000\n")
    gaffer("load", "-c", "web=2,api=0")
    eventually(lambda: (server.get_job("shop.web").running, server.get_job("shop.worker").running) == (2, 1))
    ran = gaffer("ps")
    assert ran.status == 0
    block = (
        r"=== web: `sleep 1000`\n"
        r"Total CPU: \d+\.\d{6} Total MEM: \d+\.\d\d\n"
        r"\n"
        r"web\.1: up for \d+:\d\d\.\d\d, pid \d+, os pid \d+, port (\d+), ready\n"
        r"web\.2: up for \d+:\d\d\.\d\d, pid \d+, os pid \d+, port (\d+), ready\n"
        r"=== api"
    )
    shown = re.match(block, ran.out)
    assert shown is not None
    assert int(shown[2]) == int(shown[1]) + 1
    assert ran.out.endswith("\nworker is starting\n")
    assert "\x1b" not in ran.out
    assert gaffer("ps", "shop").out.count("===") == 3
    document = json.loads(gaffer("ps", "--json").out)
    assert [job["name"] for job in document["jobs"]] == ["shop.web", "shop.api", "shop.worker"]


@pytest.mark.row("GF-27")
@pytest.mark.parametrize(
    ("more", "colours"), [({}, ["\x1b[36m", "\x1b[33m", "\x1b[32m"]), ({"NO_COLOR": "1"}, [""] * 3)]
)
def test_ps_gives_each_type_a_colour_on_a_terminal(
    gaffer: Commands, server: Server, shop: Path, more: dict[str, str], colours: list[str]
) -> None:
    gaffer("load", "--nostart")
    ours, theirs = pty.openpty()
    try:
        command = [command_path("gaffer"), "ps", "--endpoint", server.url]
        subprocess.run(command, stdout=theirs, env=clean_env({"TERM": "xterm", **more}), timeout=30, check=True)
        text = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert re.findall("(\x1b[^m]*m|)=== ", text) == colours


def test_ps_shows_restarts_and_the_last_exit(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "Procfile").write_text("web: test -e done && exec sleep 1000; touch done; exit 3\n")
    gaffer("load")
    eventually(lambda: server.get_job("shop.web").info()["restarts"])
    eventually(lambda: server.get_job("shop.web").running == 1)
    assert re.search(r"\nRestarts: 1; the last process ended with exit code 3 after \d+\.\d s\n", gaffer("ps").out)


def test_ps_says_that_the_last_start_failed(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "Procfile").write_text("web: no-such-program\n")
    gaffer("load")
    expected = r"\nRestarts: \d+; the last start failed\nweb is in backoff: .*no-such-program"
    eventually(lambda: re.search(expected, gaffer("ps").out))  # between two attempts to start it


def test_scale_says_when_what_it_changed_will_run(gaffer: Commands, server: Server, shop: Path) -> None:
    (shop / "Procfile").write_text(f"{PROCFILE}task: true\n")
    (shop / "gaffer.ini").write_text("[job:task]\nkind = once\n")
    gaffer("load", "--nostart")
    assert gaffer("scale", "web=2").out == (
        "Scaling web processes... done, 2 to run after `gafferctl start shop.web`: web is stopped\n"
    )
    server.get_job("shop.task").start()
    eventually(lambda: server.get_job("shop.task").info()["state"] == "completed")
    assert re.match(
        "Scaling task processes... done, 2 to run after `gafferctl start shop.task`: task is completed: ",
        gaffer("scale", "task=2").out,
    )
    server.drain()
    try:
        server.get_job("shop.web").start()
        eventually(lambda: server.get_job("shop.web").info()["state"] == "waiting")
        assert gaffer("scale", "web=3").out == (
            "Scaling web processes... done, 3 to run later: web is waiting: the node is drained\n"
        )
    finally:
        server.resume()
    ran = gaffer("scale", "web=101", "api+1")
    assert ran.status == 5
    assert "which belongs to shop.api" in ran.err


def test_ps_says_why_a_type_does_not_run(gaffer: Commands, server: Server, shop: Path) -> None:
    gaffer("load", "--nostart")
    assert "web is stopped" in gaffer("ps").out
    assert gaffer("ps", "none").status == 4


# lookup


@pytest.mark.row("CL-36", "CL-37")
def test_lookups(gaffer: Commands, server: Server, node: Daemon, registry: Daemon, shop: Path) -> None:
    gaffer("load", "--port", "auto", "-c", "web=2")
    with Lookup(registry.url) as lookup:
        eventually(lambda: [len(s["pids"]) for s in lookup.find_job("shop.web")["sources"]] == [2])
        eventually(lambda: lookup.jobs()["nb_jobs"] == 3)
    ran = gaffer("lookup:job", "shop.web")
    assert (ran.status, ran.err) == (0, "")
    header, row = ran.out.splitlines()
    assert header.split() == ["NODE", "JOB", "PROCESSES", "ENDPOINT", "STATE", "AGE"]
    assert re.match(r"one +shop\.web +\d+ \d+ +127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+ +alive", row)

    assert node.url in gaffer("lookup:nodes").out
    assert len(gaffer("lookup:jobs").out.splitlines()) == 4
    assert len(gaffer("lookup:sessions").out.splitlines()) == 4
    assert len(gaffer("lookup:sessions", "one").out.splitlines()) == 4
    assert len(gaffer("lookup:session", "shop").out.splitlines()) == 4

    document = json.loads(gaffer("lookup:job", "shop/web", "--json").out)
    assert document["sources"][0]["node_info"]["name"] == "one"
    assert document["lookups"] == {"agree": [registry.url], "unreachable": []}


def test_what_no_node_has(gaffer: Commands, server: Server) -> None:
    ran = gaffer("lookup:job", "shop.none")
    assert (ran.status, ran.out, ran.err) == (4, "", "gaffer: no node has the job shop.none\n")
    assert gaffer("lookup:session", "none").status == 4
    assert gaffer("lookup:sessions", "none").status == 0
    ran = gaffer("lookup:job", "shop.none", "--json")
    assert (ran.status, json.loads(ran.out)["sources"]) == (4, [])


def test_one_lookup_of_two_is_down(gaffer: Commands, server: Server, registry: Daemon, nobody: str) -> None:
    ran = gaffer("lookup:nodes", "-L", f"{nobody}, {registry.url}")
    assert ran.status == 0
    assert "one " in ran.out
    assert ran.err == f"warning: can't reach {nobody}: connection refused\n"


@pytest.mark.parametrize("command", ["lookup:nodes", "lookup:jobs", "lookup:job shop.web", "lookup:session shop"])
def test_no_lookup_is_up(gaffer: Commands, nobody: str, command: str) -> None:
    ran = gaffer(*command.split())
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"gaffer: can't reach {nobody}: connection refused\n")
    assert "GAFFER_LOOKUPD" in ran.err


@pytest.mark.row("FEAT-17")
@pytest.mark.parametrize("command", ["load", "unload", "ps", "scale web=1", "apps"])
def test_no_node_is_up(gaffer: Commands, nobody: str, shop: Path, command: str) -> None:
    ran = gaffer(*command.split())
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"gaffer: can't reach {nobody}: connection refused\n")
    assert "GAFFER_ENDPOINT" in ran.err


@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"sources": [{"name": 1}]}', '{"sources": null}'])
def test_a_malformed_answer_is_one_clear_line(gaffer: Commands, answering: Callable[..., Answering], body: str) -> None:
    bad = answering()
    bad.answer("/findJob", body)
    ran = gaffer("lookup:job", "shop.web", "-L", bad.url)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"gaffer: {bad.url} sent an invalid response")


def test_what_a_server_sends_does_not_steer_the_terminal(gaffer: Commands, answering: Callable[..., Answering]) -> None:
    bad = answering()
    bad.answer("/nodes", '{"nodes": [{"name": "a\\u001b[2Jb", "origin": "http://x\\ny", "version": "0.1"}]}')
    ran = gaffer("lookup:nodes", "-L", bad.url)
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 2


# settings


@pytest.mark.row("GF-06")
def test_flag_environment_file_default(
    gaffer: Commands, node: Daemon, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gaffer.ini"
    file.write_text(f"[client]\nendpoint = {node.url}\n[process:other]\ncmd = x\n")
    monkeypatch.setenv("GAFFER_CONFIG", str(file))
    assert gaffer("apps").status == 3  # the environment
    monkeypatch.delenv("GAFFER_ENDPOINT")
    assert gaffer("apps").status == 0  # the file
    assert gaffer("apps", "--endpoint", nobody).status == 3  # the flag
    file.write_text("[client]\n")
    ran = gaffer("apps")
    assert "http://127.0.0.1:5000" in ran.err or ran.status == 0


@pytest.mark.row("GF-07")
@pytest.mark.parametrize(
    ("content", "complaints"),
    [
        (b"[client]\nendpiont = x\n", ["2: [client] unknown key 'endpiont'", "did you mean 'endpoint'?"]),
        (
            b'[node "http://a:1"]\nlookupd = x\n',
            [
                "2: [node \"http://a:1\"] unknown key 'lookupd'",
                "known keys: api_key_file, cacert, certfile, keyfile, insecure",
            ],
        ),
        (
            b"endpoint = x\n[client]\n\nendpoint: y\n",
            [
                "1: 'endpoint = x' before the first section",
                "start with a section header such as [client]",
                "4: [client] expected key = value, got 'endpoint: y'",
                "write endpoint = y",
            ],
        ),
        (b"[client]\ninsecure = maybe\n", ["2: [client] insecure: expected true or false, got 'maybe'"]),
        (b"[client]\n; \xff\n", ["2: the file is not UTF-8 text", "save it as UTF-8"]),
    ],
)
def test_a_wrong_configuration_file(
    gaffer: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, complaints: list[str]
) -> None:
    file = tmp_path / "gaffer.ini"
    file.write_bytes(content)
    monkeypatch.setenv("GAFFER_CONFIG", str(file))
    ran = gaffer("apps")
    assert ran.status == 2
    place = f"gaffer: {file}:"
    assert ran.err.splitlines() == [f"{place}{line}" if line[0].isdigit() else f"  {line}" for line in complaints]
    file.unlink()
    ran = gaffer("apps")
    assert (ran.status, ran.err.splitlines()) == (2, [f"gaffer: no such file: {file}", "  correct GAFFER_CONFIG"])


def test_a_node_that_hangs_is_not_asked_again_what_it_is(gaffer: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        ran = gaffer("apps", "-g", f"http://127.0.0.1:{hung.getsockname()[1]}", "--timeout", "0.2")
        assert (ran.status, ran.err.count("no response within 0.2 s")) == (3, 1)
        hung.setblocking(False)
        hung.accept()[0].close()
        with pytest.raises(BlockingIOError):
            hung.accept()


def test_an_empty_value_of_an_option_is_no_default(gaffer: Commands) -> None:
    for words, option in ((("-g", ""), "--endpoint"), (("--lookupd=",), "--lookupd"), (("--context", ""), "--context")):
        for line in ((*words, "apps"), ("apps", *words)):
            ran = gaffer(*line)
            assert (ran.status, ran.err.splitlines()[0]) == (2, f"gaffer: {option}: the value is empty")


@pytest.mark.row("GF-07")
def test_keys(
    gaffer: Commands, answering: Callable[..., Answering], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = answering()
    node.answer("/sessions", '{"sessions": []}')
    for name in ("flag", "variable", "file"):
        (tmp_path / name).write_text(f"gk_{name}\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "gaffer.ini").write_text(f'[node "{node.url}/"]\napi_key_file = {tmp_path}/file\n')

    def sent(*arguments: str) -> str | None:
        assert gaffer("apps", "--endpoint", node.url, *arguments).status == 0
        header: str | None = node.requests[-1].headers.get("Authorization")
        return header

    assert sent() is None
    monkeypatch.setenv("GAFFER_CONFIG", str(tmp_path / "gaffer.ini"))
    assert sent() == "Bearer gk_file"
    monkeypatch.setenv("GAFFER_API_KEY", "gk_value")
    assert sent() == "Bearer gk_value"
    monkeypatch.setenv("GAFFER_API_KEY_FILE", str(tmp_path / "variable"))
    assert sent() == "Bearer gk_variable"
    assert sent("--api-key-file", str(tmp_path / "flag")) == "Bearer gk_flag"
    ran = gaffer("apps", "--endpoint", node.url, "--api-key-file", tmp_path / "none")
    assert ran.status == 2
    assert "can't read the key file" in ran.err


@pytest.mark.parametrize(
    ("environ", "file", "arguments", "said"),
    [
        ({"GAFFER_INSECURE": "perhaps"}, "", [], "GAFFER_INSECURE: expected true or false, got 'perhaps'"),
        ({}, "insecure = perhaps", [], "[client] insecure: expected true or false, got 'perhaps'"),
        ({"GAFFER_API_KEY": "two words"}, "", [], "GAFFER_API_KEY: not a key"),
        ({"GAFFER_API_KEY_FILE": "/none"}, "", [], "GAFFER_API_KEY_FILE: can't read the key file /none"),
        ({}, "api_key_file = /none", [], "[client] api_key_file: can't read the key file /none"),
        ({}, "cacert = /none", [], "[client] cacert: there is no file '/none'"),
        ({}, "cacert = /none", ["--cacert=/missing"], "--cacert: there is no file '/missing'"),
    ],
)
def test_a_wrong_setting_is_reported_with_its_source(
    gaffer: Commands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    file: str,
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "gaffer.ini").write_text(f"[client]\n{file}\n")
    for name, value in {"GAFFER_CONFIG": str(tmp_path / "gaffer.ini"), **environ}.items():
        monkeypatch.setenv(name, value)
    ran = gaffer("apps", "--endpoint", "http://127.0.0.1:1", *arguments)
    assert ran.status == 2
    assert said in ran.err


def test_a_variable_without_a_value_is_as_good_as_none(
    gaffer: Commands, answering: Callable[..., Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = answering()
    node.answer("/sessions", '{"sessions": []}')
    monkeypatch.setenv("GAFFER_API_KEY_FILE", "")
    monkeypatch.setenv("GAFFER_INSECURE", "")
    monkeypatch.setenv("GAFFER_API_KEY", "gk_value")
    assert gaffer("apps", "--endpoint", node.url).status == 0
    assert node.requests[-1].headers.get("Authorization") == "Bearer gk_value"


def test_a_node_that_wants_a_key_says_so(gaffer: Commands, answering: Callable[..., Answering]) -> None:
    node = answering()
    body = {"error": "auth_required", "errno": 401, "message": "a key is needed", "hint": "send it as `X-Api-Key: KEY`"}
    node.answer("/sessions", json.dumps(body), 401)
    ran = gaffer("apps", "--endpoint", node.url)
    assert ran.status == 1
    assert ran.err.splitlines() == [
        "gaffer: a key is needed",
        "  use --api-key-file or GAFFER_API_KEY_FILE to specify your key file",
    ]


@pytest.mark.parametrize(
    "command", ["apps", "ps default", "unload default", "scale default web=1", "key:list", "drain"]
)
def test_a_lookupd_given_as_the_node_is_recognized(gaffer: Commands, registry: Daemon, command: str) -> None:
    ran = gaffer(*command.split(), "-g", registry.url)
    assert ran.status in (1, 4)
    assert "this is a gaffer_lookupd: use its URL with `gaffer -L`" in ran.err


@pytest.mark.parametrize(
    "command",
    ["lookup:nodes", "lookup:jobs", "lookup:job shop.web", "lookup:sessions", "lookup:session shop", "lookup"],
)
def test_a_node_given_as_the_lookupd_is_recognized(gaffer: Commands, node: Daemon, command: str) -> None:
    ran = gaffer(*command.split(), "-L", node.url)
    assert ran.status in (1, 3, 4)
    assert "this is a gafferd: use its URL with --endpoint" in ran.err


def test_https_to_a_port_of_plain_http_is_recognized(gaffer: Commands, node: Daemon) -> None:
    ran = gaffer("apps", "-g", node.url.replace("http:", "https:"))
    assert ran.status == 3
    assert "no answer" not in ran.err  # which takes the whole timeout
    assert f"this port uses plain http: use {node.url}" in ran.err


def test_http_to_a_port_of_tls_is_recognized(gaffer: Commands, tmp_path: Path) -> None:
    certificate, key = tmp_path / "crt", tmp_path / "key"
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    with gafferd("--certfile", str(certificate), "--keyfile", str(key)) as secure:
        ran = gaffer("apps", "-g", secure.url.replace("https:", "http:"))
        assert ran.status == 3
        assert f"this port uses TLS: use {secure.url}" in ran.err
        ran = gaffer("apps", "-g", secure.url)
        assert ran.status == 3
        assert "use --cacert" in ran.err


def test_a_procfile_that_can_not_be_read(gaffer: Commands, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "Procfile").unlink()
    (shop / "Procfile").mkdir()
    ran = gaffer("export")
    assert (ran.status, ran.err) == (2, f"gaffer: can't read {shop}/Procfile: Is a directory\n")


def test_each_new_key_is_another(gaffer: Commands) -> None:
    keys = {gaffer("key:new").out for _ in range(2)}
    assert len(keys) == 2
    assert all(len(key.strip()) >= 43 for key in keys)


# the executable


@pytest.mark.row("GF-02", "GF-09")
def test_the_installed_command() -> None:
    ran = run_command("gaffer", "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"gaffer \d+\.\d+\.\d+\n", ran.stdout)
    ran = run_command("gaffer")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Commands:" in ran.stderr
    ran = run_command("gaffer", "lod")
    assert ran.returncode == 2
    assert ran.stderr == "gaffer: unknown command 'lod'\n  did you mean 'load'?\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = subprocess.Popen(
        [command_path("gaffer"), "help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), text=True
    )
    assert command.stdout is not None
    command.stdout.close()
    _, complaint = command.communicate(timeout=30)
    assert (command.returncode, complaint) == (141, "")


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [command_path("gaffer"), "key:new"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=clean_env(),
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert done.stderr == "gaffer: can't write: No space left on device\n"


def test_ctrl_c() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = threading.Event()

        def accept() -> None:
            connection, _ = silent.accept()
            with connection:
                asked.set()
                connection.recv(1)
                connection.settimeout(30)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=accept)
        thread.start()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = subprocess.Popen(
            [command_path("gaffer"), "apps", "--endpoint", url], stderr=subprocess.PIPE, env=clean_env(), text=True
        )
        assert asked.wait(30)
        command.send_signal(signal.SIGINT)
        _, complaint = command.communicate(timeout=30)
        assert (command.returncode, complaint) == (130, "")
        thread.join()
