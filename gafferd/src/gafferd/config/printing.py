"""The configuration in effect as an INI file that loads to the same, with the source of each value as a comment."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gaffer.errors import GafferError, InvalidValue, quoted
from gaffer.jobs.names import DEFAULT_SESSION, JobName
from gaffer.jobs.sections import ini_settings, read_settings
from gaffer.process import ProcessConfig
from gaffer.runtime.ini import Section, Value, parse_ini
from gaffer.runtime.settings import Setting, spell
from gafferd.config.effective import Effective
from gafferd.config.file import Config, DescribedJob, is_plugin_section
from gafferd.config.settings import SETTINGS

MASK: Final = "<masked>"
_MASKED = (
    "# Secrets are masked, so this is not a configuration that can be loaded: each line with <masked> is an error.",
    "# --show-secrets prints one that can.",
)
_DEFAULT = "# default"
_URL_WITH_PASSWORD = re.compile(r"://[^/\s,]*@")


def render(effective: Effective, *, secrets: bool) -> str:
    """Return the configuration as INI; without `secrets`, variables of jobs and URLs with a password are masked.

    Raises GafferError for values from YAML files that INI can't hold.
    """
    writer = _Writer(secrets)
    lines = [f"# {effective.path or 'no configuration file'}", ""]
    for place in dict.fromkeys(section for section, _ in _places()):
        lines += writer.settings(place, effective)
    for section in effective.file.sections.values():
        if section.name.startswith("endpoint:") or section.name == "webhooks":
            lines += writer.plain(section)
        elif is_plugin_section(section.name):
            lines += writer.of_plugins(section)
    for name, config in effective.file.jobs.items():
        lines += writer.job(name, config, effective.file.described[name])
    return "\n".join([*(_MASKED if writer.masked else ()), *lines]).rstrip("\n") + "\n"


def _places() -> Iterator[tuple[str, str]]:
    for declared in SETTINGS.values():
        yield from declared.keys


class _Writer:
    """Writes sections; `masked` tells whether a value had to be masked."""

    def __init__(self, secrets: bool) -> None:
        self.masked = False
        self._secrets = secrets

    def settings(self, place: str, effective: Effective) -> list[str]:
        """Return the lines of a section with settings of the daemon."""
        given: list[str] = []
        defaults: list[str] = []
        unset: list[str] = []
        for name, declared in SETTINGS.items():
            section, key = declared.keys[0]
            key = key.rstrip("*")
            if section != place:
                continue
            if name in effective.given:
                given += [f"# from {effective.given[name].source}", self._line(key, effective.given[name].text)]
            elif name in effective.file.settings:
                for used, value in _in_file(declared, effective.file):
                    given += [_source(value), self._line(used, value.text)]
            elif (text := _default(declared)) is not None:
                defaults.append(self._line(key, text))
            else:
                unset.append(f"# {key} is not set" + (f"; default: {declared.shown}" if declared.shown else ""))
        return [f"[{place}]", *given, *_under(_DEFAULT, defaults), *unset, ""]

    def plain(self, section: Section) -> list[str]:
        """Return the lines of a section whose values are as in the file."""
        lines = (
            line for key, value in section.values.items() for line in (_source(value), self._line(key, value.text))
        )
        return [f"[{section.name}]", *lines, ""]

    def of_plugins(self, section: Section) -> list[str]:
        """Return the lines of a section of plugins, any of whose values may be a secret."""
        lines = [f"[{section.name}]"]
        for key, value in section.values.items():
            self.masked = self.masked or not self._secrets
            lines += [_source(value), self._line(key, _text(section, key)) if self._secrets else f"{key} {MASK}"]
        return [*lines, ""]

    def job(self, name: JobName, config: ProcessConfig, described: DescribedJob) -> list[str]:
        """Return the lines of a job section; those of its variables come last."""
        full = config.to_dict()
        given: dict[str, str] = {}
        values = {key: value for key, value in described.found.settings.items() if key != "env" and value is not None}
        try:
            for key, value in values.items():
                given |= {key: value} if isinstance(value, str) else ini_settings({key: full[key]})
            absent = {key: value for key, value in full.items() if key not in values and value not in ([], {}, None)}
            defaults = {key: text for key, text in ini_settings(absent).items() if key not in given}
            lines = [f"[job:{name.name if name.session == DEFAULT_SESSION else f'{name.session}:{name.name}'}]"]
            lines += [
                line for key, text in given.items() for line in (_source(described.place(f"$.{key}")), _line(key, text))
            ]
            lines += _under(_DEFAULT, [_line(key, text) for key, text in defaults.items()])
            variables = [*_variables(config.env, described)]
        except ValueError as error:
            raise _not_ini(name, str(error)) from None
        _check_same(name, config, [*lines, *(line for _, line in variables)])
        if self._secrets:
            return [*lines, *(each for source, line in variables for each in (source, line)), ""]
        self.masked = self.masked or bool(config.env)
        masked = [
            (_source(described.place(f"$.env.{variable}")), f"env:{json.dumps(variable)[1:-1]} {MASK}")
            for variable in sorted(config.env)
        ]
        return [*lines, *(each for pair in masked for each in pair), ""]

    def _line(self, key: str, text: str) -> str:
        if not self._secrets and _URL_WITH_PASSWORD.search(text):
            self.masked = True
            return f"{key} {MASK}"
        try:
            return _line(key, text)
        except ValueError as error:
            raise GafferError(f"{error}: {quoted(text)}", hint="use a value on one line") from None


def _in_file(declared: Setting, file: Config) -> Iterator[tuple[str, Value]]:
    """Yield the keys of a setting in the file."""
    for place, key in declared.keys:
        for used, value in file.sections[place].values.items() if place in file.sections else ():
            if re.fullmatch(re.escape(key).replace(r"\*", "[0-9]*"), used):
                yield used, value


def _default(declared: Setting) -> str | None:
    return "false" if declared.default is False else spell(declared.default)


def _text(section: Section, key: str) -> str:
    try:
        return section.values[key].text
    except InvalidValue as error:
        message = f"{key} of [{section.name}] can't be printed as INI: {error.message}"
        raise GafferError(message, hint="keep it in YAML") from None


def _source(value: Value | None) -> str:
    return f"# {value.file}:{value.line}" if value else _DEFAULT


def _under(comment: str, lines: list[str]) -> list[str]:
    return [comment, *lines] if lines else []


def _line(key: str, text: str) -> str:
    """Return a key and its value, whose further lines are indented; raise ValueError if that is read differently."""
    written = f"{key} = {text}".replace("\n", "\n    ").rstrip()
    sections, problems = parse_ini(f"[x]\n{written}", "")
    if problems or sections["x"].texts() != {key: text}:
        raise ValueError(f"an INI file can't hold the value of {key}")
    return written


def _variables(env: Mapping[str, str], described: DescribedJob) -> Iterator[tuple[str, str]]:
    """Yield the source and the line of each variable; those that a line can't hold are one JSON object."""
    hard: dict[str, str] = {}
    for name, text in sorted(env.items()):
        try:
            yield _source(described.place(f"$.env.{name}")), _line(f"env:{name}", text)
        except ValueError:
            hard[name] = text
    if hard:
        sources = dict.fromkeys(_source(described.place(f"$.env.{name}")) for name in hard)
        yield "\n".join(sources), _line("env_json", json.dumps(hard))


def _check_same(name: JobName, config: ProcessConfig, lines: Iterable[str]) -> None:
    """Raise GafferError unless the section of a job loads to the same job."""
    (section,) = parse_ini("\n".join(lines), "")[0].values()
    settings: dict[str, Any] = {"name": name.name, "os_env": True, **read_settings(section).settings}
    try:
        again = ProcessConfig.from_dict(settings, lax=True).to_dict()
    except ValueError as error:
        raise _not_ini(name, str(error)) from None
    for key, value in config.to_dict().items():
        if again[key] != value:
            raise _not_ini(name, f"an INI file can't hold the value of {key}")


def _not_ini(name: JobName, why: str) -> GafferError:
    return GafferError(f"the job {name.display} can't be printed as INI: {why}", hint="simplify it, or keep it in YAML")
