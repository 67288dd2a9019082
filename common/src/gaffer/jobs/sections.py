"""Jobs in configuration files: the sections `[job:NAME]`, or `[process:NAME]`, and `[env:NAME]` of INI. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from gaffer.errors import InvalidValue, Problem
from gaffer.runtime.ini import Section, Value
from gaffer.runtime.values import pairs

JOB_PREFIXES = ("process", "job")
ENV_PREFIX = "env"

# Settings that are written in another way in a section, and that way.
NOT_IN_A_SECTION = {
    "env": "set variables in a section [env:NAME] or with keys such as env:PORT; in YAML, in a mapping env",
    "name": "set the name in the section header: [process:NAME] or [process:SESSION:NAME]; in YAML, as the key in jobs",
    "custom_channels": None,
}

_VARIABLE = "env:"
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,${}-]+")
_ESCAPED = re.compile(r'[\\"`]')


class SectionSettings(Struct):
    """The settings in a section, for `JobConfig.from_dict` with `lax`, and all mistakes in it.

    `places` has the position of each part of `settings`, such as `$.env.PORT`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_settings(section: Section) -> SectionSettings:
    """Return the settings in a job section; `env` holds also the variables of its keys `env:NAME` and `env_json`."""
    found = SectionSettings()
    env: dict[str, Any] = {}
    for key, value in section.values.items():
        described = key == "env" and isinstance(value.data, Mapping | None)
        if key in NOT_IN_A_SECTION and not described:
            found.problems.append(section.problem(f"unknown key {key!r}", NOT_IN_A_SECTION[key], key))
            continue
        try:
            if described:
                variables = value.data or {}
            elif key.startswith(_VARIABLE):
                variables = {key.removeprefix(_VARIABLE): value.text}
            elif key == "env_json":
                variables = json_variables(value.text)
            else:
                found.settings[key] = (
                    pairs(value.data) if key == "labels" and isinstance(value.data, str) else value.data
                )
                found.places |= {f"$.{key}{path}": place for path, place in value.each_part()}
                continue
        except InvalidValue as wrong:
            found.problems.append(section.problem(f"{key}: {wrong.message}", wrong.hint, key))
            continue
        env |= variables
        found.places |= {f"$.env.{name}": value for name in variables}
        found.places |= {f"$.{key}{path}": place for path, place in value.each_part() if described}
    if env:
        found.settings["env"] = env
    return found


def read_variables(section: Section, taken: Collection[str] = ()) -> SectionSettings:
    """Return the variables of an `[env:NAME]` section as the setting `env`; their names become upper case.

    `taken` holds the names of variables that the job already has from another section.
    """
    found = SectionSettings()
    env: dict[str, str] = {}
    for key, value in section.values.items():
        name = key.upper()
        if name in env or name in taken:
            hint = "variable names are converted to upper case"
            found.problems.append(section.problem(f"{name} is given twice", hint, key))
        env[name] = value.text
        found.places[f"$.env.{name}"] = value
    if env:
        found.settings["env"] = env
    return found


def ini_settings(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a valid job description as the keys of a section, without `name` and `env`.

    Raises ValueError for a list or object that a text can't represent, such as one whose items contain commas.
    """
    settings: dict[str, str] = {}
    for key, value in description.items():
        if key in NOT_IN_A_SECTION or value is None:
            continue
        if key == "args" and not isinstance(value, str):
            settings[key] = " ".join(map(_quoted_word, value))
        elif key == "labels":
            settings[key] = _joined(key, [f"{name}={text}" for name, text in value.items()])
            if pairs(settings[key]) != value:
                raise ValueError(f"an INI file can't hold the value of {key}")
        elif key == "flapping":
            settings[key] = _joined(key, value.values())
        elif isinstance(value, Mapping):
            settings |= {f"{key}.{name}": str(text) for name, text in value.items()}
        elif isinstance(value, list | tuple):
            settings[key] = _joined(key, value) or ("none" if key == "endpoints" else "")
        else:
            settings[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return settings


def _joined(key: str, items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    if any("," in text or text != text.strip() or not text for text in texts):
        raise ValueError(f"an INI file can't hold the value of {key}")
    return ", ".join(texts)


def _quoted_word(word: object) -> str:
    """Return a word of `args` as part of a command line; variables in it are replaced all the same."""
    text = str(word)
    return text if _PLAIN_WORD.fullmatch(text) else '"' + _ESCAPED.sub(r"\\\g<0>", text) + '"'


def nearest(path: str, known: Collection[str]) -> str | None:
    """Return `path`, or what it is a part of, whichever is in `known` first: `$.after` for `$.after[1]`."""
    while path not in known:
        cut = max(path.rfind("."), path.rfind("["))
        if cut <= 0:
            return None
        path = path[:cut]
    return path


def json_variables(text: str) -> dict[str, str]:
    """Parse variables from a JSON object of strings, for values that INI syntax can't express."""
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError as error:
        hint = 'write {"NAME": "VALUE"}, or use keys such as env:NAME = VALUE'
        raise InvalidValue(f"expected a JSON object of strings: {error}", hint) from None
