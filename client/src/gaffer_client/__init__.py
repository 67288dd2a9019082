"""The client library of Gaffer and the tools built on it.

`Server` is the client of one node. `Watcher` follows its events, `GafferSocket` provides topics and commands, and
`IOChannel` the input and output of a process. `Lookup` queries the lookups of a cluster. `errors` contains their
exceptions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaffer_client import errors
    from gaffer_client.channel import Channel, GafferCommand, GafferSocket
    from gaffer_client.event_socket import LookupSocket
    from gaffer_client.eventsource import EventsourceClient, Watcher
    from gaffer_client.iochannel import IOChannel
    from gaffer_client.jobs import Job
    from gaffer_client.live import LiveLookup
    from gaffer_client.lookup import Lookup
    from gaffer_client.node import Server
    from gaffer_client.processes import Process, ProcessId

__all__ = [
    "Channel",
    "EventsourceClient",
    "GafferCommand",
    "GafferSocket",
    "IOChannel",
    "Job",
    "LiveLookup",
    "Lookup",
    "LookupSocket",
    "Process",
    "ProcessId",
    "Server",
    "Watcher",
    "errors",
]

# Imported on first use, because websockets and HTTP are slow to import and the commands catch signals before that.
_MODULES = {
    "Channel": "channel",
    "EventsourceClient": "eventsource",
    "GafferCommand": "channel",
    "GafferSocket": "channel",
    "IOChannel": "iochannel",
    "Job": "jobs",
    "LiveLookup": "live",
    "Lookup": "lookup",
    "LookupSocket": "event_socket",
    "Process": "processes",
    "ProcessId": "processes",
    "Server": "node",
    "Watcher": "eventsource",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("gaffer_client.errors")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
