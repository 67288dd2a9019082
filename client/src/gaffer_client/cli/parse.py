"""Command line parsing: the only module that uses docopt."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from docopt import DocoptExit, docopt

from gaffer.errors import did_you_mean
from gaffer.runtime.options import Option
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.table import Command, Program

ASK: Final = "__complete"
"""The first argument with which a shell asks for completions; see `completion`."""


class Arguments:
    """The arguments of a command: `args.text("--port")`, `args.flag("--json")`, `args.words("<type>")`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def required(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str)
        return value

    def flag(self, name: str) -> bool:
        return bool(self.values.get(name))

    def words(self, name: str) -> list[str]:
        return list(self.values.get(name) or [])


class Invocation(NamedTuple):
    """A parsed command line: `command` is None if none was given, `help` is true if help was requested."""

    command: Command | None
    arguments: Arguments
    help: bool = False


def parse(program: Program, argv: Sequence[str]) -> Invocation:
    """Parse the arguments of a program, without its name; raise UsageError if they are invalid."""
    pattern = "[<command>] [<args>...]"
    before = _docopt(program.name, pattern, program.options, argv, options_first=True)
    name = before.pop("<command>")
    rest = before.pop("<args>")
    if name is None:
        return Invocation(None, Arguments(before), bool(before["--help"]))
    command = program.find(name)
    if command is None:
        raise UsageError(f"unknown command {name!r}", hint=program.suggestion(name))
    if before["--help"] or _requests_help(rest[:1] if command.passes_on else rest):
        return Invocation(command, Arguments(before), help=True)
    options = (*command.options, *command.program_options(program))
    after = _docopt(f"{program.name} {name}", command.arguments, options, rest, options_first=command.passes_on)
    return Invocation(command, Arguments(_merge(before, after)))


def _merge(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Options after the command take precedence; lists are concatenated."""
    merged = dict(after)
    for key, value in before.items():
        if isinstance(value, list):
            merged[key] = value + after[key]
        elif after[key] is None or after[key] is False:
            merged[key] = value
    return merged


def _requests_help(words: Sequence[str]) -> bool:
    options = words[: words.index("--")] if "--" in words else words
    return "-h" in options or "--help" in options


def _docopt(
    prefix: str, arguments: str, options: Sequence[Option], argv: Sequence[str], *, options_first: bool = False
) -> dict[str, Any]:
    repeated = [
        f"[{option.with_value(name)}]..."
        for option in options
        if option.repeat
        for name in (option.long, *option.aliases)
    ]
    usage = " ".join(["cmd", "[options]", *repeated, "[--]", arguments])
    # Two spaces end the names of an option; docopt ignores the rest of the line.
    lines = [f"  {option.names}  -" for option in options]
    lines += [f"  {option.with_value(alias)}  -" for option in options for alias in option.aliases]
    document = f"Usage:\n  {usage}\n\nOptions:\n" + "\n".join(lines) + "\n"
    try:
        # By position: the name of the third parameter (print help or not) depends on the version of docopt.
        values = docopt(document, list(argv), False, None, options_first)
    except DocoptExit as error:
        raise UsageError(_explain(options, argv, str(error)), hint=f"usage: {usage_line(prefix, arguments)}") from None
    values.pop("--", None)
    for option in options:
        for alias in option.aliases:
            given = values.pop(alias)
            if option.repeat:
                values[option.long] += given
            elif given is not None and given is not False:
                values[option.long] = given
        if option.value is not None and "" in _texts(values[option.long]):
            raise UsageError(
                f"{option.long}: the value is empty",
                hint=f"write {option.long}={option.value}; an unset variable of the shell is often the cause",
            )
    return dict(values)


def _texts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def usage_line(prefix: str, arguments: str) -> str:
    """Return the usage of a command on one line."""
    return " ".join(part for part in (prefix, "[options]", arguments) if part)


def _explain(options: Sequence[Option], argv: Sequence[str], docopt_error: str) -> str:
    """Return the reason why docopt rejected the arguments."""
    spellings = [name for option in options for name in option.spellings]
    for word in argv[: argv.index("--")] if "--" in argv else argv:
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name.startswith("-") and len(name) > 1 and not any(known.startswith(name) for known in spellings):
            suggestion = did_you_mean(name, spellings)
            return f"unknown option {name}" + (f"; {suggestion}" if suggestion else "")
    first = docopt_error.partition("\n")[0]
    # "Warning: ..." lists unmatched parts of docopt's pattern; any other message describes an option.
    return "missing or unexpected argument" if first.startswith(("Warning:", "Usage:", "usage:")) else first
