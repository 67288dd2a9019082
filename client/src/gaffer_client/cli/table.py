"""The command table: programs, their commands and options. Parsing, help and reference are made from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gaffer_client.cli.config import Context
    from gaffer_client.cli.parse import Arguments

# Whom a command talks to.
Asks = Literal["node", "lookup", "nobody"]

Run = Callable[["Context", "Arguments"], int]


@dataclass(frozen=True)
class Option:
    """An option: `names` as help shows them, `-c SPEC, --concurrency=SPEC`; the last is the long one.

    `aliases` are other long names for it. One that may `repeat` gives a list.
    """

    names: str
    help: str
    aliases: tuple[str, ...] = ()
    repeat: bool = False

    @property
    def long(self) -> str:
        """The long name, without a value: `--concurrency`."""
        return self.names.split()[-1].partition("=")[0]

    @property
    def value(self) -> str | None:
        """What its value is called, None when it takes none."""
        return self.names.split()[-1].partition("=")[2] or None

    @property
    def spellings(self) -> list[str]:
        """All names, short and long."""
        names = [part.split()[0].partition("=")[0] for part in self.names.split(", ")]
        return [*names, *self.aliases]


@dataclass(frozen=True)
class Command:
    """A command: `arguments` is its docopt pattern (`[<name>]`), `details` further paragraphs of its help.

    One that `passes_on` takes what stands after its first argument as it is, options too.
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


@dataclass(frozen=True)
class Program:
    """An executable: its `options` may stand before or after the name of the command."""

    name: str
    summary: str
    commands: tuple[Command, ...]
    options: tuple[Option, ...]

    def find(self, name: str) -> Command | None:
        """The command of that name or alias."""
        return next((command for command in self.commands if name in (command.name, *command.aliases)), None)

    def names(self) -> Iterator[str]:
        """The names of all commands, aliases left out."""
        return (command.name for command in self.commands)
