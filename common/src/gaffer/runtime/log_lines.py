"""Lines of the daemons' own log: text or JSON, with the job, process and connection that they concern.

A line concerns the `job` and `pid` (Gaffer's) given as `extra=` where it is logged, and the connection in whose tasks
that happens.
"""

import contextvars
import json
import logging
import re
import time
from typing import Any

FORMATS = ("text", "json")

connection: contextvars.ContextVar[int | None] = contextvars.ContextVar("connection", default=None)
"""The number of the connection that the current task serves."""

_FIELDS = ("job", "pid")


def timestamp(now: float) -> str:
    """Return a wall-clock time in UTC as RFC 3339, with milliseconds."""
    milliseconds = int(now * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}Z"


def concerns(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record concerns: `job`, `pid` and `connection`, as far as is known."""
    found = {name: getattr(record, name, None) for name in _FIELDS}
    found["connection"] = getattr(record, "connection", connection.get())
    if found["job"] is not None:
        found["job"] = str(found["job"])  # a JobName
    return {name: value for name, value in found.items() if value not in (None, "")}


class TextFormatter(logging.Formatter):
    """A formatter that escapes control characters and indents continuation lines, so that input can't fake a line.

    What the message does not name itself of what it concerns follows it in brackets.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        about = [f"{name} {value}" for name, value in concerns(record).items() if not _names(record, name, value)]
        first, end, rest = text.partition("\n")
        return f"{first} [{', '.join(about)}]{end}{rest}" if about else text

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if text.isprintable():
            return text
        return "".join(_BREAKS.get(char) or (char if char.isprintable() else _escaped(char)) for char in text)


def _names(record: logging.LogRecord, name: str, value: Any) -> bool:
    word = re.escape(str(value).removeprefix("default."))
    return name in _FIELDS and re.search(rf"(?<!\w){word}(?!\w)", record.message) is not None


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


_BREAKS = {"\n": "\n  ", "\t": "\t"}


class JsonFormatter(logging.Formatter):
    """A formatter of JSON objects: `time`, `level`, `logger` and `message`, and `job`, `pid`, `connection`, `exception`
    where they apply.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **concerns(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def make_formatter(kind: str) -> logging.Formatter:
    """Return a formatter, `text` or `json`."""
    return JsonFormatter() if kind == "json" else TextFormatter()
