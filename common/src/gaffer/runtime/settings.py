"""Settings that are declared once, and what follows from a declaration: parsing, help, reference and schema.

A `Setting` says where a value may be given and which rule checks it. A flag wins over the environment variable, that
over the configuration file, that over the default. A program with many settings declares them as the fields of a
dataclass, each made by `setting`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from gaffer.errors import ConfigError, InvalidValue, Problem
from gaffer.runtime.options import Option

T = TypeVar("T")

Rule = Callable[[str], Any]
"""Turns the text of a setting into its value; raises InvalidValue. Its attribute `schema`, if any, is JSON Schema."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: what it is, where it may be given, and what it is otherwise.

    `flag` is spelled as help shows it, `-p DIR, --plugins-dir=DIR`; without a value it is a switch. `aliases` are other
    long flags. `keys` are (section, key) in the configuration file; a key that ends in `*` may be followed by digits,
    and each such key adds to the value. `shown` describes a default that is no fixed value. `heading` begins a
    group of options in help.
    """

    rule: Rule
    help: str
    default: Any = None
    shown: str | None = None
    flag: str | None = None
    aliases: tuple[str, ...] = ()
    repeat: bool = False
    variable: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    heading: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """All long flags."""
        return (self.option.long, *self.aliases) if self.flag is not None else ()

    @property
    def option(self) -> Option:
        """The option of a setting that has a flag; its help names the variable and the default."""
        assert self.flag is not None
        default = self.shown or spell(self.default)
        variable = f"{self.variable}=1" if self.variable and "=" not in self.flag else self.variable
        notes = [variable, f"default: {default}" if default else None, "may be repeated" if self.repeat else None]
        note = "; ".join(filter(None, notes))
        return Option(self.flag, f"{self.help} ({note})" if note else self.help, self.aliases, self.repeat)


def spell(value: Any) -> str | None:
    """The text that gives `value`, or None where that is the same as giving nothing."""
    match value:
        case None | False | () | "":
            return None
        case True:
            return "true"
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(value)
        case _:
            return str(value)


_SETTING = "setting"


def setting(help: str, rule: Rule, default: Any = None, *, key: str | None = None, **given: Any) -> Any:
    """A field that declares a Setting with these attributes; `key` is `SECTION KEY`, further ones after a comma."""
    keys = tuple((section, name) for section, name in map(str.split, key.split(","))) if key else ()
    declared = Setting(rule=rule, help=help, default=default, keys=keys, **given)
    return dataclasses.field(default=default, metadata={_SETTING: declared})


def settings_of(schema: type) -> dict[str, Setting]:
    """The settings that the fields of `schema` declare, by name."""
    return {field.name: field.metadata[_SETTING] for field in dataclasses.fields(schema)}


def option_groups(schema: type, first: Iterable[Option]) -> dict[str, list[Option]]:
    """The options of a program by heading: under `Options` those of `first`, then those of the settings of `schema`."""
    heading = "Options"
    groups = {heading: list(first)}
    for declared in settings_of(schema).values():
        heading = declared.heading or heading
        if declared.flag is not None:
            groups.setdefault(heading, []).append(declared.option)
    return groups


class Given(NamedTuple):
    """The text of a setting, and where it was given: `--bind`, `GAFFER_STATE_DIR`, `[client] endpoint`."""

    source: str
    text: str


def find(
    declared: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[tuple[str, str], str] | None = None,
) -> Given | None:
    """What is given for a setting, None if nothing is; an empty text counts as nothing.

    `flags` are values by long flag as docopt returns them; a repeated flag gives a comma list. Raises ConfigError when
    two spellings of a flag are given.
    """
    used = [name for name in declared.flags if flags.get(name)]
    if len(used) > 1:
        raise ConfigError([Problem(used[1], f"{used[0]} says the same", "give one of them")])
    for name in used:
        value = flags[name]
        return Given(name, ",".join(value) if isinstance(value, list) else str(value))
    if declared.variable is not None and (text := environ.get(declared.variable)):
        return Given(declared.variable, text)
    for section, key in declared.keys:
        if file and (text := file.get((section, key))):
            return Given(f"[{section}] {key}", text)
    return None


class Resolution(Generic[T]):
    """The settings of a run, of the fields of `schema`, with every mistake in them.

    `from_file` has values of the configuration file by name, already checked. `values` are those found, None for
    a wrong one; `sources` says which flag or variable gave a value.
    """

    def __init__(
        self,
        schema: type[T],
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        from_file: Mapping[str, Any] | None = None,
    ) -> None:
        self._schema = schema
        settings = settings_of(schema)
        self.values = {**{name: declared.default for name, declared in settings.items()}, **(from_file or {})}
        self.sources: dict[str, str] = {}
        self.problems: list[Problem] = []
        for name, declared in settings.items():
            try:
                self._resolve(name, declared, flags, environ)
            except ConfigError as error:
                self.problems += error.problems

    def _resolve(self, name: str, declared: Setting, flags: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        given = find(declared, flags, environ)
        if given is None:
            return
        self.sources[name] = given.source
        self.values[name] = None
        try:
            self.values[name] = declared.rule(given.text)
        except InvalidValue as wrong:
            self.problem(name, wrong.message, wrong.hint)

    def problem(self, name: str, message: str, hint: str | None = None) -> None:
        """Add a mistake in the setting `name`, at its source."""
        declared = settings_of(self._schema)[name]
        place = self.sources.get(name) or next(iter(declared.flags), name)
        self.problems.append(Problem(place, message, hint))

    def settings(self) -> T:
        """The settings; raises ConfigError with every mistake."""
        if self.problems:
            raise ConfigError(self.problems)
        return self._schema(**self.values)
