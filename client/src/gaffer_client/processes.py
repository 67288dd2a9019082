"""`Process`: a process on a node."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gaffer_client.lazy import LazyModule
from gaffer_client.transport import path_of

if TYPE_CHECKING:
    from gaffer_client import documents
    from gaffer_client.eventsource import Lost
    from gaffer_client.iochannel import IOChannel
    from gaffer_client.logs import LogPiece
    from gaffer_client.node import Server
else:
    documents = LazyModule("gaffer_client.documents")


class Process:
    """A process on a node, identified by Gaffer's pid. Each property and method sends a request."""

    def __init__(self, server: "Server", pid: int) -> None:
        self.server = server
        self.pid = pid
        self._path = path_of(pid)

    def __repr__(self) -> str:
        return f"Process({self.server.url!r}, {self.pid})"

    @property
    def active(self) -> bool:
        """Whether the process still runs."""
        return self.server.is_process(self.pid)

    def info(self) -> dict[str, Any]:
        """Return the description of the process."""
        return self.server.transport.get(self._path, dict[str, Any])

    def stats(self) -> "documents.ProcessStats":
        """Return CPU, memory and other statistics of the process."""
        return self.server.transport.get(self._path + "/stats", documents.OneProcessStats)["stats"]

    def stop(self) -> None:
        """Stop the process; its job starts a replacement."""
        self.server.transport.order("DELETE", self._path)

    def kill(self, signal: int | str) -> None:
        """Send a signal to the process, by number or name."""
        self.server.transport.order("POST", self._path + "/signal", {"signal": signal})

    def send(self, data: bytes | str, stream: str = "stdin") -> None:
        """Write to the standard input of the process, or to another input stream."""
        body = data.encode() if isinstance(data, str) else data
        self.server.transport.order("POST", path_of("streams", self.pid, stream), body=body)

    def logs(
        self,
        *,
        streams: Iterable[str] = ("out",),
        offset: int | str | None = None,
        since: float | str | None = None,
        tail: int | str | None = None,
        follow: bool = False,
        on_lost: "Lost | None" = None,
    ) -> "Iterator[LogPiece]":
        """Yield what the log files of the slot of the process hold, also from earlier processes; see `Job.logs`."""
        from gaffer_client.logs import read_logs

        return read_logs(
            self.server.transport,
            self._path + "/logs",
            streams=streams,
            slots=None,
            offset=offset,
            since=since,
            tail=tail,
            follow=follow,
            on_lost=on_lost,
        )

    def socket(self, stream: str | None = None, mode: int = 3, *, reconnect: float = 0.0) -> "IOChannel":
        """Open a channel to read output (`mode` 1), write input (2) or both (3); close it after use.

        `reconnect` is the number of seconds in which a lost connection is opened again, see `IOChannel`.
        """
        from gaffer_client.iochannel import IOChannel  # imports websockets

        return IOChannel(self.server.transport, self.pid, stream, mode=mode, reconnect=reconnect)


# The name in version 0.4.
ProcessId = Process
