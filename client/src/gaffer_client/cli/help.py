"""Help texts, generated from the command table."""

import textwrap
from collections.abc import Sequence

from gaffer.runtime.options import WIDTH, Option, columns
from gaffer_client.cli.parse import usage_line
from gaffer_client.cli.table import Command, Program


def program_help(program: Program) -> str:
    """Return the output of `gaffer help`."""
    return "\n\n".join(
        [
            f"Usage: {program.name} [options] <command> [<args>...]",
            program.summary,
            "Commands:\n" + columns((command.name, command.summary) for command in program.commands),
            "Options:\n" + _options(program.options),
            _examples(program, program.examples),
            f"`{program.name} help COMMAND` shows the options of a command and examples.",
        ]
    )


def command_help(program: Program, command: Command) -> str:
    """Return the output of `gaffer help COMMAND`."""
    reference = command_reference(program, command)
    others = [option for option in command.program_options(program) if command.uses_option(option)]
    return f"{reference}\n\nCommon options:\n{_options(others)}" if others else reference


def command_reference(program: Program, command: Command) -> str:
    """Return the help of a command without the options that it shares with other commands."""
    parts = [f"Usage: {usage_line(f'{program.name} {command.name}', command.arguments)}", command.summary + "."]
    if command.details:
        parts += [
            textwrap.fill(paragraph, WIDTH) if not paragraph.startswith(" ") else paragraph
            for paragraph in textwrap.dedent(command.details).strip("\n").split("\n\n")
        ]
    if command.aliases:
        parts.append("Also: " + ", ".join(command.aliases))
    if command.options:
        parts.append("Options:\n" + _options(command.options))
    if command.examples:
        parts.append(_examples(program, command.examples))
    if command.target == "node":
        parts.append(f"Needs the scope `{command.scope}` of an API key where the node requires one.")
    return "\n\n".join(parts)


def _examples(program: Program, examples: Sequence[str]) -> str:
    return "Examples:\n" + "\n".join(f"  {program.name} {example}" for example in examples)


def _options(options: Sequence[Option]) -> str:
    return columns((option.names, _describe(option)) for option in options)


def _describe(option: Option) -> str:
    return option.help + (f" (also {', '.join(option.aliases)})" if option.aliases else "")
