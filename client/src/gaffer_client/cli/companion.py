"""The companion of a Procfile: `gaffer.yml`, `gaffer.yaml` or `gaffer.ini`, with settings of its process types."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gaffer.errors import ConfigError, Problem, did_you_mean, quoted
from gaffer.jobs.sections import ENV_PREFIX, JOB_PREFIXES, SectionSettings, nearest, read_settings, read_variables
from gaffer.procfile import read_text
from gaffer.runtime.ini import Section, parse_ini

NAMES = ("gaffer.yml", "gaffer.yaml", "gaffer.ini")

_OF_GAFFERD = ("gaffer", "endpoint", "webhooks")


@dataclass(frozen=True)
class Entry:
    """The settings of a process type, not yet checked; `lines` has the line of each part, such as `$.env.PORT`."""

    settings: Mapping[str, Any]
    file: str
    line: int
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, path: str) -> str | None:
        """Return the file and line of `path`, or of what it is a part of; None if it is not in the file."""
        found = nearest(path, self.lines)
        return f"{self.file}:{self.lines[found]}" if found else None


@dataclass
class Companion:
    """The entries of a companion file by process type, in file order; `problems` lists all mistakes in its form."""

    path: str
    entries: dict[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def find_companion(folder: str) -> str | None:
    """Return the path of the companion file in `folder`, or None if there is none; ConfigError if there are several."""
    found = [name for name in NAMES if os.path.isfile(os.path.join(folder, name))]
    if len(found) > 1:
        raise ConfigError([Problem(folder, f"{' and '.join(found)} exist, only one is allowed", "merge the files")])
    return os.path.join(folder, found[0]) if found else None


def read_companion(path: str) -> Companion:
    """Read the companion file at `path`; raise ConfigError if it is not text or not YAML, OSError if unreadable."""
    read: Callable[[str, str], Companion] = _read_ini if path.endswith(".ini") else _read_yaml
    return read(read_text(path), path)


def _read_yaml(text: str, path: str) -> Companion:
    import yaml  # late: few Procfiles have a companion in YAML

    from gaffer.runtime.yaml_files import NodeReader, compose, line_of

    companion = Companion(path)
    root = compose(text, path)
    reader = NodeReader(path)
    companion.problems = reader.problems
    if root is None:
        return companion

    def wrong(node: yaml.Node, message: str, hint: str | None = None) -> None:
        companion.problems.append(Problem(reader.place(node), message, hint))

    if not isinstance(root, yaml.MappingNode):
        wrong(root, "expected a mapping with the key jobs", "write jobs: and below it the settings of each type")
        return companion
    for key, (key_node, node) in reader.items(root).items():
        if key.startswith("x-"):  # a place for anchors
            continue
        if key != "jobs":
            nearest_key = did_you_mean(key, ["jobs"])
            wrong(key_node, f"unknown key {quoted(key)}", nearest_key or "settings of types belong below the key jobs")
            continue
        if not isinstance(node, yaml.MappingNode):
            if reader.value(node, "$", {}) is None:
                continue
            wrong(node, "jobs: expected a mapping of process types", "write the settings of each type below its name")
            continue
        for name, (name_node, settings) in reader.items(node).items():
            lines: dict[str, int] = {}
            value = reader.value(settings, "$", lines)
            if isinstance(value, str | list):
                hint = f"write cmd: {value}" if isinstance(value, str) else None
                wrong(settings, f"{name}: expected a mapping of settings, got {quoted(value)}", hint)
                value = {"cmd": value} if isinstance(value, str) else None
            companion.entries[name] = Entry(value or {}, path, line_of(name_node), lines)
    return companion


def _read_ini(text: str, path: str) -> Companion:
    sections, problems = parse_ini(text, path)
    companion = Companion(path, problems=problems)
    headers: dict[str, Section] = {}
    for section in sections.values():
        kind, colon, name = (part.strip() for part in section.name.partition(":"))
        if colon and name and kind in JOB_PREFIXES:
            if first := headers.get(name):
                message = f"{name} already has a section, on line {first.line}"
                companion.problems.append(section.problem(message, "merge the two sections"))
                continue
            headers[name] = section
            _add(companion, name, section, read_settings(section), wins=True)
        elif colon and name and kind == ENV_PREFIX:
            _add(companion, name, section, read_variables(section), wins=False)
        elif kind in _OF_GAFFERD:
            companion.warnings.append(section.problem("ignored: only gafferd reads this section"))
        else:
            hint = did_you_mean(kind, [*JOB_PREFIXES, ENV_PREFIX]) or "use [job:TYPE] or [env:TYPE]"
            companion.problems.append(section.problem("unknown section", hint))
    return companion


def _add(companion: Companion, name: str, section: Section, found: SectionSettings, *, wins: bool) -> None:
    """Add the settings in a section to the entry of the type `name`; `wins`: over those of its other section."""
    companion.problems += found.problems
    lines = {path: value.line for path, value in found.places.items()}
    added = Entry(found.settings, section.file, section.line, lines)
    other = companion.entries.get(name, Entry({}, section.file, section.line))
    weak, strong = (other, added) if wins else (added, other)
    settings = {**weak.settings, **strong.settings}
    if env := {**weak.settings.get("env", {}), **strong.settings.get("env", {})}:
        settings["env"] = env
    companion.entries[name] = Entry(settings, section.file, other.line, {**weak.lines, **strong.lines})
