"""The client library of Gaffer and the tools built on it.

`Server` talks to one node, `Watcher` follows its events, `IOChannel` is the input and output of a process. `Lookup`
asks the lookups of a cluster. `errors` holds what they raise.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gaffer_client import errors
from gaffer_client.eventsource import EventsourceClient, Watcher
from gaffer_client.jobs import Job
from gaffer_client.live import LiveLookup
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server
from gaffer_client.processes import Process, ProcessId

if TYPE_CHECKING:
    from gaffer_client.iochannel import IOChannel

__all__ = [
    "EventsourceClient",
    "IOChannel",
    "Job",
    "LiveLookup",
    "Lookup",
    "Process",
    "ProcessId",
    "Server",
    "Watcher",
    "errors",
]

# These bring in what websockets need: imported when somebody asks for them.
_LATER = {"IOChannel": "iochannel"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
