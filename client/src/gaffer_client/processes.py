"""`Process`: a process on a node."""

from typing import TYPE_CHECKING, Any

from gaffer.schemas.stats import OneProcessStats, ProcessStats
from gaffer_client.transport import path_of

if TYPE_CHECKING:
    from gaffer_client.iochannel import IOChannel
    from gaffer_client.node import Server


class Process:
    """A process on a node, by its internal pid. Each property and method asks the node anew."""

    def __init__(self, server: "Server", pid: int) -> None:
        self.server = server
        self.pid = pid
        self._path = path_of(pid)

    def __repr__(self) -> str:
        return f"Process({self.server.url!r}, {self.pid})"

    @property
    def active(self) -> bool:
        """Whether it is still there."""
        return self.server.is_process(self.pid)

    def info(self) -> dict[str, Any]:
        """What the node knows about it (R-58)."""
        return self.server.transport.get(self._path, dict[str, Any])

    def stats(self) -> ProcessStats:
        """Its CPU, memory and the like (R-61)."""
        return self.server.transport.get(self._path + "/stats", OneProcessStats)["stats"]

    def stop(self) -> None:
        """Stop it; its job starts another in its place."""
        self.server.transport.order("DELETE", self._path)

    def kill(self, signal: int | str) -> None:
        """Send it a signal, by number or name."""
        self.server.transport.order("POST", self._path + "/signal", {"signal": signal})

    def send(self, data: bytes | str, stream: str = "stdin") -> None:
        """Write to its standard input, or to another stream that takes input (R-71)."""
        body = data.encode() if isinstance(data, str) else data
        self.server.transport.order("POST", path_of("streams", self.pid, stream), body=body)

    def socket(self, stream: str | None = None, mode: int = 3) -> "IOChannel":
        """Read what it writes (`mode` 1), write to it (2) or both, over a connection of its own, to be closed."""
        from gaffer_client.iochannel import IOChannel  # brings in what websockets need

        return IOChannel(self.server.transport, self.pid, stream, mode=mode)


# The name of version 0.4.
ProcessId = Process
