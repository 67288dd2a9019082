"""The configuration file of gafferd: finds it, reads it and its includes, and reports all mistakes at once."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from gaffer.errors import BadRequest, ConfigError, GafferError, InvalidValue, Problem, did_you_mean
from gaffer.jobs.config import find_problems
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.ordering import dependencies, find_mistakes, in_order, job_list
from gaffer.jobs.ports import conflict
from gaffer.jobs.sections import (
    ENV_PREFIX,
    JOB_PREFIXES,
    SectionSettings,
    nearest,
    read_settings,
    read_variables,
)
from gaffer.process import ProcessConfig
from gaffer.runtime.ini import Section, Value, merge, parse_ini, position
from gaffer.runtime.settings import setting, settings_of
from gaffer.runtime.trusted_files import read_trusted, trusted_file
from gafferd.config import settings

YAML_SUFFIXES = (".yaml", ".yml")
SUFFIXES = (".ini", *YAML_SUFFIXES)
STEMS = ("gafferd", "gaffer")
PLUGIN_PREFIX = "plugin"


class InvalidConfig(ConfigError):
    """A configuration with mistakes; `warnings` lists what may be further ones."""

    def __init__(self, problems: list[Problem], warnings: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.warnings = warnings


class Stamp(NamedTuple):
    """What changes when a file or directory is written, replaced or given to another user."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file or directory, or None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class EndpointConfig:
    """An endpoint to open, from a section `[endpoint:NAME]`; None for keys that are not set."""

    bind: tuple[str, ...] = setting("addresses to listen on, separated by commas", settings.addresses, ())
    backlog: int | None = setting("connections that can wait to be accepted", settings.backlog)
    certfile: str | None = setting("certificate to serve the endpoint over TLS", trusted_file)
    keyfile: str | None = setting("private key of the certificate", trusted_file)


class DescribedJob(Struct, frozen=True):
    """A job as the file describes it: its section, and the settings there and in sections `[env:...]`."""

    section: Section
    found: SectionSettings

    def place(self, path: str) -> Value | None:
        """Return the position of the part `path` of the settings, or of what it is a part of; None if not given."""
        return self.found.places.get(nearest(path, self.found.places) or "")

    def problem(self, problem: Problem) -> Problem:
        """Return a problem, whose path is a part of the settings, at its place in the file."""
        return self.section.problem(problem.message, problem.hint, self.place(problem.path))


class Config(Struct, frozen=True, kw_only=True):
    """A valid configuration file.

    `settings` holds values of `settings.Settings` by name, `endpoints` the endpoints that `http_endpoints` activates,
    `jobs` the jobs in start order, `described` what the file says about them, `webhooks` (event, URL) pairs, `sections`
    every section as read, and `warnings` possible mistakes. `sources` are the files and included directories that were
    read, as they were then.
    """

    settings: Mapping[str, Any]
    endpoints: tuple[EndpointConfig, ...]
    jobs: Mapping[JobName, ProcessConfig]
    described: Mapping[JobName, DescribedJob]
    webhooks: tuple[tuple[str, str], ...]
    sections: Mapping[str, Section]
    warnings: tuple[Problem, ...]
    sources: Mapping[Path, Stamp | None]


EMPTY = Config(settings={}, endpoints=(), jobs={}, described={}, webhooks=(), sections={}, warnings=(), sources={})


def find_config(given: str | None, environ: Mapping[str, str], home: Path, root: bool) -> Path | None:
    """Return the path of the configuration file, or None if there is none.

    It is given by `given` or $GAFFERD_CONFIG, a file or a directory that contains gafferd.ini, gafferd.yaml or
    gafferd.yml, else one of gaffer.ini, gaffer.yaml or gaffer.yml. The default is such a gafferd file in ~/.gaffer or,
    for root, in etc/gaffer of the installation prefix or /etc/gaffer. Raises ConfigError if a given file is missing, or
    if a directory contains several of one name.
    """
    if asked := given or environ.get("GAFFERD_CONFIG"):
        path = Path(asked)
        if path.is_file():
            return path
        for stem in STEMS:
            if found := _only_one(path, stem):
                return found
        what = "does not exist"
        if path.is_dir():
            what = f"contains no {' or '.join(STEMS)} with one of the suffixes {', '.join(SUFFIXES)}"
        elif path.exists():
            what = "is not a regular file: a reload could not read it again"
        hint = None if given else "correct GAFFERD_CONFIG"
        raise ConfigError([Problem(str(path), f"the configuration {what}", hint)])
    # ~/.gaffer/gaffer.ini belongs to the client tools, so only gafferd.ini is a default.
    directories = [Path(sys.prefix) / "etc/gaffer", Path("/etc/gaffer")] if root else [home / ".gaffer"]
    return next(filter(None, (_only_one(directory, STEMS[0]) for directory in directories)), None)


