"""Logging of the daemons: one handler, to stderr or a file, in lines of text or JSON.

A thread writes to both: a reader of stderr that stops reading must not block a daemon, nor keep it from exiting.
"""

import logging
import os
import sys
import time
from functools import partial

from gaffer.errors import BadRequest, GafferError, InvalidValue, did_you_mean
from gaffer.runtime.background_writer import BackgroundWriter, write_fully
from gaffer.runtime.log_lines import make_formatter
from gaffer.runtime.trusted_files import UntrustedFile, open_log

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

# Tornado's messages about each failed connection attempt: the users of the connections log them once, and clearly.
_REPEATED = ("SSL Error on", "error on read")

_STDERR = 2
logger = logging.getLogger(__name__)
MEMORY_INTERVAL = 10.0  # seconds

_installed: logging.Handler | None = None
_writers: list[BackgroundWriter] = []


def parse_level(name: str) -> int:
    """Return the number of a log level, by its name in any case; raises BadRequest if unknown."""
    try:
        return LEVELS[name.strip().lower()]
    except KeyError:
        raise BadRequest(
            f"unknown log level {name!r}",
            hint=did_you_mean(name.lower(), list(LEVELS)) or f"use one of {', '.join(LEVELS)}",
        ) from None


def log_level(text: str) -> str:
    """Rule of a setting: return the name of a log level in lower case; raises InvalidValue."""
    try:
        parse_level(text)
    except BadRequest as error:
        raise InvalidValue(error.message, error.hint) from None
    return text.strip().lower()


def setup_logging(level: str = "info", error_log: str | None = None, form: str = "text") -> None:
    """Log everything from `level` up to the file `error_log`, or to stderr; make `sys.stderr` non-blocking.

    `form` is `text` or `json`. A second call replaces the first one's handler. If a log rotator moves the file away, it
    is reopened, at the next line or by `reopen`. If it is a
    link, a pipe or a file of another user, log to stderr instead, including the reason. Raises BadRequest for an
    unknown level and GafferError if the file can't be opened.
    """
    global _installed
    number = parse_level(level)
    file: _LogFile | None = None
    fault: UntrustedFile | None = None
    if error_log is not None:
        try:
            file = _LogFile(error_log)
        except UntrustedFile as error:
            fault = error  # other users who can create files there must not keep the daemon from starting
        except OSError as error:
            raise GafferError(
                f"can't write the log file {error_log}: {error.strerror}",
                reason="bad_log_file",
                hint="set --error-log to a file in an existing directory that this user can write to",
            ) from None
    formatter = make_formatter(form)
    lost = partial(_lost, formatter)
    sys.stderr = stderr = BackgroundWriter(partial(write_fully, _STDERR), lost)
    _writers[:] = [stderr]
    if file is not None:
        _writers.append(BackgroundWriter(file.write, lost))
    for writer in _writers:
        writer.start()
    handler = _Handler(_writers[-1])
    handler.setFormatter(formatter)
    handler.addFilter(_MemoryErrors())
    root = logging.getLogger()
    if _installed is not None:
        root.removeHandler(_installed)
        _installed.close()
    root.addHandler(handler)
    root.setLevel(number)
    tornado = logging.getLogger("tornado.general")
    tornado.setLevel(number if number <= logging.DEBUG else logging.WARNING)  # info logs all non-HTTP input
    tornado.addFilter(_is_news)
    _installed = handler
    if fault is not None:
        root.error("logging to stderr: %s; %s", fault.message, fault.hint)


def lost_lines() -> int:
    """Return the number of log lines dropped because nothing read them or the disk was full."""
    return sum(writer.lost_lines for writer in _writers)


def reopen() -> None:
    """Log a line, before which a log file that was moved away is reopened."""
    logger.info("reopened the log files")


class _Handler(logging.StreamHandler[BackgroundWriter]):
    """A handler that flushes when closed, not after each line."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        self.stream.flush()
        super().close()


class _MemoryErrors(logging.Filter):
    """A filter that passes one line about exhausted memory per MEMORY_INTERVAL, without its traceback."""

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
    """A file that is reopened after it was moved away; if that fails, its lines go to stderr.

    Raises OSError and UntrustedFile if it can't be opened initially.
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


def _lost(formatter: logging.Formatter, lines: int) -> str:
    message = f"{lines} lines of this log were lost: nothing read them, or the disk was full"
    record = logging.makeLogRecord(
        {"name": "gaffer.runtime.log", "levelno": logging.WARNING, "levelname": "WARNING", "msg": message}
    )
    return formatter.format(record) + "\n"


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_REPEATED)
