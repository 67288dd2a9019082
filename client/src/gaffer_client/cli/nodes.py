"""Nodes by their name, as lookups know them."""

from typing import TYPE_CHECKING

from gaffer.errors import did_you_mean
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.output import warn
from gaffer_client.errors import Unreachable

if TYPE_CHECKING:
    from gaffer_client.lookup import Lookup


def find_node(lookup: "Lookup", name: str) -> str:
    """Return the address of the node with this name or id according to the lookups."""
    try:
        nodes = lookup.nodes()["nodes"]
    except Unreachable as error:
        raise CommandFailed(
            error.message,
            hint="use -L or GAFFER_LOOKUPD to choose lookups, or give the URL of the node",
            status=Exit.UNREACHABLE,
        ) from None
    for failure in lookup.failures.values():
        warn(failure.message)
    found = sorted({node["origin"] for node in nodes if name in (node["name"], node.get("id"))})
    if not found:
        raise CommandFailed(
            f"no node is named {name}",
            hint=did_you_mean(name, [node["name"] for node in nodes]) or "run `gaffer lookup:nodes` to list the nodes",
            status=Exit.NOT_FOUND,
        )
    if len(found) > 1:
        raise CommandFailed(
            f"{len(found)} nodes are named {name}: {', '.join(found)}", hint="use the URL of one of them"
        )
    return found[0]
