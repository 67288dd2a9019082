"""The command table: programs, commands and options. Parsing, help and reference are derived from it."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gaffer.errors import did_you_mean
from gaffer.jobs.names import DEFAULT_SESSION
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Setting
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.several import CHOOSING, DRY_RUN, OPTIONS, YES

if TYPE_CHECKING:
    from gaffer_client.cli.config import Context
    from gaffer_client.cli.parse import Arguments

# The kind of server that a command sends requests to.
Target = Literal["node", "lookup", "none"]

# What a command does: it only reads; it changes something; or it ends processes, or removes something for good.
Effect = Literal["read", "write", "destructive"]

_FORMATS = ("--json", "--plain")
_TLS = ("--cacert", "--certfile", "--keyfile")
_USED: Mapping[Target, tuple[str, ...]] = {
    "node": ("--endpoint", "--connect", "--context", "--api-key-file", "--insecure", *_TLS, "--timeout", *_FORMATS),
    "lookup": ("--lookupd", "--context", *_TLS, *_FORMATS),
    "none": (),
}
"""The program options that a command uses, by the server it sends requests to."""

Run = Callable[["Context", "Arguments"], int]


class Command:
    """A command: `arguments` is its docopt pattern (`[<name>]`), `details` further paragraphs of its help.

    `examples` are command lines without the name of the program. `uses` names the program options that the command
    uses in addition to those for its server. `scope` is what an API key has to allow on a node, by default `read`, or
    `control` for a command that changes something.

    A command that `passes_on` receives everything after its first argument unchanged, including options. After the
    command, a short option that it shares with the program is the command's.

    `on_several` names the function that does the same on several nodes, as MODULE:FUNCTION below
    `gaffer_client.cli.commands`; its third argument is the command. `plan` names the function that shows what would be
    done on one node, by default the same; it is empty if nothing can show that. `instead` says what users of a command
    for one node can do on several.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        run: Run,
        target: Target,
        arguments: str = "",
        *,
        effect: Effect,
        options: tuple[Option, ...] = (),
        details: str = "",
        aliases: tuple[str, ...] = (),
        passes_on: bool = False,
        examples: tuple[str, ...] = (),
        uses: tuple[str, ...] = (),
        scope: str | None = None,
        on_several: str | None = None,
        plan: str | None = None,
        instead: str | None = None,
    ) -> None:
        self.name = name
        self.summary = summary
        self.run = run
        self.target = target
        self.arguments = arguments
        self.effect = effect
        self.options = options
        self.details = details
        self.aliases = aliases
        self.passes_on = passes_on
        self.examples = examples
        self.uses = uses
        self.scope = scope or ("read" if effect == "read" else "control")
        self.on_several = on_several
        self.plan = on_several if plan is None else plan
        self.instead = instead

    def uses_option(self, option: Option) -> bool:
        """Return whether this command uses an option of the program."""
        used = {*self.uses, *_USED[self.target]}
        if self.on_several:
            used |= {"--lookupd", *(each.long for each in OPTIONS)} - {DRY_RUN.long}
        if self.plan:
            used.add(DRY_RUN.long)
        return option.long in (used if self.effect != "read" else used - {DRY_RUN.long, YES.long})

    def is_dry(self, args: "Arguments") -> bool:
        """Return whether only what it would do on one node is to be shown; raise UsageError if it can't say that."""
        if not args.flag(DRY_RUN.long) or any(each.long == DRY_RUN.long for each in self.options):
            return False
        if not self.plan and self.effect != "read":
            raise UsageError(f"`{self.name}` can't say what it would do", hint=f"omit {DRY_RUN.long}")
        return self.effect != "read"

    def show_plan(self, context: "Context", args: "Arguments") -> int:
        """Show what the command would do on one node."""
        assert self.plan
        return _function(self.plan)(context, args, self)

    def run_on_several(self, context: "Context", args: "Arguments") -> int:
        """Do the same on several nodes; raise UsageError if the command acts on one only."""
        if self.on_several is None:
            name = f"`{context.program.name} {self.name}`"
            if self.target != "node":
                what = "asks the lookups, which know all nodes" if self.target == "lookup" else "needs no node"
                raise UsageError(f"{name} {what}", hint=f"omit {', '.join(each.long for each in CHOOSING)}")
            choice = f"use {context.program.endpoint_option} to choose one node, by its URL or name"
            if "<node>" in self.arguments:
                choice = "give the name of a node as an argument"
            hint = f"{choice}; {self.instead}" if self.instead else choice
            raise UsageError(f"{name} does not act on several nodes", hint=hint)
        return _function(self.on_several)(context, args, self)

    def program_options(self, program: "Program") -> list[Option]:
        """Return the options of the program as they are accepted after this command; its own take precedence."""
        own = {name for option in self.options for name in option.spellings}
        others = [option for option in program.options if option.long not in own]
        return [option if own.isdisjoint(option.spellings) else option.without_short() for option in others]


def _function(path: str) -> Callable[..., int]:
    """Return the function at MODULE:FUNCTION below `gaffer_client.cli.commands`."""
    module, _, name = path.partition(":")
    found: Callable[..., int] = getattr(import_module(f"gaffer_client.cli.commands.{module}"), name)
    return found


class Family(NamedTuple):
    """The commands of a module below `gaffer_client.cli.commands`, which is imported when one of them is used.

    `names` and `aliases` are those of its commands, separated by spaces. The commands are the value of `attribute` in
    the module, or what it returns for `arguments` if it is a function.
    """

    module: str
    names: str
    aliases: str = ""
    attribute: str = "COMMANDS"
    arguments: tuple[Any, ...] = ()

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands, in the order of help."""
        return _load(self)


@cache
def _load(family: Family) -> tuple[Command, ...]:
    found = getattr(import_module(f"gaffer_client.cli.commands.{family.module}"), family.attribute)
    commands: tuple[Command, ...] = found(*family.arguments) if callable(found) else found
    return commands


class Program(NamedTuple):
    """An executable; its `options` are accepted before and after the name of the command."""

    name: str
    summary: str
    families: tuple[Family, ...]
    options: tuple[Option, ...]
    endpoint: Setting
    examples: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = MappingProxyType({})
    """Hints for commands that users may expect in this program, by name."""
    session: Callable[["Arguments"], str] = lambda _args: DEFAULT_SESSION
    """Returns the session of jobs that are named without one."""

    @property
    def commands(self) -> list[Command]:
        """All commands, whose modules are imported."""
        return [command for family in self.families for command in family.commands]

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
        for family in self.families:
            if name in family.names.split() or name in family.aliases.split():
                return next(each for each in family.commands if name in (each.name, *each.aliases))
        return None

    def names(self) -> Iterator[str]:
        """Return the names of all commands, without aliases."""
        return (name for family in self.families for name in family.names.split())
