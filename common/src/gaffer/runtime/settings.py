"""Declarations of settings, from which parsing, help, reference and schema are derived.

A `Setting` declares the sources of a value and the rule that checks it. Flags take precedence over environment
variables, those over the configuration file, and that over the default. A program with many settings declares them as
the fields of a dataclass, each created by `setting`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from gaffer.errors import ConfigError, InvalidValue, Problem
from gaffer.runtime.options import Option

T = TypeVar("T")

Rule = Callable[[str], Any]
"""Converts the text of a setting to its value; raises InvalidValue. Its attribute `schema`, if any, is JSON Schema."""


class Setting(NamedTuple):
    """A setting: its description, sources and default.

    `flag` is spelled as in help, `-p DIR, --plugins-dir=DIR`; without a value it is a switch. `aliases` are other long
    flags, `off` the flag that turns a switch off. `keys` are (section, key) in the configuration file; in a key, a `*`
    at the end stands for digits, and each such key adds to the value. `shown` describes a default that is not a fixed
    value. `heading` starts a group of options in help.
    """

    rule: Rule
    help: str
    default: Any = None
    shown: str | None = None
    flag: str | None = None
    aliases: tuple[str, ...] = ()
    off: str | None = None
    repeat: bool = False
    variable: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    heading: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """All long flags."""
        return (self.option.long, *self.aliases, *filter(None, [self.off])) if self.flag is not None else ()

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
    """Return the text for `value`, or None if it is equivalent to leaving the setting out."""
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
    """Return a field that declares a Setting; `key` is `SECTION KEY`, or several, separated by commas."""
    keys = tuple((section, name) for section, name in map(str.split, key.split(","))) if key else ()
    declared = Setting(rule=rule, help=help, default=default, keys=keys, **given)
    import dataclasses  # programs without many settings start faster without it

    return dataclasses.field(default=default, metadata={_SETTING: declared})


def settings_of(schema: type) -> dict[str, Setting]:
    """Return the settings that the fields of `schema` declare, by name."""
    import dataclasses

    return {field.name: field.metadata[_SETTING] for field in dataclasses.fields(schema)}


def option_groups(schema: type, first: Iterable[Option]) -> dict[str, list[Option]]:
    """Return the options of a program by heading: `first` under `Options`, then those of the settings in `schema`."""
    heading = "Options"
    groups = {heading: list(first)}
    for declared in settings_of(schema).values():
        heading = declared.heading or heading
        if declared.flag is not None:
            groups.setdefault(heading, []).append(declared.option)
            if declared.off is not None:
                groups[heading].append(Option(declared.off, f"the opposite of `{declared.option.long}`"))
    return groups


class Given(NamedTuple):
    """The text of a setting and its source: `--bind`, `GAFFER_STATE_DIR`, `[client] endpoint`.

    `place` is the file and line of a source in a file, if known.
    """

    source: str
    text: str
    place: str | None = None


def find(
    declared: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[tuple[str, str], str] | None = None,
) -> Given | None:
    """Return the text given for a setting, or None; empty texts are ignored.

    `flags` are values by long flag, as docopt returns them; a repeated flag results in a comma-separated list. Raises
    ConfigError if two spellings of a flag are given.
    """
    used = [name for name in declared.flags if flags.get(name)]
    if len(used) > 1:
        what = "its opposite" if used[1] == declared.off else "which is the same option"
        raise ConfigError([Problem(used[1], f"conflicts with {used[0]}, {what}", "give only one of them")])
    for name in used:
        value = flags[name] if name != declared.off else "false"
        return Given(name, ",".join(value) if isinstance(value, list) else str(value))
    if declared.variable is not None and (text := environ.get(declared.variable)):
        return Given(declared.variable, text)
    for section, key in declared.keys:
        if file and (text := file.get((section, key))):
            return Given(f"[{section}] {key}", text)
    return None


class Resolution(Generic[T]):
    """The resolved settings of a program, as declared by `schema`, with all mistakes in them.

    `from_file` maps names to checked values of the configuration file. `values` are the resolved values, None if
    invalid; `given` are the texts of flags and variables that they come from.
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
        self.given: dict[str, Given] = {}
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
        self.given[name] = given
        self.values[name] = None
        try:
            self.values[name] = declared.rule(given.text)
        except InvalidValue as error:
            self.problem(name, error.message, error.hint)

    def problem(self, name: str, message: str, hint: str | None = None) -> None:
        """Record a mistake in the setting `name`, at its source."""
        declared = settings_of(self._schema)[name]
        place = self.given[name].source if name in self.given else next(iter(declared.flags), name)
        self.problems.append(Problem(place, message, hint))

    def settings(self) -> T:
        """Return the settings; raises ConfigError with all mistakes."""
        if self.problems:
            raise ConfigError(self.problems)
        return self._schema(**self.values)
