"""The JSON Schema of configuration files, in YAML and INI, generated from the declarations of their settings.

`python -m gafferd.config.schema` prints it; `deploy/gafferd.schema.json` is its output.
"""

import dataclasses
import json
from typing import Any, Final

import msgspec

from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JOB_NAME_PATTERN
from gaffer.jobs.sections import NOT_IN_A_SECTION
from gaffer.runtime.settings import Rule, Setting, settings_of, spell
from gaffer.runtime.values import items
from gaffer.schemas.job import JobDescription
from gafferd.config.file import READER_KEYS, EndpointConfig
from gafferd.config.settings import SETTINGS, addresses, labels, local_users, socket_group, urls

Schema = dict[str, Any]

_TEXT: Final = {"type": "string"}
_NAME: Final = "[^:]+"
_LIST: Final = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_OBJECT: Final = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_PAIRS: Final = {"anyOf": [_TEXT, _OBJECT]}
_OF_RULES: Final[dict[Rule, Schema]] = {
    **dict.fromkeys((addresses, items, local_users, socket_group, urls), _LIST),
    labels: _PAIRS,
}


def make_schema() -> Schema:
    """Return the schema of a configuration file as an object of sections, each an object of its keys.

    A value is a string, as in INI, or has the type that the string represents. The endpoints and jobs of a file in YAML
    are objects by name. Unknown sections are allowed.
    """
    settings, numbered = _daemon_sections()
    for key, purpose in READER_KEYS.items():
        settings["gaffer"][key] = {**_LIST, "description": purpose}
    _, definitions = msgspec.json.schema_components([JobDescription], ref_template="#/$defs/{name}")
    job = _job(definitions["JobDescription"]["properties"])
    endpoint = _section({name: _value(declared) for name, declared in settings_of(EndpointConfig).items()})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of gafferd",
        "type": "object",
        "properties": {
            **{name: _section(keys, numbered.get(name)) for name, keys in settings.items()},
            "webhooks": {"type": "object", "additionalProperties": _LIST},
            "endpoints": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Endpoint"}},
            "plugins": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
            "jobs": {
                "type": "object",
                "propertyNames": {"pattern": JOB_NAME_PATTERN},
                "additionalProperties": {"$ref": "#/$defs/Job"},
            },
        },
        "patternProperties": {
            f"^endpoint:{_NAME}$": {"$ref": "#/$defs/Endpoint"},
            f"^(process|job):({_NAME}:)?{_NAME}$": _job_section(job["properties"]),
            f"^env:({_NAME}:)?{_NAME}$": {"type": "object", "additionalProperties": _TEXT},
        },
        "$defs": {**definitions, "Endpoint": {**endpoint, "required": ["bind"]}, "Job": job},
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
    accepted = _OF_RULES.get(declared.rule) or _also_text(getattr(declared.rule, "schema", _TEXT))
    value: Schema = {"description": declared.help, **accepted}
    if spell(declared.default) is not None and not isinstance(declared.default, tuple):
        value["default"] = declared.default
    return value


def _also_text(accepted: Schema) -> Schema:
    return accepted if _accepts_text(accepted) else {"anyOf": [accepted, _TEXT]}


def _accepts_text(accepted: Schema) -> bool:
    is_text = accepted.get("type") == "string" or "enum" in accepted
    return is_text or any(map(_accepts_text, accepted.get("anyOf", ())))


def _job(described: Schema) -> Schema:
    """Return the schema of a job in YAML, from the JSON settings of a job."""
    keys: Schema = {
        name: {**_also_text(value), **_examples(name)}
        for name, value in described.items()
        if NOT_IN_A_SECTION.get(name, name) is not None and name != "name"
    }
    keys["os_env"]["default"] = True
    keys["env"] |= {"anyOf": [_OBJECT, {"type": "null"}], "description": "variables by name"}
    keys["labels"] |= {"anyOf": [*_PAIRS["anyOf"], {"type": "null"}], "description": "labels by name"}
    keys["umask"]["anyOf"].append({"type": "integer"})  # what editors see in 027
    keys["env_json"] = {**_TEXT, "description": "variables as a JSON object of strings"}
    return {**_section(keys, {"^env:.": _TEXT, "^action[.].": _TEXT}), "required": ["cmd"]}


def _examples(name: str) -> Schema:
    """Return the example of a setting with the type that it has in YAML."""
    declared = next(field for field in dataclasses.fields(JobConfig) if field.name == name)
    text = declared.metadata["example"]
    if text is None:
        return {}
    if text.startswith("{"):
        return {"examples": [json.loads(text)]}
    value = declared.metadata["rule"](text, True)
    if isinstance(value, tuple):
        return {"examples": [list(value)]}
    same = isinstance(value, int) and json.dumps(value) == text
    return {"examples": [value if same else text]}


def _job_section(keys: Schema) -> Schema:
    """Return the schema of a job section in INI, where variables and labels are written as texts."""
    same = {name: {"$ref": f"#/$defs/Job/properties/{name}"} for name in keys if name not in NOT_IN_A_SECTION}
    pairs = {"labels": {**_TEXT, "description": "labels of the job, such as `tier=web, team=shop`"}}
    return {**_section({**same, **pairs}, {"^env:.": _TEXT, "^action[.].": _TEXT}), "required": ["cmd"]}


if __name__ == "__main__":
    print(json.dumps(make_schema(), indent=2))
