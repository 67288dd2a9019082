"""How a node is called in front of people."""

from urllib.parse import urlsplit

from gaffer_client.answers import NodeInfo


def display_name(node: NodeInfo) -> str:
    """The name of a node, with its address (`web1@10.0.0.7:5000`) when another node has the same name."""
    if not node.get("conflict"):
        return node["name"]
    try:
        address = urlsplit(node["origin"]).netloc
    except ValueError:
        address = ""
    return f"{node['name']}@{address or node['origin']}"
