"""The plugin directory: each of its subdirectories is a plugin of that name.

Plugins act with the privileges of the node, so only root and the user of the daemon may be able to change them.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path


def plugin_folders(given: str | None, home: Path) -> list[Path]:
    """Return the candidate plugin directories: `given`, or the defaults of 0.4 and 0.5."""
    return [Path(given)] if given else [home / ".gafferd/plugins", home / ".gaffer/plugins"]


class PluginFolder:
    """The first existing directory of `places`, looked up on each use.

    `chosen` has the names of the plugins to use, in this directory or elsewhere; None for all.
    """

    def __init__(self, places: Sequence[Path], chosen: Collection[str] | None = None) -> None:
        self._places = places
        self.chosen = chosen

    @property
    def path(self) -> Path | None:
        """The directory, or None if none exists."""
        return next((place for place in self._places if os.path.isdir(place)), None)

    def uses(self, name: str) -> bool:
        """Return whether a plugin of this name would be used."""
        return self.chosen is None or name in self.chosen

    def plugins(self) -> list[Path]:
        """Return the directories of the plugins, sorted by name; raise OSError if they can't be listed."""
        folder = self.path
        if folder is None:
            return []
        names = (name for name in sorted(os.listdir(folder)) if is_shown(name) and self.uses(name))
        return [folder / name for name in names if os.path.isdir(folder / name)]


def is_shown(name: str) -> bool:
    """Return whether a file or directory of this name is not hidden."""
    return not name.startswith(".")
