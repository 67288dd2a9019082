"""Completion in shells: scripts that ask the program, and its answers, which come from the table of commands."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from gaffer.errors import GafferError
from gaffer.jobs.names import split_job_name
from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.output import printable
from gaffer_client.cli.parse import ASK, Arguments
from gaffer_client.cli.table import Command, Program
from gaffer_client.errors import GafferClientError

_TIMEOUT = 1.0  # seconds that a node or a lookup may take
_QUOTES = ("'", '"')
_BREAKS = ":="  # bash completes only what follows the last of these
_PLACEHOLDER = re.compile(r"<([\w-]+)>(?:\]?\.\.\.)?")

SCRIPTS: Final = {
    "bash": """\
_{name}() {{
    mapfile -t COMPREPLY < <({name} {ask} bash "${{COMP_LINE:0:COMP_POINT}}" 2>/dev/null)
}}
complete -o default -F _{name} {name}
""",
    "zsh": """\
#compdef {name}
_{name}() {{
    local -a found
    found=(${{(f)"$({name} {ask} zsh "${{(@)words[1,CURRENT]}}" 2>/dev/null)"}})
    if (( $#found )); then _describe '{name}' found; else _files; fi
}}
compdef _{name} {name}
""",
    "fish": """\
function __{name}_candidates
    set -l found ({name} {ask} fish (commandline -opc) (commandline -ct | string collect --allow-empty) 2>/dev/null)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c {name} -f -a '(__{name}_candidates)'
""",
}
"""The script of each shell, to be formatted with the `name` of the program and `ask`."""


class Candidate(NamedTuple):
    """A word that may come next."""

    word: str
    description: str = ""


def script(program: Program, shell: str) -> str:
    """Return the script that sets up completion in a shell."""
    return SCRIPTS[shell].format(name=program.name, ask=ASK)


def answer(program: Program, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the completions that a script asks for: `SHELL WORD...`, or for bash `bash LINE`."""
    if len(argv) < 2:  # not our script
        return Exit.USAGE
    shell, *words = argv
    words = _split(words[0]) if shell == "bash" else list(map(_unquoted, words))
    current = words[-1]
    cut = max((current.rfind(char) for char in _BREAKS), default=-1) + 1 if shell == "bash" else 0
    for word, description in candidates(program, words[1:], environ):
        if not word.isprintable() or " " in word:  # no name of ours
            continue
        description = printable(description)
        if shell == "zsh":
            print(word.replace(":", r"\:") + (f":{description}" if description else ""))
        else:
            print(f"{word}\t{description}" if shell == "fish" else word[cut:])
    return Exit.OK


def _unquoted(word: str) -> str:
    """Return a word as the program will get it; the quote that it begins with may not be closed yet."""
    return " ".join(_split(word)) if word.startswith(_QUOTES) else word


def _split(line: str) -> list[str]:
    """Return the words of an unfinished line; the last one is empty after a space."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return [*words, ""] if line[-1:].isspace() and not closing else words
    return line.split(" ")


def candidates(program: Program, words: Sequence[str], environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield what may take the place of the last of the `words` after the name of the program; none: a file."""
    *before, current = words
    options = {spelling: option for option in program.options for spelling in option.spellings}
    command: Command | None = None
    given: list[str] = []
    awaited: Option | None = None
    for word in before:
        if awaited is not None:
            awaited = None
        elif word.startswith("-"):
            option = options.get(word)
            awaited = option if option is not None and option.value is not None else None
        elif command is None:
            command = program.find(word)
            if command is None:
                return
            options |= {spelling: option for option in command.options for spelling in option.spellings}
        else:
            given.append(word)
    name, equals, _ = current.partition("=")
    if awaited is not None:
        found = _values(program, awaited, environ, before)
    elif equals and (option := options.get(name)) is not None:
        values = _values(program, option, environ, before)
        found = (Candidate(f"{name}={word}", description) for word, description in values)
    elif current.startswith("-"):
        found = _options(program, command)
    elif command is None:
        found = (Candidate(each.name, each.summary) for each in program.commands)
    else:
        found = _arguments(program, command, given, environ, before)
    yield from (each for each in found if each.word.startswith(current))


def _options(program: Program, command: Command | None) -> Iterator[Candidate]:
    own: Iterable[Option] = program.options
    if command is not None:
        own = (*command.options, *(each for each in command.program_options(program) if command.uses_option(each)))
    for option in own:
        yield Candidate(option.long, option.help)


def _values(program: Program, option: Option, environ: Mapping[str, str], words: Sequence[str]) -> Iterator[Candidate]:
    """Yield what an option may be given."""
    match option.long:
        case "--node":
            yield from _ask(program, environ, words, _nodes)
        case "--context":
            yield from _ask(program, environ, words, _contexts)
        case "--stream":
            yield from map(Candidate, ("out", "err"))
        case "--format":
            yield from map(Candidate, ("ini", "json", "yaml", "systemd", "compose"))


def _arguments(
    program: Program, command: Command, given: Sequence[str], environ: Mapping[str, str], words: Sequence[str]
) -> Iterator[Candidate]:
    """Yield what the next argument of a command may be, by the name of its placeholder."""
    places = _PLACEHOLDER.findall(command.arguments)
    if not places:
        return
    place = places[min(len(given), len(places) - 1)]
    match place:
        case "command":
            yield from (Candidate(each.name, each.summary) for each in program.commands)
        case "signal":
            yield from map(Candidate, ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP"))
        case "shell":
            yield from map(Candidate, SCRIPTS)
        case "node":
            yield from _ask(program, environ, words, _nodes)
        case "type":
            yield from _ask(program, environ, words, _types)
            yield from _ask(program, environ, words, _jobs)
        case "name" if command.name == "export":
            yield from _ask(program, environ, words, _types)
        case "job" | "process" | "name_or_pid":
            yield from _ask(program, environ, words, _jobs)
        case "name" if program.name == "gafferctl":
            yield from _ask(program, environ, words, _jobs)
        case "name" | "session" if command.target == "node":
            yield from _ask(program, environ, words, _sessions)
        case "action" if command.name == "context":
            yield from map(Candidate, ("set", "use", "show", "remove"))
        case "name" if command.name == "context":
            yield from _ask(program, environ, words, _contexts)


_Source = Callable[[Context], Iterable[Candidate]]


def _ask(program: Program, environ: Mapping[str, str], words: Sequence[str], source: _Source) -> Iterator[Candidate]:
    """Yield what a server says now, with the options on the line that choose it; nothing if it does not respond."""
    chosen = {option.long: None for option in program.options}
    arguments = Arguments({**chosen, **_chosen(program, words)})
    try:
        yield from source(Context(program, arguments, environ))
    except (GafferClientError, GafferError, CommandFailed):
        return


def _chosen(program: Program, words: Sequence[str]) -> dict[str, object]:
    """Return the values of the program options among the words."""
    found: dict[str, object] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        for option in program.options:
            if name in option.spellings:
                text = value if equals else following
                found[option.long] = True if option.value is None else [text] if option.repeat else text
    return found


def _types(context: Context) -> Iterator[Candidate]:
    from gaffer_client.cli.procfile_app import open_application

    for name in open_application(context.arguments).types:
        yield Candidate(name, "a type of the Procfile")


def _jobs(context: Context) -> Iterator[Candidate]:
    with context.server() as server:
        server.transport.timeout = _TIMEOUT
        names = server.jobs()
    session = context.program.session(context.arguments)
    for name in names:
        of_session, bare = split_job_name(name)
        if of_session == session:
            yield Candidate(bare)
    yield from map(Candidate, names)


def _sessions(context: Context) -> Iterator[Candidate]:
    with context.server() as server:
        server.transport.timeout = _TIMEOUT
        yield from map(Candidate, server.sessions())


def _nodes(context: Context) -> Iterator[Candidate]:
    with context.lookup(timeout=_TIMEOUT) as lookup:
        for node in lookup.nodes()["nodes"]:
            yield Candidate(node["name"], node["origin"])


def _contexts(context: Context) -> Iterator[Candidate]:
    for name in context.contexts.named:
        yield Candidate(name, context.contexts.texts(name).get("endpoint", ""))
