"""`help`, `version` and `key:new`: commands that need no server."""

from gaffer.runtime.options import Option
from gaffer.runtime.version import __version__
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.help import command_help, program_help
from gaffer_client.cli.output import print_json
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def help_(context: Context, args: Arguments) -> int:
    name = args.text("<command>")
    if args.flag("--man"):
        from gaffer_client.cli.manual import manual

        print(manual(context.program), end="")
        return Exit.OK
    if name is None:
        print(program_help(context.program))
        return Exit.OK
    command = context.program.find(name)
    if command is None:
        raise UsageError(f"unknown command {name!r}", hint=context.program.suggestion(name))
    print(command_help(context.program, command))
    return Exit.OK


def completion(context: Context, args: Arguments) -> int:
    from gaffer_client.cli.completion import SCRIPTS, script

    shell = args.required("<shell>")
    if shell not in SCRIPTS:
        raise UsageError(f"no completion for {shell!r}", hint=f"use {', '.join(SCRIPTS)}")
    print(script(context.program, shell), end="")
    return Exit.OK


def version(context: Context, args: Arguments) -> int:
    print(f"{context.program.name} {__version__}")
    return Exit.OK


def key_new(context: Context, args: Arguments) -> int:
    from gaffer.runtime.keyfile import new_key

    key = new_key()
    if context.json:
        print_json({"key": key})
    else:
        print(key)
    return Exit.OK


_HELP = Command(
    "help",
    "Show this help or the help of a command",
    help_,
    "none",
    "[<command>]",
    effect="read",
    options=(Option("--man", "print the manual page of all commands, for `man -l -`"),),
    examples=("help", "help load"),
)

_COMPLETION = Command(
    "completion",
    "Print the script for completion in a shell",
    completion,
    "none",
    "<shell>",
    effect="read",
    details="""
        <shell> is bash, zsh or fish. Commands, options, and the names of jobs, applications, nodes and contexts as they
        are at that moment are completed; a server is waited for 1 second.

        bash: `source <(gaffer completion bash)` in ~/.bashrc

        zsh: `source <(gaffer completion zsh)` in ~/.zshrc, after `compinit`

        fish: `gaffer completion fish > ~/.config/fish/completions/gaffer.fish`
    """,
    examples=("completion bash",),
)

GAFFER_COMMANDS = (
    Command(
        "key:new",
        "Print a new random key",
        key_new,
        "none",
        effect="read",
        details="""
            The key can serve as an API key or as a cluster key. No server is contacted and nothing is stored. Keep the
            key in a file that only its owner can read: `(umask 077; gaffer key:new > api.key)`.
        """,
        examples=("key:new",),
        uses=("--json",),
    ),
    _COMPLETION,
    _HELP,
)

GAFFERCTL_COMMANDS = (
    _COMPLETION,
    _HELP,
    Command(
        "version",
        "Show the version",
        version,
        "none",
        effect="read",
        examples=("version",),
    ),
)
