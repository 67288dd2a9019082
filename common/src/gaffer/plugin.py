"""The base class of gafferd plugins (PLG-03, PLG-04)."""

from collections.abc import Mapping
from typing import Any


class Plugin:
    """Extends gafferd with an application. Derive from it and list the class in the module's `__all__`."""

    name: str = ""
    version: str = "?"
    description: str = ""
    mandatory: tuple[str, ...] | list[str] = ()

    def app(self, cfg: Mapping[str, Any]) -> Any | None:
        """Return the application to start with gafferd, or None; `cfg` is the configuration of gafferd."""
        return None
