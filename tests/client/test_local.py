"""`gaffer start`, `run` and `export`: the installed command on a terminal of its own."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gaffer_client import Server
from support.client import Commands
from support.console import Terminal, piped, until
from support.daemons import clean_env, command_path, gafferd
from support.poll import eventually

PROCFILE = """\
web: sh -c 'echo web on $PORT as $COLOUR in $PWD; exec sleep 1000'
worker: sh -c 'echo working; exec sleep 1000'
"""

STUBBORN = "stubborn: sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.1; done'\n"

ASKING = """\
import sys
print("ready", sys.stdin.isatty(), flush=True)
try:
    print("I am", input())
except KeyboardInterrupt:
    sys.exit(9)
"""


On = Callable[..., Terminal]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "Procfile").write_text(PROCFILE)
    (root / ".env").write_text("COLOUR=red\n")
    return root


@pytest.fixture
def on_terminal(app: Path) -> Iterator[On]:
    """Run `gaffer` with these arguments on a terminal, in the folder of the application."""
    opened: list[Terminal] = []

    def run(*args: str, **env: str) -> Terminal:
        opened.append(Terminal(command_path("gaffer"), *args, cwd=app, **env))
        return opened[-1]

    yield run
    for terminal in opened:
        terminal.close()


def pid_in(text: str) -> int:
    found = re.search(r"spawn process with pid (\d+)", text)
    assert found is not None, text
    return int(found[1])


# start


@pytest.mark.row("GF-20", "GF-21", "CL-20", "PF-02")
def test_start_shows_all_types_and_ctrl_c_ends_them(on_terminal: On, app: Path) -> None:
    terminal = on_terminal("start", NO_COLOR="1")
    pid = int(terminal.shows(r"\d\d:\d\d:\d\d web    \| spawn process with pid (\d+)\n")[1])
    terminal.shows(rf"\d\d:\d\d:\d\d web    \| web on 8\d00 as red in {re.escape(str(app))}\n")
    terminal.shows(r"\d\d:\d\d:\d\d worker \| working\n")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert re.search(rf"web    \| exit process with pid {pid} \(SIGTERM\)\n", terminal.text)
    assert re.search(r"worker \| exit process", terminal.text)
    assert not psutil.pid_exists(pid)


@pytest.mark.row("GF-20")
def test_start_runs_the_types_that_are_named(app: Path) -> None:
    with piped(app, "start", "worker", "worker") as process:
        lines = until(process, "working")
    assert [line[9:].partition(" | ")[0] for line in lines] == ["worker", "worker"]


@pytest.mark.row("GF-23")
def test_start_takes_numbers_of_processes(app: Path) -> None:
    with piped(app, "start", "-c", "web=2,worker=0", "--concurrency=web=3") as process:
        found = "".join(line for _ in range(3) for line in until(process, "web on"))
    labels, ports = zip(*sorted(re.findall(r"(web\.\d) \| web on (\d+)", found)), strict=True)
    assert labels == ("web.1", "web.2", "web.3")
    assert [int(port) - int(ports[0]) for port in ports] == [0, 1, 2]
    assert "worker" not in found


def test_start_takes_a_number_for_all_other_types(app: Path) -> None:
    with piped(app, "start", "-c", "all=2,web=0") as process:
        found = "".join(line for _ in range(2) for line in until(process, "working"))
    assert set(re.findall(r"(\S+) \| working", found)) == {"worker.1", "worker.2"}
    assert "web" not in found


@pytest.mark.row("GF-22")
def test_start_replaces_what_ends_and_says_why_it_did(app: Path) -> None:
    with piped(app, "start", "worker") as process:
        pid = pid_in("\n".join(until(process, "working")))
        os.kill(pid, signal.SIGKILL)
        lines = until(process, "working")
    assert lines[0][9:] == f"worker | exit process with pid {pid} (SIGKILL)"
    assert pid_in(next(line for line in lines if "spawn" in line)) != pid


def test_start_tells_what_can_not_be_started(app: Path) -> None:
    (app / "Procfile").write_text("web: no-such-program\n")
    with piped(app, "start") as process:
        assert until(process, "web")[0][9:] == "web | can't be started: there is no program 'no-such-program'"


def test_start_can_show_all_events(app: Path) -> None:
    with piped(app, "start", "-v", "web") as process:
        assert until(process, "spawn")[0][9:] == "web | start"


def test_processes_get_the_shell_s_variables_and_an_input_that_stays_silent(app: Path) -> None:
    (app / "Procfile").write_text('web: timeout 0.3 cat; echo "status $? of $MINE"; sleep 1000\n')
    with piped(app, "start", MINE="shell") as process:
        until(process, "web | status 124 of shell")  # cat still waited for input, timeout(1)


@pytest.mark.row("PF-01")
def test_a_line_of_a_procfile_is_a_shell_command_line(app: Path) -> None:
    (app / "sub").mkdir()
    (app / "sub" / "marker").write_text("in-sub\n")
    (app / "my show.sh").write_text('#!/bin/sh\necho "args $* tone $TONE"; exec sleep 1000\n')
    (app / "my show.sh").chmod(0o755)
    (app / ".env").write_text("SECRET='a\"; touch OOPS; echo \"b'\nWORDS='one  two'\n")
    (app / "Procfile").write_text(
        "chain: cd sub && cat marker; sleep 1000\n"
        "assign: TONE=red \"./my show.sh\" 'a  b'\n"
        'default: "./my show.sh" ${LIMIT:-77} $WORDS # a comment\n'
        'plain: "./my show.sh" "one  word" --port=$PORT\n'
        'script: sh -c \'SECRET="[$SECRET]"; echo "$SECRET"; sleep 1000\'\n'
        "pipe: echo abc | tr abc ABC; sleep 1000\n"
    )
    wanted = {
        " chain | in-sub",
        "assign | args a  b tone red",
        "default | args 77 one two tone ",
        " plain | args one  word --port=",
        'script | [a"; touch OOPS; echo "b]',
        "  pipe | ABC",
    }
    with piped(app, "start") as process:
        text = ""
        while not all(line in text for line in wanted):
            text += until(process, " | ")[-1] + "\n"
    assert len({line.index("|") for line in text.splitlines()}) == 1
    assert not (app / "OOPS").exists()


def test_the_whole_tree_of_a_shell_line_ends(app: Path) -> None:
    (app / "Procfile").write_text("web: sleep 1001 & sh -c 'echo up; sleep 1002' | cat; wait\n")
    with piped(app, "start") as process:
        pid = pid_in("\n".join(until(process, "up")))
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        process.terminate()
        assert process.wait(10) == 0
    assert len(tree) > 3
    assert not any(each.is_running() for each in tree)


def test_start_takes_another_block_of_ports_when_one_is_in_use(app: Path) -> None:
    (app / "Procfile").write_text("quiet: sleep 1000\nweb: sh -c 'echo web on $PORT; exec sleep 1000'\n")
    with piped(app, "start", "web") as process:
        first = int(until(process, "web on")[-1].split()[-1])
    with socket.create_server(("127.0.0.1", first)):
        with piped(app, "start", "web") as process:
            second = int(until(process, "web on")[-1].split()[-1])
        with piped(app, "start", "quiet", "web", "-c", "web=0") as process:
            until(process, "spawn")
        with piped(app, "start", f"--port={first - 100}", "web") as process:
            assert int(until(process, "web on")[-1].split()[-1]) == first
    assert second > first
    assert (second - first) % 100 == 0


def test_odd_lines_are_warned_of_with_file_and_line(
    gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app)
    (app / "Procfile").write_text("web: first\nworker = run\nweb: second\n")
    (app / ".env").write_text("A=1\n\nnot a setting\n")
    ran = gaffer("export")
    assert ran.err.splitlines() == [
        f"warning: {app}/.env:3: line ignored: expected KEY=VALUE",
        f"warning: {app}/Procfile:2: ignored 'worker = run': expected TYPE: COMMAND",
        f"warning: {app}/Procfile:3: the type 'web' is already on line 1, which is ignored",
    ]
    assert "cmd = second" in ran.out
    (app / ".env").write_bytes(b"A=1\nCITY=Orl\xe9ans\n")
    ran = gaffer("export")
    assert ran.status == 2
    assert ran.err.startswith(f"gaffer: {app}/.env:2: invalid UTF-8: byte 0xe9\n")


def test_env_and_procfile_may_be_pipes(app: Path) -> None:
    script = 'exec "$0" -f <(echo "web: pwd; echo got \\$COLOUR; sleep 1000") -e <(echo COLOUR=blue) start'
    with subprocess.Popen(
        ["bash", "-c", script, command_path("gaffer")], cwd=app, env=clean_env(), stdout=subprocess.PIPE, text=True
    ) as process:
        lines = until(process, "web | got blue")
        process.terminate()
    assert str(app) in lines[-2] + lines[-1]


@pytest.mark.parametrize(("option", "port"), [("--port=9000", "9000"), ("--env=PORT=80", "80")])
def test_start_takes_a_port(app: Path, option: str, port: str) -> None:
    with piped(app, "start", option, "web") as process:
        until(process, f"web on {port} ")


def test_colours_are_for_terminals_that_take_them(on_terminal: On, app: Path) -> None:
    on_terminal("start").shows("\x1b\\[36mweb    \\|\x1b\\[0m spawn")
    with piped(app, "start", "web") as process:
        assert "\x1b" not in until(process, "web on")[0]


def test_a_second_ctrl_c_kills(on_terminal: On, app: Path) -> None:
    (app / "Procfile").write_text(STUBBORN)
    terminal = on_terminal("start")
    terminal.shows("up\n")
    terminal.type("\x03")
    terminal.shows("press Ctrl-C again to kill all processes")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "(SIGKILL)" in terminal.text


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_other_signals_end_it_gracefully(app: Path, signum: int) -> None:
    with piped(app, "start", "web") as process:
        pid = pid_in("\n".join(until(process, "web on")))
        process.send_signal(signum)
        until(process, "exit process")
        assert process.wait(10) == 0
    assert not psutil.pid_exists(pid)


def test_it_ends_with_its_terminal(on_terminal: On) -> None:
    terminal = on_terminal("start")
    pid = pid_in(terminal.shows(r"spawn process with pid \d+\n")[0])
    group = psutil.Process(terminal.process.pid)
    terminal.process.send_signal(signal.SIGHUP)  # what the kernel does when the terminal hangs up
    assert terminal.wait() == 0
    eventually(lambda: not group.is_running())
    assert not psutil.pid_exists(pid)


def test_it_ends_when_nobody_reads_its_output(app: Path) -> None:
    (app / "Procfile").write_text("web: sh -c 'while :; do echo hello; sleep 0.05; done'\n")
    with piped(app, "start") as process:
        pid = pid_in("\n".join(until(process, "hello")))
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(10) == 141
    assert not psutil.pid_exists(pid)


def test_output_that_can_not_be_written_is_reported(app: Path) -> None:
    words = [command_path("gaffer"), "start", "web", "--port=auto"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            words, cwd=app, stdout=full, stderr=subprocess.PIPE, env=clean_env(), text=True, timeout=30, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, "gaffer: can't write: No space left on device\n")


def test_processes_that_left_their_group_end_too(app: Path) -> None:
    (app / "Procfile").write_text(
        "web: sh -c 'setsid sh -c \"echo daemon \\$\\$; exec sleep 1000\" & exec sleep 1000'\n"
    )
    with piped(app, "start") as process:
        pid = int(until(process, "daemon")[-1].split()[-1])
        process.send_signal(signal.SIGINT)
        until(process, "exit process")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    # A zombie is left to the init process of this host, which may take its time.
    eventually(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE,
        retry_on=(psutil.NoSuchProcess,),
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["start", "wbe"], "the Procfile has no type 'wbe'"),
        (["start", "-c", "web=x"], "'web=x' is not a valid concurrency"),
        (["start", "-c", "web=0,worker=0"], "no processes to run"),
        (["start", "-c", "web=101"], "web=101 exceeds the 100 ports"),
        (["start", "-f", "nowhere"], "no such file"),
        (["run"], "no command given"),
        (["run", "-c", "many", "true"], "'many' is not a number of processes"),
        (["export", "--format=xml"], "unknown format 'xml'"),
        (["export", "wbe"], "the Procfile has no type 'wbe'"),
    ],
)
def test_mistakes_are_told(
    gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(app)
    ran = gaffer(*args)
    assert ran.status == 2
    assert message in ran.err


# run


@pytest.mark.row("GF-28", "CL-21")
def test_run_gives_the_command_the_environment_and_folder_of_the_application(app: Path) -> None:
    with piped(
        app.parent, "-d", str(app), "run", "sh", "-c", "echo $COLOUR $MINE $PWD; exit 7", MINE="shell"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"red shell {app}\n"
        assert process.wait(10) == 7


@pytest.mark.row("GF-28")
@pytest.mark.parametrize("number", ["2", "web=2"])
def test_run_takes_a_number(app: Path, number: str) -> None:
    with piped(app, "run", "-c", number, "echo", "-n", "x") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "xx"
        assert process.wait(10) == 0


def test_the_command_has_the_terminal_and_decides_about_ctrl_c(on_terminal: On, app: Path) -> None:
    (app / "ask.py").write_text(ASKING)
    terminal = on_terminal("run", "python3", "ask.py")
    terminal.shows("ready True")
    terminal.type("\x03")
    assert terminal.wait() == 9

    terminal = on_terminal("run", "python3", "ask.py")
    terminal.shows("ready True")
    terminal.type("me\n")
    assert terminal.wait() == 0
    assert "I am me" in terminal.text


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_the_command_is_told_of_the_signals_to_gaffer(app: Path, signum: int) -> None:
    with piped(app, "run", "sh", "-c", "echo up; exec sleep 1000") as process:
        until(process, "up")
        process.send_signal(signum)
        assert process.wait(10) == 128 + signum


@pytest.mark.parametrize(("word", "status"), [("no-such-program", 127), ("./Procfile", 126)])
def test_what_can_not_be_run_has_the_shell_s_status(
    gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch, word: str, status: int
) -> None:
    monkeypatch.chdir(app)
    ran = gaffer("run", word)
    assert ran.status == status
    assert f"can't run {word}" in ran.err
    assert "gaffer start" not in ran.err
    assert "use `gaffer start worker`" in gaffer("run", "worker").err


def test_help_of_run_is_not_taken_from_the_command(
    gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app)
    assert "Run a command once" in gaffer("run", "--help").out
    with piped(app, "run", "sh", "--help") as process:
        assert process.stdout is not None
        assert "Run a command once" not in process.stdout.read()


# export


@pytest.mark.row("GF-30", "CL-23")
def test_export_as_ini(gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    text = gaffer("export", "-c", "worker=3").out
    assert [line for line in text.splitlines() if line.startswith("[")] == [
        "[process:shop:web]",
        "[env:shop:web]",
        "[process:shop:worker]",
        "[env:shop:worker]",
    ]
    assert "priority = 0" in text
    assert "priority = 1" in text
    assert "numprocesses = 3" in text
    one = gaffer("export", "worker").out
    assert "web" not in one.replace(str(app), "")


@pytest.mark.row("GF-30", "CL-23")
def test_export_as_json(gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    document = json.loads(gaffer("export", "--format=json").out)
    assert [job["name"] for job in document["jobs"]] == ["shop.web", "shop.worker"]
    web = json.loads(gaffer("export", "--format=json", "web").out)
    assert web == document["jobs"][0]
    assert (web["cmd"], web["env"], web["cwd"], web["numprocesses"]) == ("sh", {"COLOUR": "red"}, str(app), 1)
    assert gaffer("export", "--format=json", "--out=app.json").out == ""
    assert json.loads((app / "app.json").read_text()) == document


def test_export_says_which_file_it_can_not_write(gaffer: Commands, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    ran = gaffer("export", "--out=nowhere/app.ini")
    assert (ran.status, ran.err.strip()) == (1, "gaffer: nowhere/app.ini: No such file or directory")


@pytest.mark.row("GF-31")
def test_what_is_exported_runs_on_a_node_as_a_loaded_application_does(
    gaffer: Commands, gafferctl: Commands, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app)
    gaffer("export", "-c", "web=2", "--out=app.ini")
    gaffer("export", "-c", "web=2", "--format=json", "--out=app.json")
    (app / "gafferd.ini").write_text("[gaffer]\ninclude = app.ini\n")
    with gafferd(str(app / "gafferd.ini")) as node, Server(node.url) as server:
        from_ini = [server.get_job(name).info() for name in server.jobs("shop")]
        gaffer("unload", "shop", "--endpoint", node.url)
        eventually(lambda: not server.pids())
        assert gafferctl("load_process", "app.json", "--connect", node.url).status == 0
        from_json = [server.get_job(name).info() for name in server.jobs("shop")]
        gaffer("unload", "shop", "--endpoint", node.url)
        eventually(lambda: not server.pids())
        assert gaffer("load", "-c", "web=2", "--endpoint", node.url).status == 0
        loaded = [server.get_job(name).info() for name in server.jobs("shop")]
    for name, infos in (("ini", from_ini), ("json", from_json)):
        for found, wanted in zip(infos, loaded, strict=True):
            found["config"] |= {key: wanted["config"][key] for key in ("priority", "cmd", "args")}
            assert (found["name"], found["max_processes"]) == (wanted["name"], wanted["max_processes"])
            assert (name, found["config"]) == (name, wanted["config"])