def _only_one(directory: Path, stem: str) -> Path | None:
    found = [path for suffix in SUFFIXES if (path := directory / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ConfigError([Problem(str(directory), f"contains {names}, only one is allowed", "merge the files")])
    return found[0] if found else None


def load_config(path: Path) -> Config:
    """Read the file at `path` and its includes.

    Raises ConfigError with all mistakes; the `path` of each problem is `FILE:LINE`.
    """
    config, problems = read_config(path)
    if problems:
        raise InvalidConfig(problems, config.warnings)
    return config


def read_config(path: Path) -> tuple[Config, list[Problem]]:
    """Return the content of the file at `path` and its includes, without what is invalid, and all mistakes in it."""
    reader = _Reader()
    reader.read(path)
    builder = _Builder(reader.sections, reader.problems, reader.warnings)
    config = builder.build(reader.sources)
    return config, sorted(builder.problems, key=position)


_Problem = Callable[[str, str | None], Problem]
"""Makes a problem of a message and a hint."""


def _problem_at(section: Section, key: str, value: Value) -> _Problem:
    return lambda message, hint: section.problem(f"{key}: {message}", hint, value)


class _Reader:
    """Reads a file and its includes into `sections`, and collects problems, warnings and `sources`."""

    def __init__(self) -> None:
        self.sections: dict[str, Section] = {}
        self.sources: dict[Path, Stamp | None] = {}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._seen: set[Path] = set()

    def read(self, path: Path, includers: tuple[Path, ...] = (), problem: _Problem | None = None) -> None:
        """Read the file at `path` unless already read; `problem` makes one at its include in the last includer."""
        if path.resolve() in self._seen:
            return
        self._seen.add(path.resolve())
        self.sources[path] = stamp(path)  # before it is read: a later change then differs from it
        try:
            text = _read_text(path)
        except GafferError as error:
            self.problems.append((problem or partial(Problem, str(path)))(error.message, error.hint))
            return
        try:
            found, mistakes = _parse(text, path)
        except ConfigError as error:
            self.problems += error.problems
            return
        section = found.get("gaffer", Section("gaffer", str(path), 0))
        keys = section.values
        if includers and keys and keys.keys() <= {*READER_KEYS}:
            del found["gaffer"]  # its includes are processed below
        self.problems += [*mistakes, *merge(self.sections, found)]
        chain = (*includers, path)
        if include := keys.get("include"):
            for name in self._words(section, "include"):
                self._check_loop(path.parent / name, chain, section)
                self.read(path.parent / name, chain, _problem_at(section, "include", include))
        if include_dir := keys.get("include_dir"):
            for name in self._words(section, "include_dir"):
                directory = path.parent / name
                if not os.path.isdir(directory):
                    message = f"include_dir: no such directory: {str(directory)!r}"
                    self.problems.append(section.problem(message, "create it, or remove include_dir", include_dir))
                for folder in (directory, *(each for each in directory.rglob("*") if each.is_dir())):
                    self.sources[folder] = stamp(folder)
                for file in sorted(each for each in directory.rglob("*") if each.suffix in SUFFIXES):
                    self.read(file, chain, _problem_at(section, "include_dir", include_dir))

    def _words(self, section: Section, key: str) -> list[str]:
        try:
            return section.values[key].words
        except InvalidValue as wrong:
            self.problems.append(section.problem(f"{key}: {wrong.message}", wrong.hint, key))
            return []

    def _check_loop(self, file: Path, chain: tuple[Path, ...], section: Section) -> None:
        if file.resolve() in [each.resolve() for each in chain]:
            files = " -> ".join(map(str, (*chain, file)))
            message = f"include: ignored a cycle: {files}"
            self.warnings.append(section.problem(message, "remove one of the includes", "include"))


def _read_text(path: Path) -> str:
    try:
        return read_trusted(path).data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 text ({error})"
        raise GafferError(f"can't read {path}: {why}") from None


def _parse(text: str, path: Path) -> tuple[dict[str, Section], list[Problem]]:
    if path.suffix not in YAML_SUFFIXES:
        return parse_ini(text, str(path))
    from gafferd.config.yaml_sections import parse_yaml  # deferred: importing pyyaml takes longer than reading an INI

    return parse_yaml(text, str(path), PLAIN_SECTIONS)


_ENDPOINT_SETTINGS = settings_of(EndpointConfig)
# Keys of [gaffer] that are not settings, with their descriptions.
READER_KEYS = {
    "include": "further files to read, separated by spaces and relative to this file",
    "include_dir": "directories with further files to read, separated by spaces and relative to this file",
}
_SETTINGS_SECTIONS = tuple(dict.fromkeys(section for section, _ in settings.FILE_KEYS))
PLAIN_SECTIONS = (*_SETTINGS_SECTIONS, "webhooks")
_PREFIXES = ("endpoint", *JOB_PREFIXES, ENV_PREFIX)


def is_plugin_section(section: str, plugin: str | None = None) -> bool:
    """Return whether gafferd leaves a section to plugins: `plugin:NAME` to one, an unknown one to all.

    With `plugin`, whether it is left to the plugin of this name.
    """
    kind, colon, name = section.partition(":")
    if colon and kind == PLUGIN_PREFIX:
        return plugin in (None, name.strip())
    return section not in PLAIN_SECTIONS and not (colon and kind in _PREFIXES)


class _Builder:
    """Turns sections into a Config and collects problems."""

    def __init__(self, sections: dict[str, Section], problems: list[Problem], warnings: list[Problem]) -> None:
        self.sections = sections
        self.problems = problems
        self.warnings = warnings
        self.settings: dict[str, Any] = {}
        self.endpoints: dict[str, EndpointConfig] = {}
        self.jobs: dict[JobName, ProcessConfig] = {}
        self.job_sections: dict[JobName, Section] = {}
        self.described: dict[JobName, DescribedJob] = {}
        self.after: dict[JobName, list[JobName]] = {}
        self.webhooks: list[tuple[str, str]] = []

    def build(self, sources: Mapping[Path, Stamp | None]) -> Config:
        environments: list[Section] = []
        for section in self.sections.values():
            kind, colon, _ = section.name.partition(":")
            if section.name in _SETTINGS_SECTIONS:
                self._settings(section)
            elif section.name == "webhooks":
                self._webhooks(section)
            elif colon and kind == "endpoint":
                self._endpoint(section)
            elif colon and kind in JOB_PREFIXES:
                self._name_job(section)
            elif colon and kind == ENV_PREFIX:
                environments.append(section)
            elif not colon or kind != PLUGIN_PREFIX:
                self._unknown(section)
        variables = self._variables(environments)
        for name, section in self.job_sections.items():
            self._job(name, section, variables.get(name, SectionSettings()))
        ordered = sorted(self.jobs.items(), key=lambda item: _start_order(item[1]))
        after = {name: self.after[name] for name in (*dict(ordered), *self.job_sections)}  # the invalid ones last
        for job, _, message, hint in find_mistakes(after, self.job_sections, "define it, or remove it here"):
            self._wrong(self.job_sections[job], message, hint, "after")
        started: list[tuple[str, ProcessConfig, int]] = []
        for name, config in ordered:
            if config.start:
                count = config.numprocesses + config.surge
                if found := conflict(config, count, started):
                    self._wrong(self.job_sections[name], found.message, found.hint, "port")
                started.append((name.display, config, count))
        return Config(
            settings=self.settings,
            endpoints=self._active_endpoints(),
            jobs={name: self.jobs[name] for name in in_order(after) if name in self.jobs},
            described=self.described,
            webhooks=tuple(self.webhooks),
            sections=self.sections,
            warnings=tuple(self.warnings),
            sources=sources,
        )

    def _wrong(self, section: Section, message: str, hint: str | None = None, at: str | Value | None = None) -> None:
        self.problems.append(section.problem(message, hint, at))

    def _check(self, section: Section, key: str, rule: Callable[[str], Any]) -> Any:
        """Return the value of `key` parsed by `rule`, or None, and record a problem, if it is invalid."""
        try:
            return rule(section.values[key].text)
        except InvalidValue as wrong:
            self._wrong(section, f"{key}: {wrong.message}", wrong.hint, key)
            return None

    def _unknown_key(self, section: Section, key: str, known: tuple[str, ...]) -> None:
        home = next((place for place, name in settings.FILE_KEYS if name == key), None)
        nearest = f"move it to [{home}]" if home else did_you_mean(key.lower(), known)
        hint = nearest or f"known keys: {', '.join(known)}"
        self._wrong(section, f"unknown key {key!r}", hint, key)

    def _unknown(self, section: Section) -> None:
        kind, colon, _ = section.name.partition(":")
        hint = None if kind in JOB_PREFIXES else did_you_mean(kind, (*PLAIN_SECTIONS, *_PREFIXES))
        if hint is None and (colon or kind in JOB_PREFIXES):
            hint = "jobs are sections [process:SESSION:NAME]"
        self.warnings.append(section.problem("unknown section, ignored unless a plugin reads it", hint))

    def _settings(self, section: Section) -> None:
        known = {key: name for (place, key), name in settings.FILE_KEYS.items() if place == section.name}
        extra = tuple(READER_KEYS) if section.name == "gaffer" else ()
        for key in section.values:
            numbered = re.sub("[0-9]*$", "*", key, count=1)
            if name := known.get(key) or known.get(numbered):
                if key in known and name in self.settings:
                    self._wrong(section, f"{key} duplicates another key", "remove one of the keys", key)
                value = self._check(section, key, settings.SETTINGS[name].rule)
                self.settings[name] = value if key in known else (*self.settings.get(name, ()), *(value or ()))
            elif key not in extra:
                self._unknown_key(section, key, (*(key.rstrip("*") for key in known), *extra))
        if "keyfile" in section.values and "certfile" not in section.values:
            self._wrong(section, "keyfile requires certfile", "add certfile = FILE", "keyfile")

    def _webhooks(self, section: Section) -> None:
        for event in section.values:
            targets = self._check(section, event, settings.urls)
            self.webhooks += [(event, target) for target in targets or ()]

    def _endpoint(self, section: Section) -> None:
        values: dict[str, Any] = {}
        for key in section.values:
            if key in _ENDPOINT_SETTINGS:
                values[key] = self._check(section, key, _ENDPOINT_SETTINGS[key].rule)
            else:
                self._unknown_key(section, key, tuple(_ENDPOINT_SETTINGS))
        if "bind" not in section.values:
            self._wrong(section, "bind is missing", "add bind, such as bind = 127.0.0.1:5000")
        if "keyfile" in section.values and "certfile" not in section.values:
            self._wrong(section, "keyfile requires certfile", "add certfile = FILE", "keyfile")
        name = section.name.partition(":")[2].strip()
        self.endpoints[name] = EndpointConfig(**values)

    def _active_endpoints(self) -> tuple[EndpointConfig, ...]:
        active = []
        for name in self.settings.get("http_endpoints") or ():
            if name in self.endpoints:
                active.append(self.endpoints[name])
                continue
            hint = did_you_mean(name, list(self.endpoints)) or f"add a section [endpoint:{name}] with bind = HOST:PORT"
            self._wrong(self.sections["gaffer"], f"http_endpoints: unknown endpoint {name!r}", hint, "http_endpoints")
        return tuple(active)

    def _job_name(self, section: Section) -> JobName | None:
        try:
            return parse_job_name(section.name.partition(":")[2].strip())
        except BadRequest as error:
            self._wrong(section, error.message, error.hint)
            return None

    def _name_job(self, section: Section) -> None:
        if (name := self._job_name(section)) is None:
            return
        first = self.job_sections.setdefault(name, section)
        if first is not section:
            self._wrong(
                section, f"the job {name.display} is already defined at {first.file}:{first.line}", "rename one of them"
            )

    def _variables(self, environments: list[Section]) -> dict[JobName, SectionSettings]:
        """Return the variables of the [env:...] sections as the setting `env`, by job."""
        variables: dict[JobName, SectionSettings] = {}
        for section in environments:
            if (name := self._job_name(section)) is None:
                continue
            if name not in self.job_sections:
                nearest = did_you_mean(name.display, [known.display for known in self.job_sections])
                hint = nearest or f"add a section [process:{name.display}]"
                self._wrong(section, f"no such job: {name.display}", hint)
            known = variables.setdefault(name, SectionSettings({"env": {}}))
            found = read_variables(section, known.settings["env"])
            self.problems += found.problems
            known.settings["env"] |= found.settings.get("env", {})
            known.places |= found.places
        return variables

    def _job(self, name: JobName, section: Section, variables: SectionSettings) -> None:
        found = read_settings(section)
        self.problems += found.problems
        env = {**variables.settings.get("env", {}), **found.settings.get("env", {})}
        settings = {**found.settings, "env": env}
        described = DescribedJob(section, SectionSettings(settings, {**variables.places, **found.places}))
        description = {"name": name.name, "os_env": True, **settings}
        problems = find_problems(description, lax=True)
        self.problems += map(described.problem, problems)
        self.described[name] = described
        self.after[name] = _dependencies(settings.get("after", ()), name.session)
        if not problems:
            self.jobs[name] = ProcessConfig.from_dict(description, lax=True)


def _dependencies(after: Any, session: str) -> list[JobName]:
    """Return the jobs that a setting `after` names; none if it is invalid, which is reported elsewhere."""
    try:
        return [each.job for each in dependencies(job_list(after, True), session)]
    except InvalidValue:
        return []


def _start_order(config: ProcessConfig) -> tuple[bool, int]:
    return (config.priority is None, config.priority or 0)


def show_problem(problem: Problem) -> str:
    """Return a problem as text: `PLACE: MESSAGE`, and the hint on a second line."""
    text = f"{problem.path}: {problem.message}"
    return f"{text}\n  hint: {problem.hint}" if problem.hint else text
