"""The client library of Gaffer and the tools built on it.

`Server` talks to one node, `Lookup` asks the lookups of a cluster, `errors` holds what they raise.
"""

from gaffer_client import errors
from gaffer_client.lookup import Lookup
from gaffer_client.node import Job, Process, Server

__all__ = ["Job", "Lookup", "Process", "Server", "errors"]
