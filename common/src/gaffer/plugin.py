"""The base class of gafferd plugins."""

from collections.abc import Mapping
from typing import Any


class Plugin:
    """Base class of plugins, which add an application to gafferd. List subclasses in their module's `__all__`."""

    name: str = ""
    version: str = "?"
    description: str = ""
    mandatory: tuple[str, ...] | list[str] = ()

    def app(self, cfg: Mapping[str, Any]) -> Any | None:
        """Return the application to start with gafferd, or None; `cfg` is the configuration of gafferd."""
        return None
