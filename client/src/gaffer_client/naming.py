"""How a node is called in front of people."""

from urllib.parse import urlsplit

from gaffer_client.answers import NodeInfo

DEFAULT_PORT = 5000


def display_name(node: NodeInfo) -> str:
    """The name of a node, with its address (`web1@10.0.0.7:5000`) where the name alone does not say which node it is.

    That is so when the node is not reached under its name at the usual port: several nodes can then have that name.
    """
    try:
        origin = urlsplit(node["origin"])
        host, port = origin.hostname, origin.port
    except ValueError:
        return f"{node['name']}@{node['origin']}"
    if host == node["name"].lower() and port in (None, DEFAULT_PORT):
        return node["name"]
    return f"{node['name']}@{origin.netloc}" if origin.netloc else f"{node['name']}@{node['origin']}"
