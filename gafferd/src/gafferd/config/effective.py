"""The configuration that a start has: of the file, the environment and the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gaffer.runtime.settings import Given
from gafferd.config.file import EMPTY, Config, InvalidConfig, find_config, read_config
from gafferd.config.settings import Settings, find_settings


class Effective(Struct, frozen=True, kw_only=True):
    """A valid configuration.

    `path` is that of the file, None if there is none. `given` has the settings of flags and variables by name; other
    values of `settings` are from the file or defaults.
    """

    path: Path | None
    file: Config
    settings: Settings
    given: Mapping[str, Given]


def read_effective(options: Mapping[str, Any], environ: Mapping[str, str], home: Path, root: bool) -> Effective:
    """Return the configuration for the options of a command line; see `find_config` for `home` and `root`.

    Raises InvalidConfig with every mistake in the file, the environment and the command line.
    """
    path = find_config(options["<config>"] or options["--config"], environ, home, root)
    file, problems = read_config(path) if path else (EMPTY, [])
    found = find_settings(options, environ, file.settings)
    problems += found.problems
    if problems:
        raise InvalidConfig(problems, file.warnings)
    return Effective(path=path, file=file, settings=found.settings(), given=found.given)
