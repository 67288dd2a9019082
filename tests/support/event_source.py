"""A reader of server-sent events that takes what comes only when a test asks for it."""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec


class Event(NamedTuple):
    """One event; `data` is decoded JSON."""

    event: str
    id: str
    data: Any


class EventSource:
    """An open stream of events."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def lines(self) -> Iterator[str]:
        """Each line as it comes, without its end, until the stream ends."""
        while line := self._response.readline():
            yield line.decode().rstrip("\n")

    def next(self) -> Event:
        """The next event, heartbeats passed over; EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        for line in self.lines():
            name, _, value = line.partition(": ")
            if name == "data" and "data" in fields:
                value = f"{fields['data']}\n{value}"
            if not line and fields:
                return Event(fields["event"], fields["id"], msgspec.json.decode(fields["data"]))
            if line and not line.startswith(":"):
                fields[name] = value
        raise EOFError


@contextmanager
def event_source(url: str, headers: Mapping[str, str] | None = None, timeout: float = 10) -> Iterator[EventSource]:
    """Follow `url` until the block ends; a wrong status fails."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=dict(headers or {}))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield EventSource(response)
        response.close()
    finally:
        connection.close()
