"""Command lines, and the help that is made from the same table."""

import shlex
from typing import Any

import pytest

from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.help import command_help, program_help
from gaffer_client.cli.parse import parse
from gaffer_client.cli.programs import GAFFER, GAFFERCTL
from gaffer_client.cli.table import Command, Program

PROGRAMS = {"gaffer": GAFFER, "gafferctl": GAFFERCTL}


@pytest.mark.row("GF-08", "CL-28")
@pytest.mark.parametrize(
    ("line", "command", "expected"),
    [
        ("gaffer load", "load", {"<name>": None, "--concurrency": [], "--port": None, "--nostart": False}),
        ("gaffer load shop -c web=2,worker=1 -c clock=0", "load", {"--concurrency": ["web=2,worker=1", "clock=0"]}),
        ("gaffer load -cweb=2 --concurrency=worker=1 --nostart", "load", {"--concurrency": ["web=2", "worker=1"]}),
        ("gaffer load --port auto -", "load", {"--port": "auto", "<name>": "-"}),
        ("gaffer load -p 9000 .", "load", {"--port": "9000", "<name>": "."}),
        # Options of the program stand before or after the command; the later one wins, lists add up.
        ("gaffer --endpoint http://a load --endpoint http://b", "load", {"--endpoint": "http://b"}),
        ("gaffer --endpoint http://a load", "load", {"--endpoint": "http://a"}),
        ("gaffer --gafferd-http-address http://a apps", "apps", {"--endpoint": "http://a"}),
        ("gaffer -g http://a apps", "apps", {"--endpoint": "http://a"}),
        ("gaffer -e a -e b=1 load --env c", "load", {"--env": ["a", "b=1", "c"]}),
        ("gaffer --root /x load", "load", {"--directory": "/x"}),
        ("gaffer load --root /x", "load", {"--directory": "/x"}),
        ("gaffer -d /x -f P load", "load", {"--directory": "/x", "--procfile": "P"}),
        (
            "gaffer lookup:job demo.web -L http://a,http://b -L http://c",
            "lookup:job",
            {"--lookupd": ["http://a,http://b", "http://c"]},
        ),
        ("gaffer --json lookup:nodes", "lookup:nodes", {"--json": True}),
        ("gaffer scale web=3", "scale", {"<name>": "web=3", "<spec>": []}),
        ("gaffer scale shop web=3 worker-1", "scale", {"<name>": "shop", "<spec>": ["web=3", "worker-1"]}),
        ("gaffer ps:scale web=3", "scale", {"<name>": "web=3"}),
        ("gaffer unload -- -odd", "unload", {"<name>": "-odd"}),
        ("gaffer help load", "help", {"<command>": "load"}),
        ("gafferctl processes --running", "processes", {"--running": True}),
        ("gafferctl --connect unix:/x status web", "status", {"--connect": "unix:/x", "<name>": "web"}),
        ("gafferctl status web --endpoint unix:/x", "status", {"--connect": "unix:/x"}),
        ("gafferctl load -", "load_process", {"<file>": "-"}),
        ("gafferctl add web 3", "add", {"<name>": "web", "<inc>": "3"}),
        ("gafferctl stop web", "stop", {"<inc>": None}),
        ("gafferctl kill 12 SIGHUP", "kill", {"<name_or_pid>": "12", "<signal>": "SIGHUP"}),
    ],
)
def test_command_lines(line: str, command: str, expected: dict[str, Any]) -> None:
    name, *argv = line.split()
    invocation = parse(PROGRAMS[name], argv)
    assert invocation.command is not None
    assert (invocation.command.name, invocation.help) == (command, False)
    values = invocation.arguments.values
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("gaffer lod", "unknown command 'lod'", "did you mean 'load'?"),
        ("gafferctl ps", "unknown command 'ps'", "use `gafferctl status` for all jobs"),
        ("gafferctl reread", "unknown command 'reread'", "use `gafferctl reload_config`"),
        ("gafferctl tail", "unknown command 'tail'", "use `gaffer logs -f`"),
        ("gaffer update", "unknown command 'update'", "use `gafferctl reload_config`"),
        ("gaffer list", "unknown command 'list'", "use `gaffer ps` for an application or `gaffer status`"),
        ("gaffer signal", "unknown command 'signal'", "use `kill`"),
        ("gafferctl restart", "missing or unexpected argument", "usage: gafferctl restart [options] <job>..."),
        ("gafferctl scale", "unknown command 'scale'", "use `gaffer scale`"),
        ("gafferctl why", "unknown command 'why'", "use `gaffer why`"),
        ("gafferctl stats", "unknown command 'stats'", "use `gaffer ps`"),
        ("gaffer watch", "unknown command 'watch'", "use `gafferctl watch`"),
        ("gaffer qqqqqq", "unknown command 'qqqqqq'", "run `gaffer help` to list the commands"),
        ("gaffer --endpont x load", "unknown option --endpont; did you mean '--endpoint'?", "usage: gaffer"),
        ("gaffer load --concurency web=1", "unknown option --concurency; did you mean", "usage: gaffer load"),
        ("gaffer load -z", "unknown option -z", "usage: gaffer load [options] [<name>]"),
        ("gaffer load --port", "--port requires argument", "usage: gaffer load"),
        ("gaffer load --nostart=1", "--nostart must not have an argument", "usage: gaffer load"),
        ("gaffer load a b", "missing or unexpected argument", "usage: gaffer load [options] [<name>]"),
        ("gaffer lookup:job", "missing or unexpected argument", "usage: gaffer lookup:job [options] <job>"),
        ("gafferctl start", "missing or unexpected argument", "usage: gafferctl start [options] <name>"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong_and_what_to_write(line: str, message: str, hint: str) -> None:
    name, *argv = line.split()
    with pytest.raises(UsageError) as caught:
        parse(PROGRAMS[name], argv)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.row("GF-02")
@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("gaffer -h", None),
        ("gaffer --help", None),
        ("gaffer load -h", "load"),
        ("gaffer --help load", "load"),
        ("gaffer lookup:job --help", "lookup:job"),  # with its argument missing
        ("gafferctl add -h", "add"),
    ],
)
def test_asking_for_help(line: str, command: str | None) -> None:
    name, *argv = line.split()
    invocation = parse(PROGRAMS[name], argv)
    assert invocation.help
    assert (invocation.command and invocation.command.name) == command


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_help_names_all_commands_and_options(program: Program) -> None:
    text = program_help(program)
    for command in program.commands:
        assert f"\n  {command.name} " in text
    for option in program.options:
        assert f"\n  {option.names} " in text


