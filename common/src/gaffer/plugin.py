"""The base class of gafferd plugins."""

from collections.abc import Mapping
from typing import Any


class Plugin:
    """Base class of plugins, which add an application to gafferd. List subclasses in their module's `__all__`.

    `name` is required, and differs from that of all other plugins. `mandatory` has the names of the plugins that this
    one needs, which start before it.
    """

    name: str = ""
    version: str = "?"
    description: str = ""
    mandatory: tuple[str, ...] | list[str] = ()

    def app(self, cfg: Mapping[str, Any]) -> Any | None:
        """Return the application to start with gafferd, or None.

        `cfg` is the configuration file of gafferd: the keys and values of each section, which are texts in INI. The
        section `plugin:NAME` is for the plugin in the directory, or of the entry point, NAME.
        """
        return None
