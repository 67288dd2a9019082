"""Every public name of the framework and the client library says what it is."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest

import gaffer
import gaffer_client

# The command-line tools are described by their command table.
TOOLS = "gaffer_client.cli"


def modules() -> Iterator[str]:
    for package in (gaffer, gaffer_client):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(TOOLS) and "._" not in module.name:
                yield module.name


def undocumented(module: ModuleType) -> Iterator[str]:
    if not module.__doc__:
        yield "the module"
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType) and not value.__doc__:
            yield name
        elif isinstance(value, type):
            # Dataclasses and named tuples that say nothing get their signature as docstring.
            if (value.__dict__.get("__doc__") or f"{name}(").startswith(f"{name}("):
                yield name
            yield from (f"{name}.{method}" for method in _silent_methods(value))


def _silent_methods(cls: type) -> Iterator[str]:
    inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
    for name, value in vars(cls).items():
        function: Any = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        # What overrides a name of a base means what the base says.
        if name.startswith("_") or name in inherited or not isinstance(function, FunctionType | property):
            continue
        if not inspect.getdoc(function):
            yield name


@pytest.mark.parametrize("name", list(modules()))
def test_public_names_have_docstrings(name: str) -> None:
    assert list(undocumented(importlib.import_module(name))) == []


def test_what_is_silent_is_found() -> None:
    module = ModuleType("example", "Documented.")
    exec(
        "from typing import NamedTuple\n"
        "class Point(NamedTuple):\n    x: int\n"
        "class Base:\n    '''A base.'''\n    def told(self): 'Documented.'\n    def silent(self): ...\n"
        "class Derived(Base):\n    '''Derived.'''\n    def told(self): ...\n    @property\n    def size(self): ...\n"
        "def _private(): ...\ndef public(): ...\n",
        vars(module),
    )
    assert list(undocumented(module)) == ["Point", "Base.silent", "Derived.size", "public"]
