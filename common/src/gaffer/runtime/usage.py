"""Command lines of the daemons, parsed by their usage text: the only place there that knows docopt."""

import re
from collections.abc import Sequence
from typing import Any

from docopt import DocoptExit, docopt

from gaffer.errors import ConfigError, Problem, did_you_mean
from gaffer.runtime.version import __version__

_OPTION = re.compile(r"(?<!\S)--?[a-z][a-z-]*")


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
