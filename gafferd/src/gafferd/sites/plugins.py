"""The folder of plugins: where it is, and whether it may be used (PLG-07, PLG-08).

Each folder in it is a plugin and gives it its name. What plugins bring acts with the rights of the node, so nobody but
root and the daemon's own user may be able to change it.
"""

import os
from collections.abc import Sequence
from pathlib import Path


def plugin_folders(given: str | None, home: Path) -> list[Path]:
    """Where plugins may be: the folder that was given alone, else the two default ones of 0.4 and 0.5."""
    return [Path(given)] if given else [home / ".gafferd/plugins", home / ".gaffer/plugins"]


class PluginFolder:
    """The first of the folders that is there; they are looked for anew each time, since they may come and go."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places

    @property
    def path(self) -> Path | None:
        """The folder; None while there is none."""
        return next((place for place in self._places if os.path.isdir(place)), None)

    def plugins(self) -> list[Path]:
        """The folders of the plugins, by name; raises OSError when they can't be listed."""
        folder = self.path
        if folder is None:
            return []
        return [folder / name for name in sorted(os.listdir(folder)) if is_shown(name) and os.path.isdir(folder / name)]


def is_shown(name: str) -> bool:
    """Whether a file or folder of that name is more than a hidden one."""
    return not name.startswith(".")
