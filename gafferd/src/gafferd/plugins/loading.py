"""Importing plugins. Everything here runs foreign code, and raises whatever it raises."""

import importlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gaffer.errors import GafferError
from gaffer.plugin import Plugin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PACKAGE: Final = "gaffer_plugins"
"""The package that the plugins of directories are imported into, so that their modules can't hide others."""

_loads: Counter[str] = Counter()


class Modules(NamedTuple):
    """The modules of a plugin directory that may have a plugin, by their names in it."""

    name: str
    root: Path
    modules: tuple[str, ...]


class PluginUnusable(GafferError):
    """Files that are no usable plugin."""


def load_modules(found: Modules) -> list[Plugin]:
    """Import modules, and return an instance of each class derived from Plugin that their `__all__` lists.

    Each time they are imported anew, as another package.
    """
    package = _new_name(found.name)
    importlib.invalidate_caches()
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # bytecode is not always newer than its source
    try:
        _import_package(package, found.root)
        modules = [importlib.import_module(f"{package}.{name}".removesuffix(".__init__")) for name in found.modules]
        classes = dict.fromkeys(itertools.chain.from_iterable(map(_classes, modules)))
        if not classes:
            raise PluginUnusable("no module lists a class derived from gaffer.Plugin in its __all__")
        return [each() for each in classes]
    except BaseException:
        unload(package)
        raise
    finally:
        sys.dont_write_bytecode = writes


def load_entry_point(point: "EntryPoint") -> list[Plugin]:
    """Import an entry point, which is a class derived from Plugin or a module; return its plugins."""
    value = point.load()
    classes = list(_classes(value)) if isinstance(value, ModuleType) else [value]
    if not classes or not all(map(_is_plugin, classes)):
        raise PluginUnusable(f"{point.value} is not a class derived from gaffer.Plugin, nor a module that lists one")
    return [each() for each in classes]


def unload(package: str) -> None:
    """Forget the modules of a package, so that their memory is freed once nothing uses them."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def package_of(plugin: Plugin) -> str | None:
    """Return the package that a plugin of a directory was imported into, None for others."""
    parts = type(plugin).__module__.split(".")
    return ".".join(parts[:2]) if parts[0] == PACKAGE else None


def directory_of(plugin: Plugin) -> Path | None:
    """Return the directory of the top-level package that a plugin is in, None if that is a module."""
    module = sys.modules.get(type(plugin).__module__.partition(".")[0])
    return next(map(Path, getattr(module, "__path__", ())), None)


def _new_name(plugin: str) -> str:
    """Return the name of a package that does not exist yet."""
    parent = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE, "The plugins of the plugin directory."))
    parent.__path__ = []
    name = re.sub(r"\W", "_", plugin)
    _loads[name] += 1
    return f"{PACKAGE}.{name}" if _loads[name] == 1 else f"{PACKAGE}.{name}_{_loads[name]}"


def _import_package(name: str, root: Path) -> None:
    """Import a directory, which need not be a package, as the package `name`."""
    init = root / "__init__.py"
    spec = spec_from_file_location(name, init) if init.is_file() else ModuleSpec(name, None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(root)]
    module = sys.modules[name] = module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(module)


def _classes(module: ModuleType) -> Iterator[type[Plugin]]:
    for name in module.__all__:
        if not hasattr(module, name):
            raise PluginUnusable(f"{module.__name__} has no {name!r}, which its __all__ lists")
        if _is_plugin(value := getattr(module, name)):
            yield value


def _is_plugin(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Plugin) and value is not Plugin
