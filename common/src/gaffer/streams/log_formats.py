"""Formats of log files: what is written for the output of a process. No I/O; the time is an argument."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gaffer.runtime.log_lines import timestamp

MAX_LINE = 64 * 1024  # bytes: a longer line becomes several JSON objects

_encode = msgspec.json.Encoder().encode


class Formatter(Protocol):
    """An encoder of the output of one process, in order. `times` are the wall-clock times of the `chunks`."""

    @property
    def starts_lines(self) -> bool:
        """Whether the first output must start a line of the file, also after the unfinished line of another process."""

    @property
    def held(self) -> int:
        """The number of bytes at the end of the output that nothing was returned for yet."""

    def resume(self, *, inside_line: bool) -> None:
        """Continue the output of a process; `inside_line`: what the file has of it ends inside a line."""

    def format(self, chunks: Sequence[bytes], times: Sequence[float]) -> Sequence[bytes]:
        """Return what to write for the chunks."""

    def finish(self, now: float) -> Sequence[bytes]:
        """Return what to write at the end of the output."""

    def loss(self, size: int, reason: str, now: float) -> bytes:
        """Return the line that stands for `size` bytes that could not be written."""


def make_formatter(kind: str, stream: str, pid: int) -> Formatter:
    """Return a formatter, `raw`, `timestamps` or `json`, for the stream `out` or `err` of the process `pid`."""
    if kind == "json":
        return _JsonLines(stream, pid)
    return _Timestamps() if kind == "timestamps" else _Raw()


class _Raw:
    """The output, unchanged."""

    starts_lines = False
    held = 0

    def resume(self, *, inside_line: bool) -> None:
        pass

    def format(self, chunks: Sequence[bytes], times: Sequence[float]) -> Sequence[bytes]:
        return chunks

    def finish(self, now: float) -> Sequence[bytes]:
        return ()

    def loss(self, size: int, reason: str, now: float) -> bytes:
        return f"[gaffer: {size} bytes lost: {reason}]\n".encode()


class _Timestamps:
    """The output with a timestamp before each line. The rest of an unfinished line follows it when it comes."""

    starts_lines = True
    held = 0

    def __init__(self) -> None:
        self._inside_line = False

    def resume(self, *, inside_line: bool) -> None:
        self._inside_line = inside_line

    def format(self, chunks: Sequence[bytes], times: Sequence[float]) -> Sequence[bytes]:
        return [self._stamp(chunk, now) for chunk, now in zip(chunks, times, strict=True)]

    def _stamp(self, chunk: bytes, now: float) -> bytes:
        stamp = timestamp(now).encode() + b" "
        ends_line = chunk.endswith(b"\n")
        text = chunk.replace(b"\n", b"\n" + stamp)
        if ends_line:
            text = text[: -len(stamp)]
        if not self._inside_line:
            text = stamp + text
        self._inside_line = not ends_line
        return text

    def finish(self, now: float) -> Sequence[bytes]:
        return ()

    def loss(self, size: int, reason: str, now: float) -> bytes:
        self._inside_line = False
        return f"{timestamp(now)} [gaffer: {size} bytes lost: {reason}]\n".encode()


class _JsonLines:
    """A JSON object for each line: `time`, `stream`, `pid` and `message`; `partial` is true if the line goes on.

    Bytes that are not UTF-8 are shown as `\\xff`. An unfinished line is held back until it is complete, MAX_LINE long,
    or the last one.
    """

    starts_lines = True

    def __init__(self, stream: str, pid: int) -> None:
        self._tail = f'","stream":"{stream}","pid":{pid},'.encode()
        self._held: list[bytes] = []
        self._size = 0
        self._began = 0.0  # when the held line began

    @property
    def held(self) -> int:
        return self._size

    def resume(self, *, inside_line: bool) -> None:
        pass

    def format(self, chunks: Sequence[bytes], times: Sequence[float]) -> Sequence[bytes]:
        written: list[bytes] = []
        for chunk, now in zip(chunks, times, strict=True):
            lines, newline, rest = chunk.rpartition(b"\n")
            if newline and self._held:
                end, newline, lines = lines.partition(b"\n")
                written += self._take(end, partial=False)
            if newline:
                written.append(self._encode_lines(lines, now))
            if rest:
                if not self._held:
                    self._began = now
                self._held.append(rest)
                self._size += len(rest)
                if self._size >= MAX_LINE:
                    written += self._take(b"", partial=True)
        return [b"".join(written)] if written else []

    def _encode_lines(self, lines: bytes, now: float) -> bytes:
        if len(lines) > MAX_LINE:
            return b"".join(part for line in lines.split(b"\n") for part in self._cut(line, now, partial=False))
        head = self._head(now)
        texts = lines.decode(errors="backslashreplace").split("\n")
        return head + (b"}\n" + head).join(map(_encode, texts)) + b"}\n"

    def _take(self, end: bytes, *, partial: bool) -> list[bytes]:
        line = b"".join((*self._held, end))
        self._held.clear()
        self._size = 0
        return self._cut(line, self._began, partial=partial)

    def _cut(self, line: bytes, now: float, *, partial: bool) -> list[bytes]:
        pieces = [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [b""]
        ends = [b',"partial":true}\n'] * (len(pieces) - 1) + [b',"partial":true}\n' if partial else b"}\n"]
        head = self._head(now)
        return [part for piece, end in zip(pieces, ends, strict=True) for part in (head, _message(piece), end)]

    def _head(self, now: float) -> bytes:
        return b'{"time":"' + timestamp(now).encode() + self._tail + b'"message":'

    def finish(self, now: float) -> Sequence[bytes]:
        return self._take(b"", partial=False) if self._held else ()

    def loss(self, size: int, reason: str, now: float) -> bytes:
        fields = _encode({"lost": size, "reason": reason})[1:]
        return b'{"time":"' + timestamp(now).encode() + self._tail + fields + b"\n"


def _message(line: bytes) -> bytes:
    return _encode(line.decode(errors="backslashreplace"))
