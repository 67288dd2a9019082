"""Formats of feeds: raw output, messages as lines of JSON, and both as server-sent events.

The id of a server-sent event is the position to resume at, `EPOCH:OFFSET`. Lost data is reported by an event `gap` with
the offsets `{"from", "to"}`, except in raw output, which has no way to express it.
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
HEARTBEAT_EVENT = b":\n\n"  # a comment in server-sent events

P_contra = TypeVar("P_contra", contravariant=True)
T = TypeVar("T")


class Format(Protocol[P_contra]):
    """An encoder for the pieces of one feed, in order. A piece with nothing for the client yields empty bytes."""

    @property
    def media(self) -> str:
        """The content type of `plain`."""

    @property
    def longpoll_size(self) -> int | None:
        """Maximum number of positions that one longpoll returns; None for no limit."""

    def plain(self, piece: P_contra) -> bytes:
        """Encode a piece for longpoll and continuous."""

    def events(self, piece: P_contra) -> bytes:
        """Encode a piece as server-sent events."""

    def plain_gap(self, start: int, end: int) -> bytes:
        """Encode the loss of positions for longpoll and continuous."""

    def event_gap(self, start: int, end: int) -> bytes:
        """Encode the loss of positions as a server-sent event."""

    def last_events(self, end: int) -> bytes:
        """Encode what is left at the end of the source as server-sent events."""


class _Format:
    """Base of all formats; `epoch` is that of the source, for event ids, None for a source that can't be resumed."""

    def __init__(self, epoch: str | None) -> None:
        self._epoch = epoch

    def event_gap(self, start: int, end: int) -> bytes:
        """Return an event `gap` with `{"from", "to"}`."""
        return encode_event("gap", to_json({"from": start, "to": end}).decode())

    def last_events(self, end: int) -> bytes:
        """Return empty bytes: nothing is left."""
        return b""

    def _event(self, name: str, text: str, offset: int) -> bytes:
        return encode_event(name, text, None if self._epoch is None else Position(self._epoch, offset))


class Output(_Format):
    """The output of a process on the stream `label`.

    In server-sent events it is UTF-8 text with replacement characters for invalid bytes. The concatenated data of all
    events are the output with line endings normalized to `\\n`.
    """

    media = "application/octet-stream"
    longpoll_size = None

    def __init__(self, label: str, epoch: str | None = None) -> None:
        super().__init__(epoch)
        self._label = label
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)

    def plain(self, piece: Chunk) -> bytes:
        """Return the bytes."""
        return piece.data

    def plain_gap(self, start: int, end: int) -> bytes:
        """Return empty bytes: raw output can't express a gap."""
        return b""

    def events(self, piece: Chunk) -> bytes:
        """Return one event. A character or line ending that is split between pieces goes into the next event."""
        gap = b""
        if piece.gap:
            self._decoder.reset()
            gap = self.event_gap(piece.offset - piece.gap, piece.offset)
        text = self._decoder.decode(piece.data)
        if not text:
            return gap
        undecoded, flags = self._decoder.getstate()
        held = flags & 1  # a CR that an LF may follow
        return gap + self._event(self._label, text, piece.end - len(undecoded) - held)

    def last_events(self, end: int) -> bytes:
        """Return what the decoder still holds: an incomplete character, replaced, or a final CR."""
        text = self._decoder.decode(b"", final=True)
        return self._event(self._label, text, end) if text else b""


class EncodedOutput(Output):
    """The output of a process on the stream `label`; in server-sent events each piece is encoded as base64."""

    def events(self, piece: Chunk) -> bytes:
        gap = self.event_gap(piece.offset - piece.gap, piece.offset) if piece.gap else b""
        data = base64.b64encode(piece.data).decode()
        return gap + self._event(self._label, data, piece.end) if data else gap


class Messages(_Format, Generic[T]):
    """Records as messages: `select` returns the event name and message of a record, or None to omit it."""

    media = "application/json"
    longpoll_size = 1  # a longpoll is a JSON document

    def __init__(self, select: Callable[[T], tuple[str, Any] | None], epoch: str | None = None) -> None:
        super().__init__(epoch)
        self._select = select

    def plain(self, piece: Records[T]) -> bytes:
        """Return a line of JSON for each message; `{"event": "gap", "from", "to"}` for a gap."""
        gap = self.plain_gap(piece.offset - piece.gap, piece.offset) if piece.gap else b""
        found = (self._select(record) for record in piece.items)
        return gap + b"".join(to_json(message) + b"\n" for _, message in filter(None, found))

    def plain_gap(self, start: int, end: int) -> bytes:
        """Return a line of JSON, `{"event": "gap", "from", "to"}`."""
        return to_json({"event": "gap", "from": start, "to": end}) + b"\n"

    def events(self, piece: Records[T]) -> bytes:
        """Return an event for each message."""
        events = [self.event_gap(piece.offset - piece.gap, piece.offset)] if piece.gap else []
        for number, record in enumerate(piece.items, piece.offset + 1):
            found = self._select(record)
            if found is not None:
                name, message = found
                events.append(self._event(name, to_json(message).decode(), number))
        return b"".join(events)


def to_json(message: Any) -> bytes:
    """Return a message as JSON; values of types that JSON lacks, published by applications, become their `repr`."""
    try:
        return msgspec.json.encode(message, enc_hook=repr)
    except (UnicodeError, RecursionError):
        return msgspec.json.encode({"text": ascii(message)})


def encode_event(name: str, text: str, position: Position | str | None = None) -> bytes:
    """Return a server-sent event with the data `text`; `position` is its id."""
    data = "".join(f"data: {line}\n" for line in text.split("\n"))
    identity = "" if position is None else f"id: {position}\n"
    return f"event: {' '.join(name.splitlines())}\n{identity}{data}\n".encode()
