"""What processes write, as lines for a console: in slices, in order with the events of each process."""

import time
from collections import deque

from gaffer.process import Process
from gaffer.streams.rings import Ring

RESET = "\x1b[0m"  # ends a colour

_SLICE = 16 * 1024  # bytes of a stream that are made into lines at a time: the loop turns in between
_LINE_LIMIT = 64 * 1024  # bytes of a line that does not end, before it is shown all the same


def now() -> str:
    """The time of day, as lines show it."""
    return time.strftime("%H:%M:%S")


class ProcessOutput:
    """What is still to be shown of a process: its streams, and events, each below what was written before it.

    `held`: nothing is to be shown yet; `marked`: it stands in the queue of those that have something to show.
    """

    def __init__(self, process: Process, label: str) -> None:
        self.pid = process.pid
        self.held = False
        self.marked = False
        self.streams = [_Lines(ring) for ring in process.rings.values()]
        self._label = label
        self._events: deque[tuple[list[int], str, bool]] = deque()

    def add_event(self, line: str, *, last: bool) -> None:
        """Show `line` below all that was written until now; `last`: no unfinished line is going to be finished."""
        self._events.append(([stream.ring.end for stream in self.streams], line, last))

    @property
    def waiting(self) -> bool:
        """Whether there is something to show."""
        return bool(self._events) or any(stream.waiting for stream in self.streams)

    @property
    def ended(self) -> bool:
        """Whether nothing will be written any more."""
        return all(stream.ring.closed for stream in self.streams)

    def take(self) -> str:
        """The next lines, as text."""
        start = f"{now()} {self._label} "
        if not self._events:
            return "".join(_line(start, text) for stream in self.streams for text in stream.take(stream.ring.end))
        ends, event, last = self._events[0]
        pairs = list(zip(self.streams, ends, strict=True))
        shown = "".join(_line(start, text) for stream, end in pairs for text in stream.take(end))
        if any(stream.offset < end for stream, end in pairs):
            return shown
        self._events.popleft()
        rest = [text for stream in self.streams for text in stream.take_rest()] if last else []
        return shown + "".join(_line(start, text) for text in rest) + event


class _Lines:
    """Reads a ring as lines of text."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.offset = ring.start
        self._rest = b""  # a line that has not ended yet

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return self.offset < self.ring.end or bool(self.ring.closed and self._rest)

    def take(self, end: int) -> list[str]:
        """Some of the lines up to the offset `end`."""
        lines: list[str] = []
        if self.offset < end:
            chunk = self.ring.read(self.offset, min(_SLICE, end - self.offset))
            self.offset = chunk.end
            if chunk.gap:
                lines += [*self.take_rest(), f"... {chunk.gap} bytes skipped"]
            *whole, self._rest = (self._rest + chunk.data).split(b"\n")
            lines += map(_text, whole)
        if len(self._rest) > _LINE_LIMIT or (self.ring.closed and self.offset >= self.ring.end):
            lines += self.take_rest()
        return lines

    def take_rest(self) -> list[str]:
        """The line that has not ended, as if it had."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    # Of a line that was written over with carriage returns a terminal shows the last.
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")


def _line(start: str, text: str) -> str:
    # A colour that the process did not end must not run into the next line.
    return f"{start}{text}{RESET}\n" if "\x1b" in text else f"{start}{text}\n"
