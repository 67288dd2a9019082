"""Command lines of the daemons, parsed by their usage text: the only place there that knows docopt."""

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
    """The text that `--help` prints and that docopt reads.

    `groups` are options by their heading, `arguments` the docopt pattern of what is no option. Other long names
    of an option get lines of their own.
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
                *((option.with_value(alias), f"the same as `{option.long}`") for alias in option.aliases),
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
    """The options of `argv` by name; `--help` and `--version` print and exit.

    Raises ConfigError with one problem, whose path is the option or `program`; `leftover` says what may be wrong when
    docopt only knows that something is left over.
    """
    try:
        return dict(docopt(usage, list(argv), version=f"{program} {__version__}"))
    except DocoptExit as error:
        raise ConfigError([_explain(program, usage, argv, str(error), leftover)]) from None


def _explain(program: str, usage: str, argv: Sequence[str], complaint: str, leftover: str) -> Problem:
    see_help = f"see {program} --help"
    known = _OPTION.findall(usage.partition("Options:")[2])
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in known):
            return Problem(name, "there is no such option", did_you_mean(name, known) or see_help)
    first = complaint.partition("\n")[0]
    return Problem(program, leftover if first.startswith("Warning") else first, see_help)
