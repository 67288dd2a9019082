"""Plugins for tests, and a node that runs them."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaffer.runtime.ini import parse_ini
from gafferd import plugin_routes
from gafferd.plugins.folder import PluginFolder
from gafferd.plugins.host import Plugins
from gafferd.sites import site_routes
from gafferd.sites.files import Sites
from support.http_node import HttpNode, running_node

# A plugin that notes in the file {journal} what is done to its application.
PLUGIN = """
from gaffer import Plugin

__all__ = ["Noting"]

def note(word):
    with open({journal!r}, "a") as file:
        file.write(f"{name} {{word}}\\n")

class App:
    def __init__(self, cfg):
        self.cfg = cfg

    def start(self, loop, manager):
        note("start")
        {start}

    def stop(self):
        note("stop")
        {stop}

    def restart(self):
        note("restart")
        {restart}

class Noting(Plugin):
    name = {name!r}
    version = "1.0"
    mandatory = {mandatory!r}

    def __init__(self):
        {init}

    def app(self, cfg):
        {app}
        return App(cfg)
"""


@dataclass
class PluginTree:
    """A plugin directory whose plugins write to one journal."""

    path: Path
    journal: Path

    def write(self, name: str, text: str, module: str = "plugin/__init__.py") -> Path:
        """Write a module of the plugin `name`."""
        file = self.path / name / module
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for place in (file, *file.parents[: len(file.relative_to(self.path).parts)]):
            place.chmod(place.stat().st_mode & ~0o022)
        return file

    def add(self, name: str, *mandatory: str, module: str = "plugin/__init__.py", **code: str) -> Path:
        """Write a plugin; `code` are statements of its methods."""
        return self.write(name, self.source(name, *mandatory, **code), module)

    def source(self, name: str, *mandatory: str, **code: str) -> str:
        parts = {"init": "pass", "app": "pass", "start": "pass", "stop": "pass", "restart": "pass", **code}
        return PLUGIN.format(name=name, mandatory=list(mandatory), journal=str(self.journal), **parts)

    def notes(self) -> list[str]:
        """What the applications have noted since the last call."""
        if not self.journal.exists():
            return []
        lines = self.journal.read_text().splitlines()
        self.journal.unlink()
        return lines


def plugin_tree(tmp_path: Path) -> PluginTree:
    tree = PluginTree(tmp_path / "plugins", tmp_path / "journal")
    tree.path.mkdir(0o755)
    return tree


@dataclass
class PluginNode:
    """A node with plugins."""

    node: HttpNode
    plugins: Plugins

    async def list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.node.call("GET", "/plugins")).json["plugins"]
        return found

    async def states(self) -> dict[str, tuple[str, str | None]]:
        """State and reason of each plugin by name."""
        return {each["name"]: (each["state"], each["reason"]) for each in await self.list()}

    async def reload(self, config: str = "") -> None:
        """Reload the plugins, and wait until that is done."""
        self.plugins.reload(parse_ini(config, "")[0])
        await self.plugins.ready()


@asynccontextmanager
async def node_with(folder: Path, config: str = "", chosen: Sequence[str] | None = None) -> AsyncIterator[PluginNode]:
    """A node with the plugins in a directory, which have started or failed when the block begins."""
    place = PluginFolder([folder], chosen)
    plugins = Plugins(place, parse_ini(config, "")[0])
    sites = Sites(place, os.geteuid(), plugins.packages)
    added = [*plugin_routes.ROUTES, *site_routes.ROUTES]
    async with running_node(routes=added, plugins=plugins, sites=sites, apps=[plugins]) as node:
        await plugins.ready()
        yield PluginNode(node, plugins)


def add_distribution(place: Path, name: str, text: str, *points: str, version: str = "1.0") -> None:
    """Install a distribution with one module of its own name, and entry points such as `a = module:Class`."""
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(text)
    metadata = place / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text("\n".join(["[gaffer.plugins]", *points, ""]))
