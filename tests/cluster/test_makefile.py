"""On a machine that lacks a command, make says in one line what to install and ends with 2."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What Debian has always, and make itself.
ESSENTIAL = ("make", "sh", "dirname", "cat", "cksum", "flock")


def python_that_imports(commands: Path, module: str, text: str) -> None:
    """A python3 in whose eyes `module` has this text."""
    modules = commands / "modules"
    modules.mkdir()
    (modules / f"{module}.py").write_text(text)
    command = commands / "python3"
    command.unlink()  # a link to the real one
    command.write_text(f'#!/bin/sh\nPYTHONPATH={modules} exec {sys.executable} "$@"\n')
    command.chmod(0o755)


def no_python(commands: Path) -> None:
    (commands / "python3").unlink()


def no_git(commands: Path) -> None:
    (commands / "git").unlink()


def no_venv(commands: Path) -> None:
    python_that_imports(commands, "ensurepip", "raise ImportError")


def old_python(commands: Path) -> None:
    python_that_imports(commands, "sitecustomize", "import sys\nsys.version_info = (3, 9, 2)")


@pytest.mark.parametrize("goal", ["demo", "test", "check"])
@pytest.mark.parametrize(
    ("without", "message"),
    [
        (no_git, "git is missing; install it: apt-get install git"),
        (no_python, "python3 is missing; install a Python: apt-get install python3 python3-venv"),
        (no_venv, "apt-get install python3-venv"),
        (old_python, "python3 is older than Python 3.11"),
    ],
)
def test_says_what_to_install(tmp_path: Path, without: Callable[[Path], None], message: str, goal: str) -> None:
    checkout, commands = tmp_path / "checkout", tmp_path / "bin"
    checkout.mkdir()
    commands.mkdir()
    shutil.copy(ROOT / "Makefile", checkout)
    shutil.copytree(ROOT / "tools", checkout / "tools")
    for name in (*ESSENTIAL, "git"):
        (commands / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    (commands / "python3").symlink_to(sys.executable)
    without(commands)

    made = subprocess.run(
        ["make", goal], cwd=checkout, env={"PATH": str(commands)}, capture_output=True, text=True, timeout=30
    )

    assert made.returncode == 2
    assert made.stdout == ""
    (line,) = made.stderr.splitlines()
    assert message in line
    assert {entry.name for entry in checkout.iterdir()} == {"Makefile", "tools"}
