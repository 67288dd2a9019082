"""Search for a regular expression in the lines of output."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

MAX_LINE = 64 * 1024  # bytes of a line that are searched
SLOWEST = 0.25  # seconds of CPU time for the lines of one read, after which a search is given up


class Piece(Protocol):
    """Part of an output; the `gap` bytes before it were lost."""

    @property
    def data(self) -> bytes:
        """The bytes."""

    @property
    def end(self) -> int:
        """The offset after the last byte."""

    @property
    def gap(self) -> int:
        """The number of bytes lost."""


class Output(Protocol):
    """The output of a process, see gaffer.streams.rings.Ring."""

    end: int
    closed: bool

    def read(self, offset: int, /) -> Piece:
        """Return some bytes from `offset`."""

    def watch(self, callback: Callable[[], None], /) -> None:
        """Call `callback()` whenever bytes are added or the output ends."""

    def unwatch(self, callback: Callable[[], None], /) -> None:
        """Undo `watch`."""


class Lines:
    """Splits an output into lines, without their ends, of up to MAX_LINE bytes; of a longer one the rest is left out.

    `begun`: the output starts within a line, which is left out.
    """

    def __init__(self, *, begun: bool = False) -> None:
        self._part = b""
        self._skips = begun  # up to the end of the line

    def feed(self, data: bytes, gap: int = 0) -> list[bytes]:
        """Return the lines that `data` completes; a line with a gap is left out."""
        if gap:
            self._part, self._skips = b"", True
        if self._skips:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return []
            self._skips = False
        *lines, rest = (self._part + data).split(b"\n")
        if len(rest) >= MAX_LINE:
            lines.append(rest)
            rest, self._skips = b"", True
        self._part = rest
        return [line[:MAX_LINE].removesuffix(b"\r") for line in lines]

    def finish(self) -> list[bytes]:
        """Return the line that was not ended, if any."""
        part, self._part = self._part, b""
        return [part] if part else []


class Search:
    """A search for `pattern` in the lines of `outputs`, each line once; `from_now` in those to come only.

    Calls `found()` once, or `failed(error)` when the search takes too long: a regular expression can't be interrupted,
    and one with nested repetitions may take ages for a short line.
    """

    def __init__(
        self,
        pattern: str,
        outputs: Sequence[Output],
        *,
        from_now: bool,
        found: Callable[[], Any],
        failed: Callable[[str], Any],
    ) -> None:
        self._search = re.compile(pattern.encode()).search
        self._found, self._failed = found, failed
        self._readers = [_Reader(output, self._check, from_now=from_now) for output in outputs]

    def start(self) -> None:
        """Search the lines there are, then wait for more."""
        for reader in self._readers:
            reader.start()

    def close(self) -> None:
        """End the search."""
        for reader in self._readers:
            reader.close()

    def _check(self, lines: list[bytes]) -> bool:
        """Search `lines`; return whether to go on."""
        began = time.thread_time()
        matches = any(map(self._search, lines))
        spent = time.thread_time() - began
        if matches:
            self.close()
            self._found()
        elif spent > SLOWEST:
            self.close()
            self._failed(f"the regular expression took {spent:.1f} s for {len(lines)} lines of output, simplify it")
        return not (matches or spent > SLOWEST)


class _Reader:
    def __init__(self, output: Output, check: Callable[[list[bytes]], bool], *, from_now: bool) -> None:
        self._output = output
        begun = from_now and output.end > 0
        self._offset = output.end - 1 if begun else 0  # the last byte shows whether its line has ended
        self._check = check
        self._lines = Lines(begun=begun)
        self._open = True

    def start(self) -> None:
        if self._open:
            self._output.watch(self._read)
            self._read()

    def close(self) -> None:
        self._open = False
        self._output.unwatch(self._read)

    def _read(self) -> None:
        while self._open and self._offset < self._output.end:
            piece = self._output.read(self._offset)
            self._offset = piece.end
            if not self._check(self._lines.feed(piece.data, piece.gap)):
                return
        if self._open and self._output.closed and self._check(self._lines.finish()):
            self.close()
