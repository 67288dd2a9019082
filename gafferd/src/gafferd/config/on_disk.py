"""The configuration file on disk: what it contained when it was last read, and whether it has changed since."""

from pathlib import Path
from typing import NamedTuple

from gaffer.errors import Problem
from gafferd.config.file import Config, InvalidConfig, read_config, stamp


class Contents(NamedTuple):
    """What a file contained: its valid part, and all mistakes in it."""

    config: Config
    problems: tuple[Problem, ...] = ()


class FileOnDisk:
    """The configuration file at `path` with its includes, which contained `config` at first.

    The methods block while they read files; several threads may call them.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.contents = Contents(config)

    def read(self) -> Config:
        """Read the file; raises InvalidConfig with all mistakes in it."""
        config, problems = read_config(self.path)
        self.contents = Contents(config, tuple(problems))
        if problems:
            raise InvalidConfig(problems, config.warnings)
        return config

    def refresh(self) -> None:
        """Read the file if it, a file or a directory that it includes has changed since it was last read."""
        if any(stamp(path) != then for path, then in self.contents.config.sources.items()):
            config, problems = read_config(self.path)
            self.contents = Contents(config, tuple(problems))
