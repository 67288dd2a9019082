"""The declaration of settings: where a value comes from, what is wrong with it, how help shows it."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from gaffer.errors import ConfigError, InvalidValue
from gaffer.runtime.options import Option, columns
from gaffer.runtime.settings import Given, Resolution, Setting, find, option_groups, setting
from gaffer.runtime.usage import parse_command_line, usage_text
from gaffer.runtime.values import Choice, Seconds, Whole, boolean, items, text

FOLDER = Setting(
    help="the folder",
    rule=text,
    flag="-p DIR, --folder=DIR",
    aliases=("--directory",),
    variable="FOLDER",
    keys=(("node", "folder"), ("all", "folder")),
    shown="the home directory",
)


@pytest.mark.parametrize(
    ("flags", "environ", "file", "expected"),
    [
        ({}, {}, {}, None),
        ({"--folder": None, "--directory": None}, {"FOLDER": ""}, {("all", "folder"): ""}, None),
        ({}, {}, {("all", "folder"): "a"}, Given("[all] folder", "a")),
        ({}, {}, {("all", "folder"): "a", ("node", "folder"): "n"}, Given("[node] folder", "n")),
        ({}, {"FOLDER": "e"}, {("all", "folder"): "a"}, Given("FOLDER", "e")),
        ({"--folder": "f"}, {"FOLDER": "e"}, {}, Given("--folder", "f")),
        ({"--directory": "d"}, {"FOLDER": "e"}, {}, Given("--directory", "d")),
        ({"--folder": ["f", "g"]}, {}, {}, Given("--folder", "f,g")),
    ],
)
def test_where_a_value_comes_from(
    flags: dict[str, Any], environ: dict[str, str], file: dict[tuple[str, str], str], expected: Given | None
) -> None:
    assert find(FOLDER, flags, environ, file) == expected


def test_two_spellings_of_a_flag_are_one_too_many() -> None:
    with pytest.raises(ConfigError) as error:
        find(FOLDER, {"--folder": "a", "--directory": "b"}, {})
    assert [(problem.path, problem.message) for problem in error.value.problems] == [
        ("--directory", "conflicts with --folder, which is the same option")
    ]


@dataclass(frozen=True, kw_only=True)
class Settings:
    count: int = setting("how many", Whole(1, 9), 3, flag="--count=N", variable="COUNT", key="main count")
    every: float = setting("how often", Seconds(60), 1.5, flag="--every=SECONDS")
    kind: str = setting("which kind", Choice("kind", ("a", "b")), "a", flag="--kind=KIND", heading="More")
    loud: bool = setting("say more", boolean, False, flag="--loud", variable="LOUD")
    names: tuple[str, ...] = setting("names", items, (), flag="--name=NAME", repeat=True)
    hidden: bool = setting("only in the file", boolean, True, key="main hidden, main secret")


def test_a_resolution_without_mistakes() -> None:
    flags = {"--count": "5", "--name": ["x,y", "z"], "--loud": False}
    resolution = Resolution(Settings, flags, {"COUNT": "7", "LOUD": "yes"}, {"every": 2.0, "hidden": False})
    assert resolution.settings() == Settings(count=5, every=2.0, loud=True, names=("x", "y", "z"), hidden=False)
    given = {name: (each.source, each.text) for name, each in resolution.given.items()}
    assert given == {"count": ("--count", "5"), "loud": ("LOUD", "yes"), "names": ("--name", "x,y,z")}


def test_a_resolution_collects_all_mistakes_by_their_source() -> None:
    resolution = Resolution(Settings, {"--every": "61", "--kind": "c"}, {"COUNT": "many"})
    resolution.problem("hidden", "it is no use")
    assert resolution.values["count"] is None
    with pytest.raises(ConfigError) as error:
        resolution.settings()
    assert [(problem.path, problem.message, problem.hint) for problem in error.value.problems] == [
        ("COUNT", "expected a whole number from 1 to 9, got 'many'", None),
        ("--every", "expected a number of seconds, more than 0 and at most 60, got '61'", None),
        ("--kind", "unknown kind 'c'", "use a or b"),
        ("hidden", "it is no use", None),
    ]


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (Whole(0, 10), ["11", "-1", "1.0", "٣", "", "1" * 30]),
        (Seconds(), ["0", "-1", "nan", "inf", "soon", "1e10"]),
        (boolean, ["maybe", "", "2"]),
        (Choice("loop", ("a", "b")), ["", "A"]),
        (text, [""]),
    ],
)
def test_rules_refuse(rule: Any, wrong: list[str]) -> None:
    for each in wrong:
        with pytest.raises(InvalidValue):
            rule(each)


def test_help_names_variable_default_and_repetition() -> None:
    groups = option_groups(Settings, [Option("-h, --help", "show help")])
    assert {heading: [(option.names, option.help) for option in group] for heading, group in groups.items()} == {
        "Options": [
            ("-h, --help", "show help"),
            ("--count=N", "how many (COUNT; default: 3)"),
            ("--every=SECONDS", "how often (default: 1.5)"),
        ],
        "More": [
            ("--kind=KIND", "which kind (default: a)"),
            ("--loud", "say more (LOUD=1)"),
            ("--name=NAME", "names (may be repeated)"),
        ],
    }
    assert FOLDER.option.help == "the folder (FOLDER; default: the home directory)"


def test_a_usage_text_is_what_docopt_reads() -> None:
    prose = " ".join(
        f"a word and --word{number}" for number in range(40)
    )  # lines would begin with a hyphen when wrapped
    options = [Option("-h, --help", "show help"), FOLDER.option, Option("-q", prose, repeat=True)]
    usage = usage_text(
        "prog", "Do it.", {"Options": options, "More": [Option("-n NAME, --name=NAME", "a name", repeat=True)]}
    )
    options_read = parse_command_line("prog", usage, ["--directory=d", "-qq", "--name=a", "-nb"], leftover="")
    assert options_read == {
        "--help": False,
        "--version": False,
        "--folder": None,
        "--directory": "d",
        "-q": 2,
        "--name": ["a", "b"],
    }


def test_columns_never_begin_a_line_with_a_hyphen() -> None:
    lines = columns([("--a", "word " * 3 + "--option " * 30)]).splitlines()
    assert len(lines) > 1
    assert not [line for line in lines[1:] if re.match(r"\s*-", line)]
