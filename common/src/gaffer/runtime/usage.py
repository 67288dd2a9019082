"""Command lines of the daemons, parsed according to their usage text. Wraps docopt."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from docopt import DocoptExit, docopt

from gaffer.errors import ConfigError, Problem, did_you_mean
from gaffer.runtime.options import Option, columns, indent_of
from gaffer.runtime.version import __version__

_OPTION = re.compile(r"(?<!\S)--?[a-z][a-z-]*")


def usage_text(
    program: str, summary: str, groups: Mapping[str, Sequence[Option]], *, arguments: str = "", epilog: str = ""
) -> str:
    """Return the text that `--help` prints and docopt parses.

    `groups` are options by heading, `arguments` the docopt pattern of the positional arguments. Aliases of an option
    get their own lines.
    """
    options = [option for group in groups.values() for option in group]
    repeated = [
        f"[{option.with_value(name)}]..."
        for option in options
        if option.repeat
        for name in (option.long, *option.aliases)
    ]
    lines = {
        heading: [
            line
            for option in group
            for line in (
                (option.names, option.help),
                *((option.with_value(alias), f"same as `{option.long}`") for alias in option.aliases),
            )
        ]
        for heading, group in groups.items()
    }
    indent = indent_of(names for group in lines.values() for names, _ in group)
    pattern = " ".join(filter(None, [program, "[options]", *repeated, arguments]))
    usage = f"Usage:\n  {pattern}\n  {program} (-h | --help)\n  {program} --version"
    sections = [f"{heading}:\n{columns(group, indent)}" for heading, group in lines.items()]
    return "\n\n".join([summary, usage, *sections, epilog.strip()]) + "\n"


def parse_command_line(program: str, usage: str, argv: Sequence[str], *, leftover: str) -> dict[str, Any]:
    """Return the options in `argv` by name; `--help` and `--version` print and exit.

    Raises ConfigError with one problem, whose path is the option or `program`; `leftover` is the message for arguments
    that docopt could not match.
    """
    try:
        return dict(docopt(usage, list(argv), version=f"{program} {__version__}"))
    except DocoptExit as error:
        raise ConfigError([_explain(program, usage, argv, str(error), leftover)]) from None


def _explain(program: str, usage: str, argv: Sequence[str], error: str, leftover: str) -> Problem:
    see_help = f"see {program} --help"
    known = _OPTION.findall(usage.partition("Options:")[2])
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in known):
            return Problem(name, "unknown option", did_you_mean(name, known) or see_help)
    first = error.partition("\n")[0]
    return Problem(program, leftover if first.startswith("Warning") else first, see_help)
