"""Parser of server-sent events (WHATWG HTML, 9.2.6). Pure: no I/O."""

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT = 64 * 1024 * 1024  # bytes of one event

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(NamedTuple):
    """An event: its name (`message` by default), its data, and the last id sent by the server."""

    event: str
    data: str
    id: str


class EventParser:
    """Parses events from chunks of bytes.

    `last_event_id` is the value for the Last-Event-ID header to resume, or empty; a server may set it without an event.
    `retry` is the reconnection delay in seconds set by the server, or None.
    """

    def __init__(self, last_event_id: str = "", limit: int = MAX_EVENT) -> None:
        self.retry: float | None = None
        self._limit = limit
        self.restart(last_event_id)

    def restart(self, last_event_id: str) -> None:
        """Start with a new connection: discard incomplete data of the previous one."""
        self.last_event_id = self._id = last_event_id
        self._size = 0  # bytes of the current event
        self._line: list[bytes] = []  # the pieces of an incomplete line
        self._after_cr = False
        self._at_start = True
        self._event = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Yield the events completed by `data`; raise ValueError if one exceeds the limit."""
        if not data:
            return
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        *ended, rest = _LINE_END.split(data)
        for end in ended:
            line = b"".join([*self._line, end])
            self._line.clear()
            self._count(len(end))
            event = self._handle(line)
            if event is not None:
                yield event
        if rest:
            self._line.append(rest)
            self._count(len(rest))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise ValueError(f"an event exceeds {self._limit} bytes")

    def _handle(self, line: bytes) -> ServerEvent | None:
        """Process a line; return the event if the line is blank and ends one."""
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line:
            self._size = 0
            event, data = self._event or "message", self._data
            self._event, self._data = "", []
            self.last_event_id = self._id
            return ServerEvent(event, "\n".join(data), self.last_event_id) if data else None
        field, _, rest = line.partition(b":")
        if not field:  # a comment
            self._size -= len(line)
            return None
        value = rest.removeprefix(b" ").decode("utf-8", "replace")
        match field:
            case b"event":
                self._event = value
            case b"data":
                self._data.append(value)
            case b"id" if "\0" not in value:
                self._id = value
            case b"retry" if value.isascii() and value.isdecimal() and len(value) < 10:
                self.retry = int(value) / 1000
        return None