ALL = [(program, command) for program in PROGRAMS.values() for command in program.commands]


@pytest.mark.parametrize(("program", "command"), ALL, ids=lambda item: item.name)
def test_each_command_explains_itself(program: Program, command: Command) -> None:
    text = command_help(program, command)
    assert text.startswith(f"Usage: {program.name} {command.name} [options]")
    assert command.summary in text
    for option in command.options:
        assert option.names in text
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_names_are_unique(program: Program) -> None:
    names = [name for command in program.commands for name in (command.name, *command.aliases)]
    assert len(names) == len(set(names))
    for command in program.commands:
        spellings = [
            name for option in (*command.options, *command.program_options(program)) for name in option.spellings
        ]
        assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(("program", "command"), ALL, ids=lambda item: item.name)
def test_each_help_shows_examples_that_can_be_run(program: Program, command: Command) -> None:
    text = command_help(program, command)
    assert command.examples
    for example in command.examples:
        assert f"\n  {program.name} {example}" in text
        assert parse(program, shlex.split(example)).command is command


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_help_of_a_program_shows_examples(program: Program) -> None:
    for example in program.examples:
        assert f"\n  {program.name} {example}" in program_help(program)
        assert parse(program, shlex.split(example)).command is not None


@pytest.mark.parametrize(
    ("name", "shown", "hidden"),
    [
        ("run", ["--procfile", "--env", "--directory"], ["--endpoint", "--lookupd", "--api-key-file", "--json"]),
        ("start", ["--procfile", "--env", "--cluster", "--lookupd", "--yes", "--wait", "--api-key-file"], ["--spread"]),
        ("load", ["--procfile", "--env", "--endpoint", "--json", "--cluster", "--lookupd", "--spread"], ["--wait"]),
        ("ps", ["--directory", "--endpoint", "--cluster", "--lookupd", "--node", "--label"], ["--env"]),
        ("recv", ["--endpoint"], ["--cluster", "--lookupd", "--node", "--dry-run"]),
        ("exits", ["--endpoint", "--cluster", "--lookupd"], ["--dry-run", "--yes"]),
        ("top", ["--endpoint", "--cluster"], ["--dry-run"]),
        ("drain", ["--endpoint", "--dry-run"], ["--cluster", "--yes"]),
        ("lookup:nodes", ["--lookupd", "--cacert"], ["--endpoint", "--procfile", "--api-key-file"]),
        ("why", ["--lookupd", "--endpoint", "--api-key-file"], ["--procfile"]),
        ("help", [], ["--endpoint", "--lookupd", "--procfile", "--json"]),
    ],
)
def test_help_shows_the_options_of_the_command_only(name: str, shown: list[str], hidden: list[str]) -> None:
    command = GAFFER.find(name)
    assert command is not None
    text = command_help(GAFFER, command)
    assert [option for option in shown if option not in text] == []
    assert [option for option in hidden if option in text] == []
