"""How the pieces of a feed are written: output as it is, messages as lines of JSON, both as server-sent events.

An id of a server-sent event is the position to resume at, `EPOCH:OFFSET`. What a reader lost is an event `gap` with
`{"from", "to"}`, offsets; raw output has no place for it.
"""

import base64
import codecs
import io
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gaffer.streams.position import Position
from gaffer.streams.rings import Chunk, Records

HEARTBEAT = b"\n"
HEARTBEAT_EVENT = b":\n\n"  # a comment, for who reads server-sent events

P_contra = TypeVar("P_contra", contravariant=True)
T = TypeVar("T")


class Format(Protocol[P_contra]):
    """Writes the pieces of one feed, in their order. Nothing is written for a piece that has nothing for the client."""

    @property
    def media(self) -> str:
        """The content type of what `plain` gives."""

    @property
    def at_once(self) -> int | None:
        """How many positions one longpoll gives; None for as many as there are."""

    def plain(self, piece: P_contra) -> bytes:
        """For longpoll and continuous."""

    def events(self, piece: P_contra) -> bytes:
        """As server-sent events."""

    def plain_gap(self, start: int, end: int) -> bytes:
        """What tells of the positions that a reader lost, for longpoll and continuous."""

    def event_gap(self, start: int, end: int) -> bytes:
        """The same as a server-sent event."""

    def last_events(self, end: int) -> bytes:
        """What is left to write at the end of the source, as server-sent events."""


class _Format:
    """What all formats have in common; `epoch` is that of the source, for ids, None for a source without a past."""

    def __init__(self, epoch: str | None) -> None:
        self._epoch = epoch

    def event_gap(self, start: int, end: int) -> bytes:
        """An event `gap` with `{"from", "to"}`."""
        return _event("gap", to_json({"from": start, "to": end}).decode())

    def last_events(self, end: int) -> bytes:
        """Nothing is left."""
        return b""

    def _event(self, name: str, text: str, offset: int) -> bytes:
        return _event(name, text, None if self._epoch is None else Position(self._epoch, offset))


class Output(_Format):
    """What a process wrote to `label`.

    As server-sent events it is text: UTF-8 with a replacement character for what is not, and the line ends of that
    format, which has one alone: the data of all events make up the output, with `\\n` for each line end.
    """

    media = "application/octet-stream"
    at_once = None

    def __init__(self, label: str, epoch: str | None = None) -> None:
        super().__init__(epoch)
        self._label = label
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)

    def plain(self, piece: Chunk) -> bytes:
        """The bytes."""
        return piece.data

    def plain_gap(self, start: int, end: int) -> bytes:
        """Nothing: raw output has no place for it."""
        return b""

    def events(self, piece: Chunk) -> bytes:
        """One event. A character or a line end that is cut in two goes to the next one."""
        gap = b""
        if piece.gap:
            self._decoder.reset()
            gap = self.event_gap(piece.offset - piece.gap, piece.offset)
        text = self._decoder.decode(piece.data)
        if not text:
            return gap
        undecoded, flags = self._decoder.getstate()
        held = flags & 1  # a CR, after which an LF may come
        return gap + self._event(self._label, text, piece.end - len(undecoded) - held)

    def last_events(self, end: int) -> bytes:
        """The start of a character that never came whole, replaced, or a CR at the end."""
        text = self._decoder.decode(b"", final=True)
        return self._event(self._label, text, end) if text else b""


class EncodedOutput(Output):
    """What a process wrote to `label`, byte by byte: the data of each server-sent event are a piece in base64."""

    def events(self, piece: Chunk) -> bytes:
        gap = self.event_gap(piece.offset - piece.gap, piece.offset) if piece.gap else b""
        data = base64.b64encode(piece.data).decode()
        return gap + self._event(self._label, data, piece.end) if data else gap


class Messages(_Format, Generic[T]):
    """Records of which `select` makes an event's name and message; None leaves a record out."""

    media = "application/json"
    at_once = 1  # a longpoll is a JSON document

    def __init__(self, select: Callable[[T], tuple[str, Any] | None], epoch: str | None = None) -> None:
        super().__init__(epoch)
        self._select = select

    def plain(self, piece: Records[T]) -> bytes:
        """A line of JSON for each message; `{"event": "gap", "from", "to"}` for a gap."""
        gap = self.plain_gap(piece.offset - piece.gap, piece.offset) if piece.gap else b""
        found = (self._select(record) for record in piece.items)
        return gap + b"".join(to_json(message) + b"\n" for _, message in filter(None, found))

    def plain_gap(self, start: int, end: int) -> bytes:
        """A line of JSON, `{"event": "gap", "from", "to"}`."""
        return to_json({"event": "gap", "from": start, "to": end}) + b"\n"

    def events(self, piece: Records[T]) -> bytes:
        """An event for each message."""
        events = [self.event_gap(piece.offset - piece.gap, piece.offset)] if piece.gap else []
        for number, record in enumerate(piece.items, piece.offset + 1):
            found = self._select(record)
            if found is not None:
                name, message = found
                events.append(self._event(name, to_json(message).decode(), number))
        return b"".join(events)


def to_json(message: Any) -> bytes:
    """The JSON of a message. What an application published and JSON doesn't know comes as its `repr`."""
    try:
        return msgspec.json.encode(message, enc_hook=repr)
    except (UnicodeError, RecursionError):
        return msgspec.json.encode({"text": ascii(message)})


def _event(name: str, text: str, position: Position | None = None) -> bytes:
    data = "".join(f"data: {line}\n" for line in text.split("\n"))
    identity = "" if position is None else f"id: {position}\n"
    return f"event: {' '.join(name.splitlines())}\n{identity}{data}\n".encode()
