"""Procfiles and env files: the process types of an application and the environment they share."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from configparser import ConfigParser
from typing import Any

import msgspec

from gaffer.errors import Problem
from gaffer.jobs.words import needs_shell, parse_words, split_words
from gaffer.runtime.env_files import LINE_END, Path, decode, parse_env

Warn = Callable[[Problem], object]

log = logging.getLogger("gaffer.procfile")

_LINE = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _log_warning(problem: Problem) -> None:
    log.warning("%s: %s", problem.path, problem.message)


def get_env(envs: Iterable[Path] = (), warn: Warn = _log_warning) -> dict[str, str]:
    """Return the variables in the env files `envs`; later files win, missing files are skipped.

    A file consists of `KEY=VALUE` lines; quotes around a value are removed, `#` starts a comment, and variables in a
    value are not expanded. Pipes are read too. `warn` is called for each invalid line; the default logs it. Raises
    ConfigError for a file that is not UTF-8 or contains a NUL byte, OSError for one that can't be read.
    """
    env: dict[str, str] = {}
    for path in envs:
        if not os.path.exists(path) or os.path.isdir(path):
            continue
        env |= parse_env(read_text(path), path, lambda problem: warn(_ignored(problem)))
    return env


def _ignored(problem: Problem) -> Problem:
    return Problem(problem.path, f"line ignored: {problem.message}")


class Procfile:
    """The process types of the Procfile at `procfile`, in file order.

    `root` is the folder of the application, by default that of the Procfile. Its `.env` is read first, then the files
    `envs`, then `variables`. The variables GAFFER_UID, GAFFER_GID and GAFFER_REDIRECT_INPUT (a comma-separated list of
    types) set the user and group of the processes and the types that read from stdin; they are not passed on.
    `given` holds the variables in `env` that come from `envs` and `variables`.
    `warnings` lists the ignored lines, with file and line number. Raises ConfigError and OSError like `get_env`.
    """

    def __init__(
        self,
        procfile: Path,
        root: Path | None = None,
        envs: Iterable[Path] | None = None,
        *,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.procfile = os.path.abspath(procfile)
        self.root = os.path.abspath(root) if root is not None else os.path.dirname(self.procfile)
        self.warnings: list[Problem] = []
        self.env = get_env([os.path.join(self.root, ".env")], self.warnings.append)
        given = {**get_env(envs or (), self.warnings.append), **(variables or {})}
        self.env.update(given)
        self._user = {
            key: value
            for key, name in (("uid", "GAFFER_UID"), ("gid", "GAFFER_GID"))
            if (value := self.env.pop(name, ""))
        }
        interactive = self.env.pop("GAFFER_REDIRECT_INPUT", "")
        self._interactive = {name.strip() for name in interactive.split(",")}
        self.given = {name: value for name, value in given.items() if name in self.env}
        self._lines: dict[str, int] = {}
        self._commands = self.parse(self.procfile)

    def parse(self, procfile: Path) -> dict[str, str]:
        """Return the command line of each type in a Procfile: `type: command line` lines and comments.

        Other lines are ignored, as is the first of two lines with the same type; they are added to `warnings`.
        """
        commands: dict[str, str] = {}
        lines = self._lines = {}
        for number, line in enumerate(map(str.strip, LINE_END.split(read_text(procfile))), start=1):
            place = f"{os.fspath(procfile)}:{number}"
            if match := _LINE.fullmatch(line):
                name = match[1]
                if name in commands:
                    message = f"the type {name!r} is already on line {lines[name]}, which is ignored"
                    self.warnings.append(Problem(place, message, "rename one of them"))
                commands[name], lines[name] = match[2], number
            elif line and not line.startswith("#"):
                self.warnings.append(Problem(place, f"ignored {line!r}: expected TYPE: COMMAND"))
        return commands

    def parse_cmd(self, v: str) -> tuple[str, list[str]]:
        """Return the program of a command line and its arguments, split as a shell would.

        Raises ValueError if it is empty or has an unclosed quotation.
        """
        words = split_words(v)
        if not words:
            raise ValueError("the command line is empty")
        return words[0], words[1:]

    def processes(self) -> Iterator[tuple[str, str]]:
        """Return an iterator over (type, command line) pairs in file order."""
        return iter(self._commands.items())

    def place(self, name: str) -> str:
        """Return the file and line of the type `name`, such as `/srv/shop/Procfile:3`; KeyError if unknown."""
        return f"{self.procfile}:{self._lines[name]}"

    def get_appname(self) -> str:
        """Return the name of the application, which is that of its folder."""
        return os.path.basename(self.root)

    def as_dict(self, name: str, concurrency_settings: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return the type `name` as a process description; KeyError if the Procfile has no such type.

        A line that uses shell syntax is run by `sh -c`, unchanged; any other is executed directly.
        `concurrency_settings` maps types to numbers of processes; the default is 1. Raises
        `gaffer.jobs.words.SplitError`, a ValueError, for an unclosed quotation.
        """
        number = (concurrency_settings or {}).get(name, 1)
        return {"name": name, **_launch(self._commands[name]), **self.defaults(name), "numprocesses": number}

    def defaults(self, name: str) -> dict[str, Any]:
        """Return the settings of a type that don't come from its line: `env`, and those of the GAFFER_ variables."""
        settings: dict[str, Any] = {"env": dict(self.env), **self._user}
        if name in self._interactive:
            settings["redirect_input"] = True
        return settings

    def as_configparser(self, concurrency_settings: Mapping[str, int] | None = None) -> ConfigParser:
        """Return all types as sections of a gafferd configuration, started in file order.

        Raises ValueError for text that an INI file can't represent, such as a newline in the name of the folder.
        """
        app = self.get_appname()
        config = ini_document()
        for priority, (name, command) in enumerate(self.processes()):
            description = self.as_dict(name, concurrency_settings)
            settings = {
                "cmd": command,
                "priority": str(priority),
                "numprocesses": str(description["numprocesses"]),
                **self._user,
            }
            for key in ("shell", "redirect_input"):
                if description.get(key):
                    settings[key] = "true"
            add_ini_job(config, f"{app}:{name}", settings, self.env)
        return config


