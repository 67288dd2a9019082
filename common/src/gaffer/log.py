"""Logging of the daemons: one handler, on stderr or in a file, each line with its time."""

import logging
import logging.handlers
import sys

from gaffer.errors import BadRequest, GafferError
from gaffer.rules import did_you_mean

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Tornado's lines about failed connections, one an attempt: those who use the connections say it once, and clearly.
_REPEATED = ("SSL Error on", "error on read")

_installed: logging.Handler | None = None


def parse_level(name: str) -> int:
    """The number of a log level named in any case; raises BadRequest for an unknown one."""
    try:
        return LEVELS[name.strip().lower()]
    except KeyError:
        raise BadRequest(
            f"unknown log level {name!r}",
            hint=did_you_mean(name.lower(), list(LEVELS)) or f"use one of {', '.join(LEVELS)}",
        ) from None


def setup_logging(level: str = "info", error_log: str | None = None) -> None:
    """Log everything of `level` and above to the file `error_log`, or to stderr.

    A second call replaces the handler of the first. The file may be moved away by a log rotator: it is opened anew.
    Raises BadRequest for an unknown level and GafferError when the file can't be opened.
    """
    global _installed
    number = parse_level(level)
    handler: logging.Handler
    if error_log is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.handlers.WatchedFileHandler(error_log, encoding="utf-8")
        except OSError as error:
            raise GafferError(
                f"can't write the log file {error_log}: {error.strerror}",
                reason="bad_log_file",
                hint="give --error-log a file in a directory that exists and that this user may write to",
            ) from None
    handler.setFormatter(logging.Formatter(_FORMAT))
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


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_REPEATED)
