"""Logging of the daemons: one handler, on stderr or in a file, each line with its time.

A thread writes both: a reader of stderr that stops reading must not keep a daemon from its work, nor from ending.
"""

import logging
import os
import sys
import time
from functools import partial

from gaffer.errors import BadRequest, GafferError, InvalidValue, did_you_mean
from gaffer.runtime.background_writer import BackgroundWriter, write_fully
from gaffer.runtime.trusted_files import UntrustedFile, open_log

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class _Formatter(logging.Formatter):
    """Escapes control characters and indents further lines: what others sent can't look like a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if text.isprintable():
            return text
        return "".join(_BREAKS.get(char) or (char if char.isprintable() else _escaped(char)) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


_BREAKS = {"\n": "\n  ", "\t": "\t"}
_FORMATTER = _Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")

# Tornado's lines about failed connections, one an attempt: those who use the connections say it once, and clearly.
_REPEATED = ("SSL Error on", "error on read")

_STDERR = 2
MEMORY_INTERVAL = 10.0  # seconds

_installed: logging.Handler | None = None
_writers: list[BackgroundWriter] = []


def parse_level(name: str) -> int:
    """The number of a log level named in any case; raises BadRequest for an unknown one."""
    try:
        return LEVELS[name.strip().lower()]
    except KeyError:
        raise BadRequest(
            f"unknown log level {name!r}",
            hint=did_you_mean(name.lower(), list(LEVELS)) or f"use one of {', '.join(LEVELS)}",
        ) from None


def log_level(text: str) -> str:
    """The rule of a setting: the name of a log level, in lower case; raises InvalidValue."""
    try:
        parse_level(text)
    except BadRequest as error:
        raise InvalidValue(error.message, error.hint) from None
    return text.strip().lower()


def setup_logging(level: str = "info", error_log: str | None = None) -> None:
    """Log everything of `level` and above to the file `error_log`, or to stderr; make `sys.stderr` non-blocking.

    A second call replaces the handler of the first. The file may be moved away by a log rotator: it is opened anew.
    Neither a link nor a pipe nor a file of another user is written to: it logs to stderr then, and says why.
    Raises BadRequest for an unknown level and GafferError when the file can't be opened.
    """
    global _installed
    number = parse_level(level)
    file: _LogFile | None = None
    fault: UntrustedFile | None = None
    if error_log is not None:
        try:
            file = _LogFile(error_log)
        except UntrustedFile as error:
            fault = error  # others who can put something there must not keep the daemon from starting
        except OSError as error:
            raise GafferError(
                f"can't write the log file {error_log}: {error.strerror}",
                reason="bad_log_file",
                hint="give --error-log a file in a directory that exists and that this user may write to",
            ) from None
    sys.stderr = stderr = BackgroundWriter(partial(write_fully, _STDERR), _lost)
    _writers[:] = [stderr]
    if file is not None:
        _writers.append(BackgroundWriter(file.write, _lost))
    handler = _Handler(_writers[-1])
    handler.setFormatter(_FORMATTER)
    handler.addFilter(_MemoryErrors())
    root = logging.getLogger()
    if _installed is not None:
        root.removeHandler(_installed)
        _installed.close()
    root.addHandler(handler)
    root.setLevel(number)
    tornado = logging.getLogger("tornado.general")
    tornado.setLevel(number if number <= logging.DEBUG else logging.WARNING)  # below: a line for all that is no HTTP
    tornado.addFilter(_is_news)
    _installed = handler
    if fault is not None:
        root.error("logging to stderr: %s; %s", fault.message, fault.hint)


def lost_lines() -> int:
    """The lines of the log that were dropped, because nothing read them or the disk was full."""
    return sum(writer.lost_lines for writer in _writers)


class _Handler(logging.StreamHandler[BackgroundWriter]):
    """Waits for its lines to be written at the end, not after each."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        self.stream.flush()
        super().close()


class _MemoryErrors(logging.Filter):
    """Lets one line about missing memory through in MEMORY_INTERVAL, without a traceback: nearly all fails then."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -MEMORY_INTERVAL

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info is None or not isinstance(record.exc_info[1], MemoryError):
            return True
        now = time.monotonic()
        if now - self._last < MEMORY_INTERVAL:
            return False
        self._last = now
        record.msg, record.args = f"out of memory: {record.getMessage().splitlines()[0]}", ()
        record.exc_info = record.exc_text = None
        return True


class _LogFile:
    """A file that is opened anew once it was moved away; while it can't be, its lines go to stderr.

    Raises OSError and UntrustedFile when it can't be opened first.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = open_log(path, 0o644)

    def write(self, data: bytes) -> None:
        """Append `data`; raises OSError."""
        if not self._is_current():
            try:
                descriptor = open_log(self._path, 0o644)
            except (OSError, UntrustedFile):
                descriptor = os.dup(_STDERR)
            self.close()
            self._descriptor = descriptor
        write_fully(self._descriptor, data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def _lost(lines: int) -> str:
    message = f"{lines} lines of the log were lost: nothing read them, or the disk was full"
    record = logging.makeLogRecord(
        {"name": "gaffer.runtime.log", "levelno": logging.WARNING, "levelname": "WARNING", "msg": message}
    )
    return _FORMATTER.format(record) + "\n"


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_REPEATED)
