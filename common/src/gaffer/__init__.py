"""Gaffer: launch, watch and control jobs on many machines. This package is the framework the rest is built on."""

from gaffer.manager import Manager
from gaffer.plugin import Plugin

__all__ = ["Manager", "Plugin", "__version__", "version_info"]

__version__ = "0.6.0"
version_info = (0, 6, 0)
