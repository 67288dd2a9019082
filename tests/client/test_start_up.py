"""What commands import: each large module costs more time than most commands take otherwise."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gaffer_client import Server
from gaffer_client.cli.programs import GAFFER, GAFFERCTL
from gaffer_client.cli.table import Program
from support.daemons import Daemon, clean_env, gafferd

# Of these, a command may import what is listed for it, and those of other commands nothing.
LARGE = {
    *(
        "asyncio",
        "certifi",
        "charset_normalizer",
        "configparser",
        "dataclasses",
        "http.server",
        "idna",
        "importlib.metadata",
    ),
    *(
        "inspect",
        "logging",
        "msgspec",
        "multiprocessing",
        "psutil",
        "requests",
        "secrets",
        "tornado",
        "typing_extensions",
    ),
    *("urllib.request", "urllib3", "uvloop", "watchfiles", "wsproto", "yaml"),
    *("gaffer.jobs.config", "gaffer.manager", "gaffer.process", "gaffer.schemas.responses"),
}

# Runs each command line, given as JSON, in a child of its own, and prints the modules that each had imported.
RUNNER = """
import json, os, sys
for line in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if os.fork() == 0:
        program, *sys.argv[1:] = line
        from gaffer_client.entry import gaffer, gafferctl
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = None
        try:
            {"gaffer": gaffer, "gafferctl": gafferctl}[program]()
        except SystemExit as end:
            status = end.code
        os.write(writing, json.dumps([status, sorted(sys.modules)]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        print(answer.read())
    os.wait()
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node, Server(node.url) as server:
        server.load({"name": "web", "cmd": "sleep 1000", "numprocesses": 2}, "shop")
        yield node


def imports(node: Daemon, *lines: list[str]) -> list[set[str]]:
    """Return the large modules that each command line has imported."""
    env = {**clean_env(), "GAFFER_ENDPOINT": node.url, "HOME": os.devnull}
    ran = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(lines)],
        env=env,
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.stderr == ""
    found = []
    for line, answer in zip(lines, ran.stdout.splitlines(), strict=True):
        status, modules = json.loads(answer)
        assert status == 0, line
        found.append(LARGE & set(modules))
    return found


def test_everyday_commands_import_nothing_large(node: Daemon) -> None:
    lines = [
        ["gaffer", "ps", "shop"],
        ["gaffer", "ps", "shop", "--json"],
        ["gaffer", "apps"],
        ["gaffer", "--version"],
        ["gaffer", "status"],
        ["gafferctl", "status"],
        ["gafferctl", "stop", "shop.web"],
        ["gafferctl", "start", "shop.web"],
    ]
    assert dict(zip(map(" ".join, lines), imports(node, *lines), strict=True)) == {
        " ".join(line): set() for line in lines
    }


def test_no_command_for_a_node_imports_the_framework_or_requests(node: Daemon) -> None:
    lines = [
        *(["gaffer", "info", "shop.web"], ["gaffer", "restart", "shop.web"], ["gaffer", "scale", "shop", "web=2"]),
        *(
            ["gaffer", "kill", "shop.web", "CONT"],
            ["gaffer", "exits", "shop.web"],
            ["gaffer", "definitions", "shop.web"],
        ),
        *(
            ["gaffer", "history"],
            ["gaffer", "exec", "shop.web"],
            ["gaffer", "logs", "shop.web"],
            ["gaffer", "key:list"],
        ),
        *(["gaffer", "disable", "shop.web", "--reason=x"], ["gaffer", "enable", "shop.web"], ["gaffer", "context"]),
        *(["gaffer", "config", "show", "--json"], ["gaffer", "completion", "bash"], ["gaffer", "commit", "shop.web"]),
        *(["gafferctl", "processes"], ["gafferctl", "pids", "shop.web"], ["gafferctl", "add", "shop.web"]),
        *(["gafferctl", "get_process", "shop.web"], ["gafferctl", "sub", "shop.web"], ["gafferctl", "version"]),
    ]
    heavy = LARGE - {"dataclasses", "inspect", "logging", "msgspec", "typing_extensions", "gaffer.schemas.responses"}
    heavy -= {"gaffer.jobs.config"}  # behind the schemas of settings
    found = zip(map(" ".join, lines), imports(node, *lines), strict=True)
    assert {line: modules & heavy for line, modules in found if modules & heavy} == {}


def test_help_imports_nothing_large(node: Daemon) -> None:
    lines = [["gaffer", "help"], ["gafferctl", "help"]]
    assert imports(node, *lines) == [set(), set()]


@pytest.mark.parametrize("program", [GAFFER, GAFFERCTL], ids=lambda program: program.name)
def test_each_family_knows_the_names_of_its_commands(program: Program) -> None:
    for family in program.families:
        assert family.names.split() == [command.name for command in family.commands]
        assert family.aliases.split() == [alias for command in family.commands for alias in command.aliases]
