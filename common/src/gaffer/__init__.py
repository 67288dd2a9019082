"""Gaffer: launch, watch and control jobs on many machines. This package is the framework the rest is built on."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaffer.manager import Manager
    from gaffer.plugin import Plugin

__all__ = ["Manager", "Plugin", "__version__", "version_info"]

from gaffer.runtime.version import __version__, version_info


def __getattr__(name: str) -> Any:
    # Imported when asked for: the manager takes a tenth of a second, which a command-line tool need not wait for.
    if name == "Manager":
        from gaffer.manager import Manager

        return Manager
    if name == "Plugin":
        from gaffer.plugin import Plugin

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
