"""How the pieces of a feed are written: output as it is, messages as lines of JSON, both as server-sent events.

An id of a server-sent event is the position to go on from. What a reader lost is an event `gap` with `{"from", "to"}`,
positions; raw output has no place for it.
"""

import codecs
import re
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gaffer.streams import Chunk, Records

HEARTBEAT = b"\n"
HEARTBEAT_EVENT = b":\n\n"  # a comment, for who reads server-sent events

P_contra = TypeVar("P_contra", contravariant=True)
T = TypeVar("T")

_LINE_END = re.compile(r"\r\n|\r|\n")


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


class Output:
    """What a process wrote to `label`."""

    media = "application/octet-stream"
    at_once = None

    def __init__(self, label: str) -> None:
        self._label = label
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def plain(self, piece: Chunk) -> bytes:
        """The bytes."""
        return piece.data

    def events(self, piece: Chunk) -> bytes:
        """One event: the text, less one line end at its end. A character that is cut in two goes to the next one."""
        gap = b""
        if piece.gap:
            self._decoder.reset()
            gap = _event("gap", to_json(_gap(piece.offset, piece.gap)).decode())
        text = self._decoder.decode(piece.data)
        if not text:
            return gap
        undecoded = len(self._decoder.getstate()[0])
        return gap + _event(self._label, text, piece.end - undecoded)


class Messages(Generic[T]):
    """Records of which `select` makes an event's name and message; None leaves a record out.

    `ids` are for those that a reader may ask for again.
    """

    media = "application/json"
    at_once = 1  # a longpoll is a JSON document

    def __init__(self, select: Callable[[T], tuple[str, Any] | None], *, ids: bool = True) -> None:
        self._select = select
        self._ids = ids

    def plain(self, piece: Records[T]) -> bytes:
        """A line of JSON for each message; `{"event": "gap", "from", "to"}` for a gap."""
        lines = [{"event": "gap", **_gap(piece.offset, piece.gap)}] if piece.gap else []
        found = (self._select(record) for record in piece.items)
        lines += [message for _, message in filter(None, found)]
        return b"".join(to_json(line) + b"\n" for line in lines)

    def events(self, piece: Records[T]) -> bytes:
        """An event for each message."""
        events = [_event("gap", to_json(_gap(piece.offset, piece.gap)).decode())] if piece.gap else []
        for number, record in enumerate(piece.items, piece.offset + 1):
            found = self._select(record)
            if found is not None:
                name, message = found
                events.append(_event(name, to_json(message).decode(), number if self._ids else None))
        return b"".join(events)


def to_json(message: Any) -> bytes:
    """The JSON of a message. What an application published and JSON doesn't know comes as its `repr`."""
    try:
        return msgspec.json.encode(message, enc_hook=repr)
    except (UnicodeError, RecursionError):
        return msgspec.json.encode({"text": ascii(message)})


def _gap(offset: int, size: int) -> dict[str, int]:
    return {"from": offset - size, "to": offset}


def _event(name: str, text: str, position: int | None = None) -> bytes:
    lines = _LINE_END.split(text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    data = "".join(f"data: {line}\n" for line in lines)
    identity = "" if position is None else f"id: {position}\n"
    return f"event: {_LINE_END.sub(' ', name)}\n{identity}{data}\n".encode()