def ini_document() -> ConfigParser:
    """Return an empty gafferd configuration for `add_ini_job`."""
    config = ConfigParser(interpolation=None, delimiters=("=",))
    config.optionxform = str  # type: ignore[assignment,method-assign]
    return config


def add_ini_job(config: ConfigParser, job: str, settings: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Add the job `job`, as SESSION:NAME, to a gafferd configuration: a process section and one for its variables.

    Raises ValueError for text that an INI file can't hold.
    """
    settings = dict(settings)
    # Names in [env:...] sections are converted to upper case, so other names go into the process section.
    plain = {key: value for key, value in env.items() if _VARIABLE.fullmatch(key) and _is_ini_value(value)}
    settings.update({f"env:{key}": value for key, value in plain.items() if key != key.upper()})
    if others := {key: value for key, value in env.items() if key not in plain}:
        settings["env_json"] = msgspec.json.encode(others).decode()
    section = f"process:{job}"
    if "]" in section or not _is_ini_value(section):
        raise ValueError(f"an INI file can't have a section {section!r}")
    if bad := [key for key, value in settings.items() if not _is_ini_value(value)]:
        raise ValueError(f"an INI file can't hold the value of {bad[0]} of {section}")
    config[section] = settings
    if upper := {key: value for key, value in plain.items() if key == key.upper()}:
        config[f"env:{job}"] = upper


def _is_ini_value(text: str) -> bool:
    """Return whether `text` survives being written to an INI file and read again."""
    return text == text.strip() and not LINE_END.search(text)


def _launch(line: str) -> dict[str, Any]:
    """Return the settings that run a line of a Procfile."""
    if needs_shell(line):
        return {"cmd": line, "args": [], "shell": True}
    program, *words = parse_words(line)
    if any(word.quotes_dollar for word in words):
        return {"cmd": program.source, "args": " ".join(word.source for word in words)}
    return {"cmd": program.source, "args": [word.text for word in words]}


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises ConfigError, with file and line, for a file that is not UTF-8 or contains a NUL byte; OSError for one that
    can't be read.
    """
    with open(path, "rb") as file:
        return decode(file.read(), path)
