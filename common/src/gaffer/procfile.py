"""Procfiles and env files: the process types of an application and the environment they share."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser
from typing import Any

from dotenv import dotenv_values

from gaffer.words import split_words

_LINE = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")


def get_env(envs: Iterable[str | os.PathLike[str]] = ()) -> dict[str, str]:
    """The variables of the env files `envs`; later files win, missing files are skipped.

    A file holds `KEY=VALUE` lines; quotes around a value are removed, `#` starts a comment, and nothing in a value
    is replaced.
    """
    env: dict[str, str] = {}
    for path in envs:
        if os.path.isfile(path):
            values = dotenv_values(path, interpolate=False, encoding="utf-8")
            env.update((key, value) for key, value in values.items() if value is not None)
    return env


class Procfile:
    """The process types of the Procfile at `procfile`, in file order.

    `root` is the folder of the application, by default that of the Procfile. Its `.env` is read first, then the
    files `envs`. The variables GAFFER_UID, GAFFER_GID and GAFFER_REDIRECT_INPUT (a comma list of types)
    say which user and group run the processes and which types read from their stdin; they are not passed on.
    """

    def __init__(
        self,
        procfile: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        envs: Iterable[str | os.PathLike[str]] | None = None,
    ) -> None:
        self.procfile = os.path.abspath(procfile)
        self.root = os.path.abspath(root) if root is not None else os.path.dirname(self.procfile)
        self.env = get_env([os.path.join(self.root, ".env"), *(envs or ())])
        self._user = {
            key: value
            for key, name in (("uid", "GAFFER_UID"), ("gid", "GAFFER_GID"))
            if (value := self.env.pop(name, ""))
        }
        interactive = self.env.pop("GAFFER_REDIRECT_INPUT", "")
        self._interactive = {name.strip() for name in interactive.split(",")}
        self._commands = self.parse(self.procfile)

    def parse(self, procfile: str | os.PathLike[str]) -> dict[str, str]:
        """The command line of each type in a Procfile: `type: command line` lines; other lines are ignored."""
        with open(procfile, encoding="utf-8") as file:
            matches = map(_LINE.fullmatch, map(str.strip, file))
            return {match[1]: match[2] for match in matches if match}

    def parse_cmd(self, v: str) -> tuple[str, list[str]]:
        """The program of a command line and its arguments, split as a shell would.

        Raises ValueError when it is empty or a quotation is left open.
        """
        words = split_words(v)
        if not words:
            raise ValueError("the command line is empty")
        return words[0], words[1:]

    def processes(self) -> Iterator[tuple[str, str]]:
        """(type, command line) pairs in file order."""
        return iter(self._commands.items())

    def get_appname(self) -> str:
        """The name of the application: that of its folder."""
        return os.path.basename(self.root)

    def as_dict(self, name: str, concurrency_settings: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The type `name` as a process description; raises KeyError when the Procfile has no such type.

        `concurrency_settings` maps types to numbers of processes; 1 where it says nothing.
        """
        program, args = self.parse_cmd(self._commands[name])
        description: dict[str, Any] = {
            "name": name,
            "cmd": program,
            "args": args,
            "env": dict(self.env),
            "numprocesses": (concurrency_settings or {}).get(name, 1),
            **self._user,
        }
        if name in self._interactive:
            description["redirect_input"] = True
        return description

    def as_configparser(self, concurrency_settings: Mapping[str, int] | None = None) -> ConfigParser:
        """All types as sections of a gafferd configuration, started in file order."""
        app = self.get_appname()
        config = ConfigParser(interpolation=None, delimiters=("=",))
        config.optionxform = str  # type: ignore[assignment,method-assign]
        for priority, (name, command) in enumerate(self.processes()):
            description = self.as_dict(name, concurrency_settings)
            settings = {
                "cmd": command,
                "priority": str(priority),
                "numprocesses": str(description["numprocesses"]),
                **self._user,
            }
            if description.get("redirect_input"):
                settings["redirect_input"] = "true"
            # [env:...] sections pass their names in upper case, so other names go into the process section.
            settings.update({f"env:{key}": value for key, value in self.env.items() if key != key.upper()})
            config[f"process:{app}:{name}"] = settings
            if upper := {key: value for key, value in self.env.items() if key == key.upper()}:
                config[f"env:{app}:{name}"] = upper
        return config
