"""Modules that are imported when they are first used, because they take longer than most commands."""

from importlib import import_module
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Stands for the module `name`, which is imported with the first access to one of its attributes."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self.__name__), attribute)
