"""HTTP route of the plugins, `/plugins`."""

import asyncio
import itertools
from pathlib import Path
from typing import cast
from urllib.parse import quote

from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas.plugins import PluginInfo, PluginList
from gafferd.plugins.host import Hosted, Plugins
from gafferd.sites.files import Sites


class PluginsHandler(NodeHandler):
    """The plugins of the node."""

    @operation(PluginList)
    async def get(self) -> None:
        """List the plugins with applications and sites, and those that failed."""
        sites = await asyncio.to_thread(cast(Sites, self.settings["sites"]).names)
        hosted = cast(Plugins, self.settings["plugins"]).hosted
        found = [_describe(each, with_site=sites.pop(each.candidate.name, None) is not None) for each in hosted]
        found += itertools.starmap(_describe_site, sites.items())
        self.reply({"plugins": sorted(found, key=lambda plugin: plugin["name"])})


def _describe(hosted: Hosted, *, with_site: bool) -> PluginInfo:
    candidate = hosted.candidate
    return {
        "name": hosted.name,
        "version": hosted.version,
        "description": hosted.description,
        "source": candidate.source,
        "origin": candidate.origin,
        "mandatory": list(hosted.mandatory),
        "state": hosted.state.value,
        "reason": hosted.reason,
        "site": _path(candidate.name) if with_site else None,
    }


def _describe_site(name: str, place: Path) -> PluginInfo:
    return {
        "name": name,
        "version": "",
        "description": "",
        "source": "directory",
        "origin": str(place),
        "mandatory": [],
        "state": "loaded",
        "reason": None,
        "site": _path(name),
    }


def _path(name: str) -> str:
    return f"/_plugin/{quote(name, safe='')}/"


ROUTES = [Route("/plugins", PluginsHandler, {"GET": Scope.READ})]
