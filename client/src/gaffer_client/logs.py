"""What log files of a job hold, as pieces."""

import base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple, TypedDict

from gaffer_client.errors import MalformedAnswer
from gaffer_client.eventsource import EventsourceClient, Lost
from gaffer_client.sse import EventParser
from gaffer_client.transport import Answer, Transport, with_query

_HEARTBEAT = 30  # seconds


class LogPiece(NamedTuple):
    """A piece of the log of a `slot` (0: processes that run once) and a `stream`, `out` or `err`.

    `lost` is the number of bytes before it that are no longer kept. `position` is the `offset` that continues after it.
    """

    slot: int
    stream: str
    data: bytes
    lost: int
    position: str


_Gap = TypedDict("_Gap", {"log": str, "from": int, "to": int})


def read_logs(
    transport: Transport,
    path: str,
    *,
    streams: Iterable[str],
    slots: Iterable[int] | None,
    offset: int | str | None,
    since: float | str | None,
    tail: int | str | None,
    follow: bool,
    on_lost: Lost | None,
    on_open: Callable[[], object] | None = None,
    patient: bool = False,
) -> Iterator[LogPiece]:
    """Yield the logs at `path`; see `Job.logs`."""
    chosen = {
        "stream": ",".join(streams),
        "slot": None if slots is None else ",".join(map(str, slots)),
        "offset": offset,
        "since": since,
        "tail": tail,
        "follow": "true" if follow else None,
    }
    query = {key: str(value) for key, value in chosen.items() if value is not None}
    query |= {"feed": "eventsource", "encoding": "base64", "heartbeat": str(_HEARTBEAT)}
    target = with_query(path, query)
    lost: dict[str, int] = {}
    if follow:
        client = EventsourceClient.over(
            transport, target, idle_timeout=2 * _HEARTBEAT + 1, patient=patient, on_open=on_open, on_lost=on_lost
        )
        events: _Events = client.events()
    else:
        events = _read(transport, target)
    for name, data, position in events:
        try:
            if name == "gap":
                gap = transport.decode(Answer(200, data.encode()), _Gap)
                lost[gap["log"]] = lost.get(gap["log"], 0) + gap["to"] - gap["from"]
                continue
            slot, _, stream = name.partition(".")
            yield LogPiece(int(slot), stream, base64.b64decode(data), lost.pop(name, 0), position)
        except ValueError as error:
            raise MalformedAnswer(f"{transport.url} sent an invalid event: {error}", url=transport.url) from None


_Events = Iterator[tuple[str, str, str]]


def _read(transport: Transport, target: str) -> _Events:
    parser = EventParser()
    headers = {"Accept": "text/event-stream"}
    with (
        transport.clone() as own,
        closing(own.stream(target, headers, idle_timeout=2 * _HEARTBEAT + 1)) as stream,
    ):
        if not stream.content_type.startswith("text/event-stream"):
            raise MalformedAnswer(
                f"{transport.url} sent something else than a log",
                url=transport.url,
                hint="check that this is the address of a Gaffer node, and its version",
            )
        while data := stream.read():
            yield from parser.feed(data)
