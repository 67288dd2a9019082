"""The client library of Gaffer and the tools built on it.

`Server` talks to one node, `Watcher` follows its events, `Lookup` asks the lookups of a cluster, `errors` holds what
they raise.
"""

from gaffer_client import errors
from gaffer_client.eventsource import EventsourceClient, Watcher
from gaffer_client.jobs import Job
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server
from gaffer_client.processes import Process

__all__ = ["EventsourceClient", "Job", "Lookup", "Process", "Server", "Watcher", "errors"]
