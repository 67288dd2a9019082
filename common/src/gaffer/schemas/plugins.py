"""Schemas of the list of plugins."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta


class PluginInfo(TypedDict):
    """A plugin, and the state of its application."""

    name: Annotated[str, Meta(description="Until it is loaded, that of its directory or entry point.")]
    version: str
    description: str
    source: Annotated[
        Literal["directory", "entry_point"] | None, Meta(description="null if it was chosen but does not exist.")
    ]
    origin: Annotated[str, Meta(description="Its directory, or its entry point and distribution.")]
    mandatory: Annotated[list[str], Meta(description="The plugins that it needs.")]
    state: Annotated[
        Literal["starting", "running", "loaded", "failed"], Meta(description="`loaded`: it has no application to run.")
    ]
    reason: Annotated[str | None, Meta(description="Why it failed, or what its application failed to do.")]
    site: Annotated[str | None, Meta(description="The path of its site.")]


class PluginList(TypedDict):
    """The plugins of the node, sorted by name."""

    plugins: list[PluginInfo]
