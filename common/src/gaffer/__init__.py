"""Gaffer: launch, supervise and control jobs on many machines. This package is the framework."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaffer.manager import Manager
    from gaffer.plugin import Plugin

__all__ = ["Manager", "Plugin", "__version__", "version_info"]

from gaffer.runtime.version import __version__, version_info


def __getattr__(name: str) -> Any:
    # Imported on first use: the manager takes a tenth of a second, which command-line tools should not wait for.
    if name == "Manager":
        from gaffer.manager import Manager

        return Manager
    if name == "Plugin":
        from gaffer.plugin import Plugin

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
