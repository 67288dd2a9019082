"""`help`, `version` and `key:new`: commands that need no server."""

from gaffer.runtime.version import __version__
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.help import command_help, program_help
from gaffer_client.cli.output import print_json
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def help_(context: Context, args: Arguments) -> int:
    name = args.text("<command>")
    if name is None:
        print(program_help(context.program))
        return Exit.OK
    command = context.program.find(name)
    if command is None:
        raise UsageError(f"unknown command {name!r}", hint=context.program.suggestion(name))
    print(command_help(context.program, command))
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
    examples=("help", "help load"),
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
    _HELP,
)

GAFFERCTL_COMMANDS = (
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
