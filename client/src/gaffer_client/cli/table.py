"""The command table: programs, their commands and options. Parsing, help and reference are made from it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gaffer.errors import did_you_mean
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Setting

if TYPE_CHECKING:
    from gaffer_client.cli.config import Context
    from gaffer_client.cli.parse import Arguments

# The server that a command sends requests to.
Asks = Literal["node", "lookup", "nobody"]

_TLS = ("--cacert", "--certfile", "--keyfile")
_USED: Mapping[Asks, tuple[str, ...]] = {
    "node": ("--endpoint", "--connect", "--api-key-file", "--insecure", *_TLS, "--json"),
    "lookup": ("--lookupd", *_TLS, "--json"),
    "nobody": (),
}
"""The options of a program that a command uses, by the server that it asks."""

Run = Callable[["Context", "Arguments"], int]


@dataclass(frozen=True)
class Command:
    """A command: `arguments` is its docopt pattern (`[<name>]`), `details` further paragraphs of its help.

    `examples` are command lines without the name of the program. `uses` are options of the program that it uses
    in addition to those for the server it asks. One that `passes_on` takes everything after its first argument as it
    is, including options.
    """

    name: str
    summary: str
    run: Run
    asks: Asks
    arguments: str = ""
    options: tuple[Option, ...] = ()
    details: str = ""
    aliases: tuple[str, ...] = ()
    passes_on: bool = False
    examples: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    def uses_option(self, option: Option) -> bool:
        """Return whether this command uses an option of the program."""
        return option.long in (*self.uses, *_USED[self.asks])


@dataclass(frozen=True)
class Program:
    """An executable: its `options` may stand before or after the name of the command."""

    name: str
    summary: str
    commands: tuple[Command, ...]
    options: tuple[Option, ...]
    endpoint: Setting
    examples: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Names of commands that users expect and this program lacks, and what to use instead."""

    @property
    def endpoint_option(self) -> str:
        """The option that chooses the node."""
        return self.endpoint.option.long

    def suggestion(self, name: str) -> str:
        """A hint for the unknown command `name`."""
        nearest = did_you_mean(name, list(self.names()))
        return self.elsewhere.get(name) or nearest or f"`{self.name} help` lists the commands"

    def find(self, name: str) -> Command | None:
        """The command of that name or alias."""
        return next((command for command in self.commands if name in (command.name, *command.aliases)), None)

    def names(self) -> Iterator[str]:
        """The names of all commands, aliases left out."""
        return (command.name for command in self.commands)
