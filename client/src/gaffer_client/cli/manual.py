"""Manual pages in the format of man(7), generated from the table of commands."""

import textwrap
from collections.abc import Iterable, Iterator

from gaffer.runtime.options import Option
from gaffer.runtime.version import __version__
from gaffer_client.cli.config import SETTINGS
from gaffer_client.cli.parse import usage_line
from gaffer_client.cli.table import Command, Program

_STATUSES = (
    ("0", "success"),
    ("1", "failure"),
    ("2", "usage error"),
    ("3", "no server responds"),
    ("4", "something was not found"),
    ("5", "partial success"),
    ("130", "interrupted"),
)


def manual(program: Program) -> str:
    """Return the manual page of a program, for `man -l`."""
    name = program.name
    lines = [
        f'.TH {name.upper()} 1 "" "Gaffer {__version__}" "User Commands"',
        ".SH NAME",
        _text(f"{name} - {program.summary.rstrip('.')}"),
        ".SH SYNOPSIS",
        f".B {name}",
        "[options] command [arguments]",
        ".SH COMMANDS",
    ]
    for command in program.commands:
        lines += _command(program, command)
    lines += [".SH OPTIONS", *_items((option.names, _described(option)) for option in program.options)]
    variables = [(each.variable, each.help) for each in SETTINGS if each.variable is not None]
    lines += [".SH ENVIRONMENT", *_items(variables), ".SH EXIT STATUS", *_items(_STATUSES)]
    lines += [".SH FILES", *_items([("~/.gaffer/gaffer.ini", "settings"), ("~/.gaffer/contexts.ini", "contexts")])]
    lines += [".SH EXAMPLES", ".nf", *(_text(f"{name} {example}") for example in program.examples), ".fi"]
    return "\n".join(lines) + "\n"


def _command(program: Program, command: Command) -> Iterator[str]:
    yield f".SS {_text(usage_line(f'{program.name} {command.name}', command.arguments))}"
    yield _text(f"{command.summary}.")
    for paragraph in filter(None, textwrap.dedent(command.details).strip("\n").split("\n\n")):
        yield ".PP"
        verbatim = paragraph.startswith(" ")
        yield from (
            [".nf", *map(_text, paragraph.splitlines()), ".fi"] if verbatim else [_text(" ".join(paragraph.split()))]
        )
    if command.aliases:
        yield from (".PP", _text(f"Also: {', '.join(command.aliases)}"))
    yield from _items((option.names, _described(option)) for option in command.options)
    yield from (".PP", ".nf", *(_text(f"{program.name} {example}") for example in command.examples), ".fi")


def _described(option: Option) -> str:
    return option.help + (f" (also {', '.join(option.aliases)})" if option.aliases else "")


def _items(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield from (".TP", f".B {_text(term)}", _text(text))


def _text(text: str) -> str:
    """Return text that roff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
