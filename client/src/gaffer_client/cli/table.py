"""The command table: programs, commands and options. Parsing, help and reference are derived from it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gaffer.errors import did_you_mean
from gaffer.jobs.names import DEFAULT_SESSION
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Setting

if TYPE_CHECKING:
    from gaffer_client.cli.config import Context
    from gaffer_client.cli.parse import Arguments

# The kind of server that a command sends requests to.
Target = Literal["node", "lookup", "none"]

# What a command does: it only reads; it changes something; or it ends processes, or removes something for good.
Effect = Literal["read", "write", "destructive"]

_TLS = ("--cacert", "--certfile", "--keyfile")
_USED: Mapping[Target, tuple[str, ...]] = {
    "node": ("--endpoint", "--connect", "--api-key-file", "--insecure", *_TLS, "--json"),
    "lookup": ("--lookupd", *_TLS, "--json"),
    "none": (),
}
"""The program options that a command uses, by the server it sends requests to."""

_ON_SEVERAL_NODES = ("--cluster", "--node", "--label", "--yes", "--dry-run", "--timeout", "--lookupd")
"""The program options that commands for several nodes use."""

Run = Callable[["Context", "Arguments"], int]
RunOnSeveral = Callable[["Context", "Arguments", "Command"], int]


@dataclass(frozen=True)
class Command:
    """A command: `arguments` is its docopt pattern (`[<name>]`), `details` further paragraphs of its help.

    `examples` are command lines without the name of the program. `uses` names the program options that the command
    uses in addition to those for its server. A command that `passes_on` receives everything after its first argument
    unchanged, including options. After the command, a short option that it shares with the program is the command's.
    """

    name: str
    summary: str
    run: Run
    target: Target
    arguments: str = ""
    options: tuple[Option, ...] = ()
    details: str = ""
    aliases: tuple[str, ...] = ()
    passes_on: bool = False
    examples: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    effect: Effect = field(kw_only=True)
    on_several: RunOnSeveral | None = None
    """Does the same on several nodes, if the arguments choose them; the command is its third argument."""

    def uses_option(self, option: Option) -> bool:
        """Return whether this command uses an option of the program."""
        several = _ON_SEVERAL_NODES if self.on_several is not None else ()
        return option.long in (*self.uses, *_USED[self.target], *several)

    def program_options(self, program: "Program") -> list[Option]:
        """Return the options of the program as they are accepted after this command; its own take precedence."""
        own = {name for option in self.options for name in option.spellings}
        others = [option for option in program.options if option.long not in own]
        return [option if own.isdisjoint(option.spellings) else option.without_short() for option in others]


@dataclass(frozen=True)
class Program:
    """An executable; its `options` are accepted before and after the name of the command."""

    name: str
    summary: str
    commands: tuple[Command, ...]
    options: tuple[Option, ...]
    endpoint: Setting
    examples: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Hints for commands that users may expect in this program, by name."""
    session: Callable[["Arguments"], str] = lambda _args: DEFAULT_SESSION
    """Returns the session of jobs that are named without one."""

    @property
    def endpoint_option(self) -> str:
        """The option that chooses the node."""
        return self.endpoint.option.long

    def suggestion(self, name: str) -> str:
        """Return a hint for the unknown command `name`."""
        nearest = did_you_mean(name, list(self.names()))
        return self.elsewhere.get(name) or nearest or f"run `{self.name} help` to list the commands"

    def find(self, name: str) -> Command | None:
        """Return the command with this name or alias, or None."""
        return next((command for command in self.commands if name in (command.name, *command.aliases)), None)

    def names(self) -> Iterator[str]:
        """Return the names of all commands, without aliases."""
        return (command.name for command in self.commands)
