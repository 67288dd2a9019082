"""The output of processes as console lines: in slices, ordered with the events of each process."""

import time
from collections import deque

from gaffer.process import Process
from gaffer.streams.rings import Ring

RESET = "\x1b[0m"  # ends a colour

_SLICE = 64 * 1024  # bytes of a stream converted to lines at a time; the loop runs in between
_LINE_LIMIT = 64 * 1024  # bytes of an unfinished line after which it is printed anyway


def now() -> str:
    """Return the time of day in the format of lines."""
    return time.strftime("%H:%M:%S")


class ProcessOutput:
    """The pending output and events of a process, each event after the output that precedes it.

    `held`: nothing is to be printed yet; `marked`: it is queued for printing.
    """

    def __init__(self, process: Process, label: str) -> None:
        self.pid = process.pid
        self.held = False
        self.marked = False
        self.streams = [_Lines(ring) for ring in process.rings.values()]
        self._label = label
        self._events: deque[tuple[list[int], str, bool]] = deque()

    def add_event(self, line: str, *, last: bool) -> None:
        """Add `line` after all output so far; `last`: unfinished lines will not be completed."""
        self._events.append(([stream.ring.end for stream in self.streams], line, last))

    @property
    def waiting(self) -> bool:
        """Whether there is something to print."""
        return bool(self._events) or any(stream.waiting for stream in self.streams)

    @property
    def ended(self) -> bool:
        """Whether all streams are closed."""
        return all(stream.ring.closed for stream in self.streams)

    def take(self) -> str:
        """Return the next lines as one text."""
        start = f"{now()} {self._label} "
        if not self._events:
            return "".join(stream.take(start, stream.ring.end) for stream in self.streams)
        ends, event, last = self._events[0]
        pairs = list(zip(self.streams, ends, strict=True))
        shown = "".join(stream.take(start, end) for stream, end in pairs)
        if any(stream.offset < end for stream, end in pairs):
            return shown
        self._events.popleft()
        rest = "".join(stream.take_rest(start) for stream in self.streams) if last else ""
        return shown + rest + event


class _Lines:
    """A reader of a ring as lines of text."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.offset = ring.start
        self._rest = b""  # an unfinished line

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return self.offset < self.ring.end or bool(self.ring.closed and self._rest)

    def take(self, start: str, end: int) -> str:
        """Return some of the lines up to the offset `end`, each after `start`."""
        shown = ""
        if self.offset < end:
            chunk = self.ring.read(self.offset, min(_SLICE, end - self.offset))
            self.offset = chunk.end
            if chunk.gap:
                shown = f"{self.take_rest(start)}{start}... {chunk.gap} bytes skipped\n"
            whole, newline, self._rest = (self._rest + chunk.data).rpartition(b"\n")
            if newline:
                shown += _lines(start, whole)
        if len(self._rest) > _LINE_LIMIT or (self.ring.closed and self.offset >= self.ring.end):
            shown += self.take_rest(start)
        return shown

    def take_rest(self, start: str) -> str:
        """Return the unfinished line, if any, as if it were finished."""
        rest, self._rest = self._rest, b""
        return _lines(start, rest) if rest else ""


def _lines(start: str, output: bytes) -> str:
    """Return the lines of `output`, each after `start`; its last newline is left out."""
    if b"\r" in output or b"\x1b" in output:
        return "".join(_line(start, line) for line in output.split(b"\n"))
    newline = f"\n{start}"
    return f"{start}{output.decode(errors='replace').replace(chr(10), newline)}\n"  # ten times as fast as line by line


def _line(start: str, line: bytes) -> str:
    # A terminal shows only what follows the last carriage return.
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
    # A colour that the process did not reset must not affect the next line.
    return f"{start}{text}{RESET}\n" if "\x1b" in text else f"{start}{text}\n"
