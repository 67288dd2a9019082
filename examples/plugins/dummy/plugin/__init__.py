"""The plugin of the documentation: an application that prints when it is started, restarted and stopped."""

from collections.abc import Mapping
from typing import Any

from gaffer import Plugin

from .app import DummyApp

__all__ = ["DummyPlugin"]


class DummyPlugin(Plugin):
    """Gives gafferd the application."""

    name = "dummy"
    version = "1.0"
    description = "prints when it is started, restarted and stopped"

    def app(self, cfg: Mapping[str, Any]) -> DummyApp:
        return DummyApp()
