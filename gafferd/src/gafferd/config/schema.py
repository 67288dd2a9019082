"""The JSON Schema of the configuration file, generated from the declarations of its settings.

`python -m gafferd.config.schema` prints it; `deploy/gafferd.schema.json` is its output.
"""

import json
from typing import Any, Final

import msgspec

from gaffer.jobs.sections import NOT_IN_A_SECTION
from gaffer.runtime.settings import Setting, settings_of, spell
from gaffer.schemas.job import JobDescription
from gafferd.config.file import APPLICATION_KEYS, READER_KEYS, EndpointConfig
from gafferd.config.settings import SETTINGS

Schema = dict[str, Any]

_TEXT: Final = {"type": "string"}
_NAME: Final = "[^:]+"


def make_schema() -> Schema:
    """Return the schema of a configuration file as an object of sections, each an object of its keys.

    A value is a string, as in INI, or has the type that the string represents. Unknown sections are allowed.
    """
    settings, numbered = _daemon_sections()
    for key, purpose in {**READER_KEYS, **APPLICATION_KEYS}.items():
        settings["gaffer"][key] = {**_TEXT, "description": purpose}
    _, definitions = msgspec.json.schema_components([JobDescription], ref_template="#/$defs/{name}")
    endpoint = _section({name: _value(declared) for name, declared in settings_of(EndpointConfig).items()})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of gafferd",
        "type": "object",
        "properties": {
            **{name: _section(keys, numbered.get(name)) for name, keys in settings.items()},
            "webhooks": {"type": "object", "additionalProperties": _TEXT},
        },
        "patternProperties": {
            f"^endpoint:{_NAME}$": {**endpoint, "required": ["bind"]},
            f"^(process|job):({_NAME}:)?{_NAME}$": _job_section(definitions["JobDescription"]["properties"]),
            f"^env:({_NAME}:)?{_NAME}$": {"type": "object", "additionalProperties": _TEXT},
        },
        "$defs": definitions,
    }


def _daemon_sections() -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Return the keys of the daemon's sections, and patterns of the keys that may end in digits."""
    plain: dict[str, Schema] = {}
    numbered: dict[str, Schema] = {}
    for declared in SETTINGS.values():
        for section, key in declared.keys:
            if key.endswith("*"):
                numbered.setdefault(section, {})[f"^{key[:-1]}[0-9]*$"] = _value(declared)
            else:
                plain.setdefault(section, {})[key] = _value(declared)
    return plain, numbered


def _section(keys: Schema, patterns: Schema | None = None) -> Schema:
    section = {"type": "object", "properties": keys, "additionalProperties": False}
    return {**section, "patternProperties": patterns} if patterns else section


def _value(declared: Setting) -> Schema:
    value: Schema = {"description": declared.help, **_also_text(getattr(declared.rule, "schema", _TEXT))}
    if spell(declared.default) is not None and not isinstance(declared.default, tuple):
        value["default"] = declared.default
    return value


def _also_text(accepted: Schema) -> Schema:
    return accepted if _accepts_text(accepted) else {"anyOf": [accepted, _TEXT]}


def _accepts_text(accepted: Schema) -> bool:
    is_text = accepted.get("type") == "string" or "enum" in accepted
    return is_text or any(map(_accepts_text, accepted.get("anyOf", ())))


def _job_section(described: Schema) -> Schema:
    """Return the schema of a job section, from the JSON settings of a job."""
    keys: Schema = {name: _also_text(value) for name, value in described.items() if name not in NOT_IN_A_SECTION}
    keys |= {
        "os_env": {**keys["os_env"], "default": True},
        "env_json": {**_TEXT, "description": "variables as a JSON object of strings"},
        "labels": {**_TEXT, "description": "labels of the job, such as `tier=web, team=shop`"},
    }
    return {**_section(keys, {"^env:.": _TEXT}), "required": ["cmd"]}


if __name__ == "__main__":
    print(json.dumps(make_schema(), indent=2))
