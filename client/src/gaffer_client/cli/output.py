"""Output of commands: tables, colours for terminals, JSON and errors."""

import codecs
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import IO

_COLOURS = {"cyan": "36", "yellow": "33", "green": "32", "red": "31", "magenta": "35", "blue": "34"}
_UNSAFE = re.compile(r"[^ -~]")  # in JSON only within strings, except for newlines
_UNUSUAL = re.compile(r"[^\n\t -~]")  # in the output of processes
_UTF8 = codecs.getincrementaldecoder("utf-8")
_LEAST_CELL = 24  # columns in which a long cell is continued rather than by the terminal
_NAMES_REMEMBERED = 10_000
_PLAIN_ENDS = ("exited", "signaled", "stopped", "unknown")  # reasons that say no more than the exit status
BLOCK_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")


class Style:
    """How this run of a program prints: `plain` for other programs to read."""

    plain = False


STYLE = Style()


def wants_colour(stream: IO[str]) -> bool:
    """Return whether to use colours: if `stream` is a terminal and NO_COLOR is not set."""
    return not STYLE.plain and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, stream: IO[str]) -> str:
    """Return `text` in a colour if `stream` supports colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wants_colour(stream) else text


class Palette:
    """Colours assigned to names in order of appearance, if `stream` supports colours or `always` is set."""

    def __init__(self, stream: IO[str], *, always: bool = False, never: bool = False) -> None:
        self._on = not never and (always or wants_colour(stream))
        self._chosen: dict[str, str] = {}

    def paint(self, name: str, text: str) -> str:
        """Return `text` in the colour of `name`. Beyond 10,000 names, new names share one colour."""
        if not self._on:
            return text
        colour = self._chosen.get(name) or BLOCK_COLOURS[len(self._chosen) % len(BLOCK_COLOURS)]
        if len(self._chosen) < _NAMES_REMEMBERED:
            self._chosen[name] = colour
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def printable(text: object) -> str:
    """Return `text` as one line without control characters: server data must not control the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as text, see `table_rows`."""
    return "\n".join(table_rows(header, rows))


def table_rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the headings and rows of a table of left-aligned columns; if plain, only rows, with tabs between values.

    On a terminal that is too narrow for the last column, a row has several lines: its last cell is continued below
    itself or, without room for that, below the row.
    """
    lines = [list(header), *([printable(cell) for cell in row] for row in rows)]
    if STYLE.plain:
        return list(map("\t".join, lines[1:]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    columns = _terminal_columns()
    room = columns - sum(width + 2 for width in widths[:-1])
    fits = widths[-1] <= room or columns < _LEAST_CELL
    found = []
    for line in lines:
        *cells, last = line
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=False))
        if fits:
            found.append((start + last).rstrip())
        elif room >= _LEAST_CELL:
            found.append(_hanging(start, last, columns, len(start)))
        else:
            rest = "" if last in (header[-1], "-", "") else _hanging("\n    ", last, columns, 4)
            found.append(start.rstrip() + rest)
    return found


def _hanging(start: str, text: str, columns: int, indent: int) -> str:
    """Return `start` and a text, whose further lines are indented."""
    from textwrap import wrap  # most tables fit

    return (
        start.rstrip(" ")
        if not text
        else start + f"\n{' ' * indent}".join(wrap(text, columns - indent, break_on_hyphens=False))
    )


def _terminal_columns() -> int:
    """Return the width of the terminal on stdout, or 0 if stdout is none or does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0


def abridged(items: Sequence[object], most: int = 4) -> str:
    """Return the first `most` items and the number of the remaining ones."""
    shown = " ".join(str(item) for item in items[:most])
    return f"{shown} +{len(items) - most}" if len(items) > most else shown


def age(milliseconds: float | None) -> str:
    """Return a time span in a suitable unit: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    if milliseconds is None:
        return "?"
    seconds = milliseconds / 1000
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def clock(seconds: float) -> str:
    """Return minutes, seconds and hundredths: `0:00.44`."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def ending(exit_code: object, term_signal: object) -> str:
    """Return the exit status of a process: `exit code 3`, `SIGKILL`, `signal 34`, `exit code unknown`."""
    if isinstance(term_signal, int) and term_signal:
        return signal_name(term_signal)
    return f"exit code {'unknown' if exit_code is None else exit_code}"


def cause_of(reason: object) -> str | None:
    """Return the reason of an exit if it says more than the exit status, such as `not live` or `oom`, else None."""
    return str(reason) if reason and reason not in _PLAIN_ENDS else None


def signal_name(number: int) -> str:
    """Return the name of a signal: `SIGKILL`, `signal 34`."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def size(number: float) -> str:
    """Return a number of bytes in a suitable unit: `512 B`, `3.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def moment(at: float) -> str:
    """Return a time in seconds since 1970 as local date and time: `2026-01-31 06:00:00`."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "?"


def print_json(document: object) -> None:
    """Print a JSON document."""
    print(_escaped(json.dumps(document, ensure_ascii=False, indent=2)))


def print_json_line(document: object) -> None:
    """Print and flush a JSON document on one line: newline-delimited JSON, for continuous output."""
    print(_escaped(json.dumps(document, ensure_ascii=False, separators=(",", ":"))), flush=True)


def _escaped(text: str) -> str:
    """Return JSON with characters that could control the terminal escaped, such as direction marks."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match[0].isprintable() or match[0] == "\n":
        return match[0]
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


class OutputWriter:
    """Writes the output of processes to stdout: unchanged, but on a terminal without what could control it.

    With `raw`, also a terminal gets it unchanged.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._decoder = None if raw or not sys.stdout.isatty() else _UTF8(errors="replace")

    def write(self, data: bytes, *, final: bool = False) -> None:
        """Write and flush the next piece of output; an unfinished character waits for the next one, unless `final`."""
        if self._decoder is not None:
            text = self._decoder.decode(data, final).replace("\r\n", "\n")
            data = _UNUSUAL.sub(lambda match: printable(match[0]), text).encode()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(f"{coloured('warning', 'yellow', sys.stderr)}: {printable(text)}", file=sys.stderr)


def print_error(program: str, message: str, hint: str | None = None) -> None:
    """Print an error message and a hint on stderr, one line each."""
    print(f"{coloured(program, 'red', sys.stderr)}: {printable(message)}", file=sys.stderr)
    if hint:
        print(f"  {printable(hint)}", file=sys.stderr)


class StatusLine:
    """A line on stdout that changes: rewritten in place on a terminal, else printed again after each change."""

    def __init__(self) -> None:
        self._shown = ""
        self._in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, text: str) -> None:
        """Show `text`, made printable, instead of the last one."""
        text = printable(text)
        if text == self._shown:
            return
        self._shown = text
        if self._in_place:
            width = os.get_terminal_size(sys.stdout.fileno()).columns
            print(f"\r\x1b[K{text[: width - 1] if width else text}", end="", flush=True)
        else:
            print(text, flush=True)

    def clear(self) -> None:
        """Remove the text from the terminal."""
        if self._in_place and self._shown:
            print("\r\x1b[K", end="", flush=True)
        self._shown = ""

    def close(self) -> None:
        """Leave the last text on the terminal, in full."""
        if self._in_place and self._shown:
            print(f"\r\x1b[K{self._shown}", flush=True)
