"""Completion in shells, and manual pages, from the table of commands."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gaffer_client import Server
from gaffer_client.cli.completion import candidates
from gaffer_client.cli.manual import manual
from gaffer_client.cli.programs import GAFFER, GAFFERCTL
from gaffer_client.cli.table import Program
from support.client import Commands
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.needs import needs_fish, needs_tmux, needs_zsh
from support.tmux import tmux


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node, Server(node.url) as server:
        for name in ("web", "worker"):
            server.load({"name": name, "cmd": "sleep 1000", "start": False}, "shop")
        yield node


def words(line: str, environ: Mapping[str, str], program: Program = GAFFER) -> list[str]:
    return [each.word for each in candidates(program, line.split(" "), environ)]


def test_commands_options_and_live_names(node: Daemon) -> None:
    env = {"GAFFER_ENDPOINT": node.url, "HOME": os.devnull}
    assert words("rest", env) == ["restart"]
    assert words("--endpoint x drai", env) == ["drain"]
    assert words("logs --fol", env) == ["--follow"]
    assert "--api-key-file" in words("ps --", env)
    assert "--api-key-file" not in words("run --", env)
    assert words("restart shop.w", env) == ["shop.web", "shop.worker"]
    assert words("restart shop.web shop.wo", env) == ["shop.worker"]
    assert words("ps ", env) == ["shop"]
    assert words("kill shop.web TE", env) == ["TERM"]
    assert words("logs --stream ", env) == ["out", "err"]
    assert words("stop shop.", env, GAFFERCTL) == ["shop.web", "shop.worker"]
    assert words("completion ", env) == ["bash", "zsh", "fish"]
    assert words("export --format=y", env) == ["--format=yaml"]
    assert words("export --nope=y", env) == []


def test_types_of_the_procfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"GAFFER_ENDPOINT": closed, "HOME": os.devnull}
    assert words("start ", env) == []
    (tmp_path / "Procfile").write_text("web: run\nworker: run\n")
    assert words("start wo", env) == ["worker"]
    assert words("export ", env) == ["web", "worker"]


def test_without_a_node_and_with_nonsense_there_is_nothing(closed: str) -> None:
    env = {"GAFFER_ENDPOINT": closed, "HOME": os.devnull}
    assert words("restart ", env) == []
    assert words(f"-g {closed} restart ", {"HOME": os.devnull}) == []
    assert words("nonsense ", env) == []
    assert words("restart -g not:a:url ", env) == []


def test_bash_completes_what_follows_a_colon(node: Daemon) -> None:
    script = f"""
        source <({command_path("gaffer")} completion bash)
        gaffer() {{ {command_path("gaffer")} "$@"; }}
        for COMP_LINE in "gaffer lookup:no" "gaffer restart shop.wo" "gaffer restart 'shop.we" "gaffer stat"; do
            COMP_POINT=${{#COMP_LINE}}
            _gaffer
            echo "${{COMPREPLY[@]}}"
        done
    """
    env = clean_env({"GAFFER_ENDPOINT": node.url, "HOME": os.devnull})
    ran = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=50, check=True)
    assert ran.stdout.splitlines() == ["nodes", "shop.worker", "shop.web", "status"]


SHELLS = {
    "bash": ("bash --norc -i", "source <(gaffer completion bash)"),
    "zsh": ("zsh -f -i", "autoload -Uz compinit && compinit -u -D && source <(gaffer completion zsh)"),
    "fish": ("fish --no-config", "gaffer completion fish | source"),
}


@needs_tmux
@pytest.mark.parametrize(
    "shell", ["bash", pytest.param("zsh", marks=needs_zsh), pytest.param("fish", marks=needs_fish)]
)
def test_a_shell_completes_on_a_terminal(shell: str, node: Daemon, tmp_path: Path) -> None:
    path = f"{os.path.dirname(command_path('gaffer'))}:{os.environ['PATH']}"
    (tmp_path / "procfiles").mkdir()
    (tmp_path / ".gaffer").mkdir(mode=0o700)
    (tmp_path / ".gaffer" / "contexts.ini").write_text("[context prod]\nendpoint = http://127.0.0.1:1\n")
    with tmux(tmp_path, rows=24, GAFFER_ENDPOINT=node.url, PATH=path) as terminal:
        for line in (f"cd {tmp_path}", *SHELLS[shell], "echo set''up is done"):
            terminal.type("-l", line)
            terminal.type("Enter")
        terminal.shows("\nsetup is done")
        for typed, shown in (
            ("gaffer resta", "gaffer restart"),
            ("gaffer restart shop.wo", "gaffer restart shop.worker"),
            ("gaffer stop 'shop.wo", "gaffer stop 'shop.worker'"),
            ("gaffer lookup:no", "gaffer lookup:nodes"),
            ("gaffer kill shop.web TE", "gaffer kill shop.web TERM"),
            ("gaffer ps --end", "gaffer ps --endpoint"),
            ("gaffer ps --context=pr", "gaffer ps --context=prod"),
            ("gaffer -d procf", "gaffer -d procfiles/"),
        ):
            terminal.type("-l", typed)
            terminal.type("Tab")
            terminal.shows(shown)
            terminal.type("C-u")
        terminal.type("clear", "Enter")
        terminal.type("-l", "gaffer restart shop.")
        terminal.type("Tab")
        terminal.shows("gaffer restart shop.w")
        terminal.type(*["Tab"] * (2 if shell == "bash" else 1))
        assert "procfiles" not in terminal.shows("shop.web", "shop.worker")
        terminal.type("C-u")


def test_scripts_for_each_shell(gaffer: Commands, gafferctl: Commands) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "gafferctl __complete " + shell in gafferctl("completion", shell).out
        if shutil.which(shell):
            ran = subprocess.run([shell, "-n"], input=gaffer("completion", shell).out, text=True, check=False)
            assert ran.returncode == 0
    assert gaffer("completion", "tcsh").status == 2
    assert gaffer("__complete").status == 2


@pytest.mark.parametrize("program", [GAFFER, GAFFERCTL], ids=lambda program: program.name)
def test_the_manual_page_has_every_command(program: Program) -> None:
    page = manual(program)
    headings = re.findall(rf"^\.SS {program.name} (\S+)", page, re.MULTILINE)
    assert headings == [command.name for command in program.commands]
    if shutil.which("groff"):
        ran = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8"], input=page, capture_output=True, text=True, check=False, timeout=30
        )
        assert (ran.returncode, ran.stderr) == (0, "")


def test_help_prints_the_manual_page(gaffer: Commands) -> None:
    assert gaffer("help", "--man").out == manual(GAFFER)


def test_help_names_the_scope_that_a_key_needs(gaffer: Commands) -> None:
    for name, scope in (("ps", "read"), ("scale", "control"), ("load", "define"), ("history", "control")):
        assert f"Needs the scope `{scope}`" in gaffer("help", name).out
    assert "Needs the scope" not in gaffer("help", "run").out
